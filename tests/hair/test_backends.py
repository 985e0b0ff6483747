"""ONNX Runtime, OpenVINO and PyTorch agree, and say in one line what they cannot use."""

import json
import sys
import weakref
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hair import HairSegmenter, UserError, backends
from hair.geometry import preprocess
from tests.hair.conftest import FACTS
from tests.pictures import FUZZ
from tools.make_sample import draw_head


def test_backends_agree(weights: Path, head: np.ndarray) -> None:
    photo = head[:, :70]
    torch, onnx = (HairSegmenter(weights, backend)(photo) for backend in ("torch", "onnx"))
    assert torch.dtype == onnx.dtype == np.float32
    assert torch.shape == onnx.shape == (96, 70)
    assert torch.min() >= 0 and torch.max() <= 1
    np.testing.assert_allclose(torch, onnx, atol=1e-3)


def test_openvino_agrees(weights: Path, head: np.ndarray) -> None:
    pytest.importorskip("openvino")
    onnx, openvino = (HairSegmenter(weights, backend)(head) for backend in ("onnx", "openvino"))
    np.testing.assert_allclose(openvino, onnx, atol=0.05)  # it may compute in bfloat16


def test_opencv_reads_the_onnx_file(weights: Path, head: np.ndarray) -> None:
    onnx = backends.open_network(weights / "model.onnx", "onnx")
    photo = preprocess(head, 64, onnx.facts["mean"], onnx.facts["std"])[None]
    network = cv2.dnn.readNetFromONNX(str(weights / "model.onnx"))
    network.setInput(photo)
    np.testing.assert_allclose(network.forward(), onnx(photo), atol=1e-3)


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_batch_threads_and_single_calls_agree(weights: Path, backend: str, threads: int | None) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    photos = [draw_head(rng, 96)[0][: 60 + 6 * i] for i in range(6)]
    segmenter = HairSegmenter(weights, backend, threads=threads)
    alone = [segmenter(photo) for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        threaded = list(pool.map(segmenter, photos))
    for one, two, three in zip(alone, segmenter.predict_batch(photos), threaded, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5 if backend == "onnx" else 0.05)  # the other may use bfloat16
        np.testing.assert_array_equal(one, three)
    assert segmenter.predict_batch([]) == []


def test_no_more_calls_at_once_than_there_are_cores(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(backends, "cores", lambda: 2)
    monkeypatch.setattr(backends, "_compile", (compiled := Mock(wraps=backends._compile)))
    network = backends.open_network(weights / "model.onnx", "openvino", threads=1)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(network, [np.zeros((1, 3, 64, 64), np.float32)] * 24))
    assert 1 <= compiled.call_count <= 2


def test_closed_networks_leave_nothing_to_the_garbage_collector(weights: Path) -> None:
    """OpenVINO's objects crash if they are freed in another order than that in which they depend on each other."""
    pytest.importorskip("openvino")
    network = backends.open_network(weights / "model.onnx", "openvino", threads=1)
    network(np.zeros((2, 3, 96, 96), np.float32))
    gone = weakref.ref(network)
    del network
    assert gone() is None


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_network_that_fails_is_a_clear_line(weights: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    segmenter = HairSegmenter(weights, backend)
    failing = Mock(side_effect=RuntimeError("not enough memory\nat line 12"))
    monkeypatch.setattr(segmenter._network, "_run", failing)
    with pytest.raises(UserError, match=rf"{backend} cannot run the network on .* \(not enough memory\)"):
        segmenter(np.zeros((8, 8, 3), np.uint8))


def write_tflite(path: Path) -> Path:
    """A LiteRT file of one layer, without metadata: a logit is the sum of a pixel's channels."""
    pytest.importorskip("ai_edge_litert")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int) -> schema.TensorT:
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name.encode(), shape, schema.TensorType.FLOAT32, buffer
        return made

    model, graph, layer, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CONV_2D
    layer.builtinOptionsType, layer.builtinOptions = schema.BuiltinOptions.Conv2DOptions, schema.Conv2DOptionsT()
    layer.builtinOptions.strideH = layer.builtinOptions.strideW = 1
    layer.inputs, layer.outputs = [0, 1, 2], [3]
    shapes = {"photo": [1, 64, 64, 3], "weights": [1, 1, 1, 3], "bias": [1], "logits": [1, 64, 64, 1]}
    graph.tensors = [tensor(name, shape, number) for number, (name, shape) in enumerate(shapes.items())]
    graph.inputs, graph.outputs, graph.operators = [0], [3], [layer]
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [schema.BufferT() for _ in shapes]
    model.buffers[1].data, model.buffers[2].data = np.ones(3, "<f4").tobytes(), np.zeros(1, "<f4").tobytes()
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def test_litert_reads_photos_in_the_layout_of_the_others(tmp_path: Path, head: np.ndarray) -> None:
    path = write_tflite(tmp_path / "net.tflite")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.json", json.dumps(FACTS | {"fixed_size": 64, "int8": True}))
    network = backends.open_network(path, threads=1)
    photos = np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    with ThreadPoolExecutor(3) as pool:
        for logits in pool.map(network, [photos] * 6):
            np.testing.assert_allclose(logits, photos.sum(1, keepdims=True), atol=1e-5)
    segmenter = HairSegmenter(path, tta=True)
    assert (segmenter.backend, segmenter(head[:, :70]).shape) == ("litert", (96, 70))
    assert segmenter.network == f"{path}: litert, int8"


def test_what_litert_cannot_use_is_one_line(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tflite(tmp_path / "net.tflite")
    with pytest.raises(UserError, match=r"net\.tflite: not written by this project"):
        HairSegmenter(path)
    with pytest.raises(UserError, match=r"--device gpu: LiteRT runs on CPUs only"):
        HairSegmenter(path, device="gpu")
    with pytest.raises(UserError, match=r"run: --backend litert does not read it"):
        HairSegmenter(weights, "litert")
    path.write_bytes(b"no network")
    with pytest.raises(UserError, match=r"net\.tflite: cannot be loaded by LiteRT") as error:
        HairSegmenter(path)
    assert "\n" not in str(error.value)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match=r"net\.tflite: needs LiteRT: pip install ai-edge-litert"):
        HairSegmenter(path)


@pytest.mark.parametrize(("module", "backend"), [("openvino", "openvino"), ("torch", "torch")])
def test_a_missing_package_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch, module: str, backend: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what importing it makes an ImportError
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install"):
        HairSegmenter(weights, backend=backend)


def test_without_openvino_and_pytorch_onnx_runtime_is_enough(
    weights: Path, monkeypatch: pytest.MonkeyPatch, head: np.ndarray
) -> None:
    for module in ("openvino", "torch"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    segmenter = HairSegmenter(weights)
    assert segmenter.backend == "onnx" and segmenter(head).shape == (96, 96)


@pytest.mark.parametrize("content", ["", "{}", "[]", "3", "머리", '{"img_size": 64}'])
def test_facts_that_are_missing_or_incomplete_are_refused(content: str) -> None:
    with pytest.raises(UserError, match=r"net\.onnx: not written by this project") as error:
        backends.parse_facts(Path("net.onnx"), content)
    assert "\n" not in str(error.value)
    assert backends.parse_facts(Path("net.onnx"), json.dumps(FACTS))["img_size"] == 64


values = st.recursive(st.none() | st.booleans() | st.floats() | st.text("a머", max_size=3), st.lists, max_leaves=4)
facts = values | st.dictionaries(st.sampled_from(["img_size", "mean", "std", "threshold", "머리"]), values)


@FUZZ
@given(facts)
def test_facts_are_whole_or_refused(content: object) -> None:
    try:
        found = backends.parse_facts(Path("net.onnx"), json.dumps(content))
    except UserError as error:
        assert str(error).startswith("net.onnx: ") and "\n" not in str(error)
    else:
        assert {"img_size", "mean", "std", "threshold"} <= found.keys()


def test_a_device_that_is_not_there_is_refused() -> None:
    torch = pytest.importorskip("torch")
    assert backends.torch_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match=r"--device abacus .*try --device cpu") as error:
        backends.torch_device("abacus")
    assert "\n" not in str(error.value)


def test_convolutions_take_in_the_normalisation(weights: Path, tmp_path: Path) -> None:
    """They can only if nothing else reads their output, such as the shapes in a file that takes any size."""
    onnx = pytest.importorskip("onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(weights / "model.onnx", options)
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "Conv" in kinds and "BatchNormalization" not in kinds

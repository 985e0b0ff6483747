"""Every decoder leaves PyTorch unchanged, and what differs is not written."""

import json
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import models
from export import SUFFIXES
from hair import UserError, backends
from tests import scripts
from tests.pictures import write_picture
from tools.make_sample import draw_head
from training import exporting

FACTS = {"img_size": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "threshold": 0.5}
# The fewest layers that a decoder takes: the exporter's time goes by layers, not by their size. PAN's pyramid needs
# 128 px; DPT takes transformers alone, at their own size.
ENCODERS = {"DPT": ("tu-vit_tiny_patch16_224", 224), "PAN": ("resnet18", 128)}
SMALLEST = "tu-test_efficientnet"  # of more layers, for tests that leave the exporter out
ENCODERS |= dict.fromkeys(["DeepLabV3", "DeepLabV3Plus", "UPerNet"], ("resnet18", 64))


@pytest.fixture(autouse=True)
def one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export for one size: half the exporter's time. tests/hair/conftest.py has a file that takes any size."""
    monkeypatch.setattr(exporting, "FIXED_SIZE", models.DECODERS)


def save_tiny(folder: Path, decoder: str = "Unet", encoder: str | None = None) -> Path:
    """The folder of an untrained network, of the encoder of ENCODERS if no other is named."""
    own, size = ENCODERS.get(decoder, ("vgg11", 64))
    channels = [32, 16, 16, 8, 8] if decoder in models.UNET_FAMILY else None
    model = models.build_model(encoder or own, decoder, None, channels)
    models.save_model(model, folder, {**FACTS, "img_size": size})
    return folder


SLOW = ("MAnet", "UPerNet", "UnetPlusPlus", "DPT")  # the exporter needs 5 to 15 s for each: pytest -m slow
CASES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in models.DECODERS]


@pytest.mark.parametrize("decoder", CASES)
def test_every_decoder_exports(tmp_path: Path, decoder: str, capsys: pytest.CaptureFixture) -> None:
    save_tiny(tmp_path, decoder)
    exporting.export(tmp_path, "onnx", tmp_path / "model.onnx")  # compares with PyTorch, or raises
    assert "PyTorch" in capsys.readouterr().out
    network = backends.open_network(tmp_path / "model.onnx", "onnx")
    size = network.facts["img_size"]
    assert network(np.zeros((3, 3, size, size), np.float32)).shape == (3, 1, size, size)
    assert network.facts["mean"] == [0.5, 0.5, 0.5] and network.facts["decoder"] == decoder


@pytest.mark.parametrize("kind", ["openvino", "torchscript"])
def test_other_formats(tmp_path: Path, kind: str) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino")
    output = save_tiny(tmp_path / "run") / f"model{SUFFIXES[kind]}"
    exporting.export(output.parent, kind, output)
    network = backends.open_network(output)
    assert network.facts["img_size"] == 64 and network.facts["threshold"] == 0.5
    assert not [path for path in output.parent.iterdir() if path.name.startswith(".")]


def test_half_is_half_the_size_and_takes_float32(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    exporting.export(tmp_path, "onnx", tmp_path / "half.onnx", half=True)
    whole = tmp_path / "model.safetensors"
    assert (tmp_path / "half.onnx").stat().st_size < 0.6 * whole.stat().st_size
    half, eager = backends.open_network(tmp_path / "half.onnx", "onnx"), backends.open_network(tmp_path, "torch")
    photo = np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
    assert half(photo).dtype == np.float32
    assert 0 < np.abs(half(photo) - eager(photo)).max() < 0.05


def test_int8(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("image", "mask"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    for number in range(8):
        image, _, mask = draw_head(rng, 64)
        Image.fromarray(image).save(tmp_path / "photos" / "image" / f"{number}.jpg")
        Image.fromarray(mask).save(tmp_path / "photos" / "mask" / f"{number}.png")
    save_tiny(tmp_path / "run")
    result = exporting.export_int8(tmp_path / "run", tmp_path / "photos", tmp_path / "run" / "model_int8.onnx")
    assert {"iou", "dice_float32", "dice_int8", "ms_float32", "ms_int8"} <= result.keys()
    kinds = {node.op_type for node in onnx.load(tmp_path / "run" / "model_int8.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    with pytest.raises(UserError, match="at least 8"):
        exporting.export_int8(tmp_path / "run", tmp_path, tmp_path / "no.onnx")


@pytest.mark.parametrize(("kind", "module"), [("litert", "litert_torch"), ("coreml", "coremltools")])
def test_a_missing_converter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    output = save_tiny(tmp_path, encoder=SMALLEST) / f"model{SUFFIXES[kind]}"
    with pytest.raises(UserError, match=rf"--format {kind} needs .*pip install"):
        exporting.export(tmp_path, kind, output)
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("litert_torch"), reason="litert-torch is not installed")
def test_litert_files(tmp_path: Path) -> None:
    run = save_tiny(tmp_path / "run")
    for number in range(8):
        write_picture(tmp_path / "photos" / f"{number}.png", draw_head(np.random.default_rng(number), 64)[0])
    for half in (False, True):
        exporting.export(run, "litert", tmp_path / f"half_{half}.tflite", half)  # compares with PyTorch, or raises
    assert exporting.export_int8(run, tmp_path / "photos", tmp_path / "int8.tflite")["iou"] > 0
    sizes = [(tmp_path / name).stat().st_size for name in ("half_False.tflite", "half_True.tflite", "int8.tflite")]
    assert sizes[0] > 1.8 * sizes[1] > 3.2 * sizes[2]
    network = backends.open_network(tmp_path / "int8.tflite")
    assert network.facts["fixed_size"] == 64 and network.facts["mean"] == [0.5, 0.5, 0.5] and network.facts["int8"]


@pytest.mark.slow
def test_coreml_package(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    coremltools = pytest.importorskip("coremltools")
    output = tmp_path / "model.mlpackage"
    for half in (False, True):  # the second one replaces the first one
        exporting.export(save_tiny(tmp_path / "run"), "coreml", output, half)
        assert "not compared with PyTorch" in capsys.readouterr().out
        found = coremltools.utils.load_spec(str(output)).description
        (photo,), (logits,) = found.input, found.output
        assert (photo.name, photo.type.multiArrayType.shape) == ("photo", [1, 3, 64, 64])
        assert (logits.name, logits.type.multiArrayType.shape) == ("logits", [1, 1, 64, 64])
        assert backends.parse_facts(output, found.metadata.userDefined["hair"])["threshold"] == 0.5


def write_two_layers(_: object, path: Path, facts: dict, half: bool = False, opset: int | None = None) -> None:
    """Stands in for `export_onnx`, whose exporter takes most of the time: a network of its own."""
    rng = np.random.default_rng(0)
    shapes = {"one": (4, 3, 3, 3), "two": (1, 4, 3, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", [first, name], [last], name, pads=[1, 1, 1, 1])
            for first, name, last in [("photo", "one", "middle"), ("middle", "two", "logits")]
        ],
        "hair",
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, 64, 64])],
        [numpy_helper.from_array(rng.random(shape, np.float32), name) for name, shape in shapes.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(proto, {backends.METADATA: json.dumps(facts)})
    onnx.save(proto, path)


def test_int8_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(8):
        Image.fromarray(draw_head(np.random.default_rng(number), 64)[0]).save(tmp_path / "photos" / f"{number}.jpg")
    opened = []
    monkeypatch.setattr(exporting, "compare", lambda *networks: opened.extend(networks[:2]) or (0.0, 1.0))
    monkeypatch.setattr(exporting, "export_onnx", write_two_layers)
    monkeypatch.setattr(models, "load_model", lambda _: (None, FACTS))
    monkeypatch.setattr(exporting, "fingerprint", lambda _: "")
    for name in ("float32.onnx", "prepared.onnx"):
        exporting.export_int8(tmp_path, tmp_path / "photos", tmp_path / name)
        photo = np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
        reference, rounded = (network(photo) for network in opened[-2:])
        assert np.abs(reference - rounded).max() > 0  # not compared with itself
        np.testing.assert_array_equal(rounded, backends.open_network(tmp_path / name, "onnx")(photo))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float32.onnx", "photos", "prepared.onnx"]


def test_onnx_is_written_for_the_oldest_programs_that_can_read_it() -> None:
    def network(node: onnx.NodeProto, opset: int = 20) -> onnx.ModelProto:
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("photo", "logits")]
        graph = helper.make_graph([node], "hair", ends[:1], ends[1:])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

    sigmoid = network(helper.make_node("Sigmoid", ["photo"], ["logits"]))
    oldest = exporting.to_opset(sigmoid)
    assert (oldest.opset_import[0].version, oldest.ir_version) == (13, 7)
    assert exporting.to_opset(sigmoid, 18).opset_import[0].version == 18
    newer = network(helper.make_node("Mish", ["photo"], ["logits"]))  # an operator of opset 18
    assert (exporting.to_opset(newer).opset_import[0].version, exporting.to_opset(newer).ir_version) == (18, 8)
    for opset in (17, 99):
        with pytest.raises(UserError, match=rf"--opset {opset}: this network can be written in opset 18 to \d+"):
            exporting.to_opset(newer, opset)


@pytest.mark.slow
def test_onnx_runtime_1_17_runs_it(tmp_path: Path) -> None:
    """In an environment of its own, which needs internet access."""
    exporting.export(save_tiny(tmp_path), "onnx", tmp_path / "model.onnx")
    photo = np.random.default_rng(0).standard_normal((1, 3, 64, 64), dtype=np.float32)
    np.save(tmp_path / "photo.npy", photo)
    venv.create(tmp_path / "old", with_pip=True)
    python = tmp_path / "old" / "bin" / "python"
    if subprocess.run([python, "-m", "pip", "install", "-q", "onnxruntime==1.17.3", "numpy<2"]).returncode:
        pytest.skip("ONNX Runtime 1.17.3 cannot be installed here")
    program = (
        "import numpy, onnxruntime; assert onnxruntime.__version__ == '1.17.3'; "
        "session = onnxruntime.InferenceSession('model.onnx'); "
        "numpy.save('logits.npy', session.run(None, {'photo': numpy.load('photo.npy')})[0])"
    )
    subprocess.run([python, "-c", program], cwd=tmp_path, check=True)
    expected = backends.open_network(tmp_path, "torch")(photo)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-3)


def test_facts_are_carried_over_or_missed(tmp_path: Path) -> None:
    save_tiny(tmp_path, encoder=SMALLEST)
    model, facts = models.load_model(tmp_path)
    carried = exporting.portable_facts(tmp_path, model, facts | {"fold": 3, "n_folds": 4}, None)
    assert (carried["fold"], carried["n_folds"], carried["mean"]) == (3, 4, [0.5, 0.5, 0.5])
    with pytest.raises(UserError, match=r"config\.json: not written by this project \(no mean in it\)"):
        exporting.portable_facts(tmp_path, model, {key: facts[key] for key in facts if key != "mean"}, None)


def test_int8_names_what_it_cannot_use(tmp_path: Path) -> None:
    save_tiny(tmp_path / "run", encoder=SMALLEST)
    for folder in ("image", "mask"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    photos = [tmp_path / "photos" / "image" / f"[{number}].jpg" for number in range(8)]
    for photo in photos:
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photo)

    def network(batch: np.ndarray) -> np.ndarray:
        return batch[:, :1]

    inputs = [np.zeros((1, 3, 64, 64), np.float32)]
    with pytest.raises(UserError, match=r"\[0\]\.jpg: has no mask with the same name"):
        exporting._dice(network, inputs, photos[:1], FACTS)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "photos" / "mask" / "[0].png")
    assert exporting._dice(network, inputs, photos[:1], FACTS | {"threshold": 0.9}) == 1.0
    photos[0].write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"\[0\]\.jpg: cannot be read"):
        exporting._inputs(photos[:1], FACTS)


def test_what_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny(tmp_path, encoder=SMALLEST)
    monkeypatch.setattr(exporting, "export_onnx", write_two_layers)
    with pytest.raises(UserError, match="differs too much"):
        exporting.export(tmp_path, "onnx", tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_compare_sees_a_wrong_normalisation() -> None:
    photo = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)

    def right(x: np.ndarray) -> np.ndarray:
        return x[:, :1]

    def wrong(x: np.ndarray) -> np.ndarray:
        return x[:, :1] + 0.2

    assert exporting.compare(right, right, [photo], 0.5) == (0.0, 1.0)
    largest, iou = exporting.compare(right, wrong, [photo], 0.5)
    assert largest > 0.04 and iou < 0.99


@pytest.mark.parametrize(
    "flags",
    [
        ["--img_size", "100"],
        ["--int8", "x", "--half"],
        ["--output", "a.xml"],
        ["--weights", "nowhere"],
        ["--format", "openvino", "--opset", "15"],
    ],
)
def test_wrong_flags_are_one_line(tmp_path: Path, flags: list[str]) -> None:
    assert scripts.run(tmp_path, *flags, script="export") == 1
    out = (tmp_path / "out.txt").read_text()
    assert out.startswith("error: ") and out.count("\n") == 1

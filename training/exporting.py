"""Export a run folder to ONNX, OpenVINO, LiteRT, Core ML or TorchScript; compare it with PyTorch before it is saved."""

import contextlib
import copy
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, shape_inference, version_converter
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

import models
from hair.backends import METADATA, Network, TorchNetwork, fingerprint, open_network, parse_facts
from hair.errors import UserError
from hair.files import atomic
from hair.geometry import preprocess, restore
from hair.photos import photos_in, read_photo
from hair.segmenter import sigmoid
from training import phones
from training.augment import train_transform
from training.masks import read_mask

# Their adaptive pooling (UPerNet, PSPNet) or position embedding (DPT) is frozen at the exported size. The exporter
# would allow other sizes, with wrong results, so the file accepts only this size.
FIXED_SIZE = ("PSPNet", "UPerNet", "DPT")
DEMO = Path(__file__).resolve().parents[1] / "demo"
LARGEST_DIFFERENCE, LEAST_IOU = 1e-3, 0.999  # from PyTorch: of probabilities, of masks
LARGEST_DIFFERENCE_HALF, LEAST_IOU_HALF = 5e-2, 0.99  # the same for float16 weights
LARGEST_DIFFERENCE_LITERT, LEAST_IOU_LITERT = 1e-2, 0.995  # the same for LiteRT, in float32 and float16
ONE_SIZE = ("litert", "coreml")  # telephones get files for one photo of one size
OLDEST_OPSET = 13  # the first with one scale for each channel, as int8 needs
OTHER_SIZE = 64  # pixels by which the second tested size differs
LEAST_INT8_PHOTOS, MOST_INT8_PHOTOS = 8, 200  # half of them calibrate, the other half measure


def export_onnx(model: nn.Module, path: Path, facts: dict, half: bool = False, opset: int | None = None) -> None:
    """Write a network as ONNX: `photo` float32 (N, 3, S, S), normalised, to `logits` float32 (N, 1, S, S).

    Args:
        model: a network from `models.build_model`, in eval mode.
        path: the file to write.
        facts: stored in the metadata as JSON, key `hair`.
        half: store the weights as float16 and convert them when loading, so that the computation stays in float32.
        opset: ONNX opset; None: the oldest that the network can be written in.
    """
    size, dims = facts["img_size"], {0: torch.export.Dim("batch")}
    if facts["fixed_size"] is None:
        dims |= {2: 32 * torch.export.Dim("height_32"), 3: 32 * torch.export.Dim("width_32")}
    example = torch.zeros(2, 3, size, size)  # two: the exporter would treat a batch size of one as a constant
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            plain_layout(model),
            (example,),
            input_names=["photo"],
            output_names=["logits"],
            dynamic_shapes=(dims,),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is None only for the exporter before dynamo
    proto = to_opset(program.model_proto, opset)
    _let_convolutions_normalise(proto)
    if half:
        _store_half(proto)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(facts)})
    onnx.save(proto, path)


def to_opset(proto: ModelProto, opset: int | None = None) -> ModelProto:
    """A network in another opset, with the lowest IR version for that opset, so that older programs can read it.

    Args:
        proto: the network as exported.
        opset: None: the oldest one, from 13 on, that has all operators of the network.

    Raises:
        UserError: an opset that lacks operators of the network, or that the installed onnx does not know.
    """
    newest = onnx.defs.onnx_opset_version()
    for version in range(OLDEST_OPSET, newest + 1) if opset is None else [opset]:
        # RuntimeError: the converter has no translation for an operator.
        with contextlib.suppress(RuntimeError, checker.ValidationError, shape_inference.InferenceError):
            converted = version_converter.convert_version(proto, version)
            converted.ir_version = helper.find_min_ir_version_for(converted.opset_import)
            checker.check_model(converted, full_check=True)
            return converted
    if opset is None:
        return proto
    oldest = to_opset(proto).opset_import[0].version
    raise UserError(f"--opset {opset}: this network can be written in opset {oldest} to {newest}")


def plain_layout(model: nn.Module) -> nn.Module:
    """A copy with the weights in the default memory format, which every exporter understands."""
    return copy.deepcopy(model).to(memory_format=torch.contiguous_format)


def _let_convolutions_normalise(proto: ModelProto) -> None:
    """Let shapes be read behind batch normalisation: only a convolution with no other reader can take it in."""
    normalisations = {node.input[0]: node for node in proto.graph.node if node.op_type == "BatchNormalization"}
    nodes = []
    for node in proto.graph.node:
        if node.op_type == "Shape" and node.input[0] in normalisations:
            node.input[0] = normalisations[node.input[0]].output[0]
        if node.op_type != "BatchNormalization":
            nodes.append(node)
        nodes += [normalisations[name] for name in node.output if name in normalisations]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _store_half(proto: ModelProto) -> None:
    """Store the large tensors of an ONNX model as float16, cast to float32 when it is loaded."""
    casts = []
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        # Small ones (scales, clip limits, biases) take little space and stay exact.
        if tensor.data_type == TensorProto.FLOAT and values.ndim > 1:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def export_openvino(model: nn.Module, path: Path, facts: dict, half: bool = False) -> None:
    """Write a network as OpenVINO's pair `<path>.xml` and `.bin`; arguments as `export_onnx`, facts in `rt_info`."""
    try:
        import openvino
    except ImportError as error:
        raise UserError("--format openvino needs OpenVINO: pip install openvino") from error
    source = path.with_suffix(".onnx")
    export_onnx(model, source, facts)
    graph = openvino.Core().read_model(source)
    graph.set_rt_info(json.dumps(facts), METADATA)
    openvino.save_model(graph, path, compress_to_fp16=half)
    del graph  # it holds the file open
    source.unlink()


def export_torchscript(model: nn.Module, path: Path, facts: dict, half: bool = False) -> None:
    """Write a network as TorchScript, which only needs torch to run; arguments as `export_onnx`, facts as `hair`."""
    if half:
        raise UserError("--half is for ONNX and OpenVINO; torch would compute in float16, which is slow on CPUs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # since torch 2.10 TorchScript is deprecated, but still read and written
        size = facts["img_size"]
        traced = torch.jit.trace(plain_layout(model), torch.zeros(1, 3, size, size))
        torch.jit.save(traced, path, _extra_files={METADATA: json.dumps(facts)})


def calibration_inputs(photos: list[Path], facts: dict) -> Iterator[np.ndarray]:
    """Photos as the network reads them, float32 (1, 3, S, S), to calibrate int8; a hundred are enough.

    Each is seen as it is and once turned, in bad light, blurred or the like: ranges of values must hold for such
    photos, too.
    """
    change = train_transform("heavy", facts["img_size"])
    change.set_random_seed(0)
    for photo in photos:
        yield _inputs([photo], facts)
        pixels = change(image=read_photo(photo))["image"].permute(1, 2, 0).numpy()
        yield preprocess(pixels, facts["img_size"], facts["mean"], facts["std"])[None]


def quantise(source: Path, path: Path, facts: dict, inputs: Iterator[np.ndarray]) -> None:
    """Write an int8 version of an ONNX file.

    Args:
        source: a file of `export_onnx`, in float32.
        path: the file to write.
        facts: for its metadata.
        inputs: of the network, float32 (1, 3, S, S), to calibrate with.
    """

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict | None:
            batch = next(inputs, None)
            return None if batch is None else {"photo": batch}

    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:  # the user may have chosen any name for `path`
        prepared = Path(scratch, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        # The last convolution determines the edges and is cheap: it stays in float32.
        last = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"][-1]
        quantization.quantize_static(
            prepared,
            path,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[last],
        )
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(facts)})
    onnx.save(proto, path)


def _inputs(photos: list[Path], facts: dict, size: int | None = None) -> np.ndarray:
    """A batch of photos as the network reads it, float32 (N, 3, S, S)."""
    images = [read_photo(photo) for photo in photos]
    size = size or facts["img_size"]
    return np.stack([preprocess(image, size, facts["mean"], facts["std"]) for image in images])


def compare(one: Network, other: Network, inputs: list[np.ndarray], threshold: float) -> tuple[float, float]:
    """The largest difference between the probabilities of two networks, and the IoU of their masks over all inputs."""
    largest, both, either = 0.0, 0, 0
    for photo in inputs:
        a, b = sigmoid(one(photo)), sigmoid(other(photo))
        largest = max(largest, float(np.abs(a - b).max()))
        both += np.count_nonzero((a >= threshold) & (b >= threshold))
        either += np.count_nonzero((a >= threshold) | (b >= threshold))
    return largest, both / either if either else 1.0


def time_in_turns(networks: dict[str, Network], inputs: np.ndarray, rounds: int = 7) -> dict[str, float]:
    """The median time of each network in ms. They alternate, so that other processes slow all of them equally."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(rounds + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            network(inputs)
            if turn:  # the first turn is a warm-up
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def export(
    folder: Path, kind: str, output: Path, half: bool = False, size: int | None = None, opset: int | None = None
) -> None:
    """Export a run folder, compare with PyTorch and print the differences and the speed of both.

    Args:
        folder: with `config.json` and `model.safetensors`.
        kind: `onnx`, `openvino`, `torchscript`, `litert` or `coreml`.
        output: the file to write; nothing is written if the two differ too much.
        half: store the weights in float16.
        size: pixels of the network's input; the trained size if None.
        opset: of an ONNX file; the oldest possible one if None.

    Raises:
        UserError: weights that cannot be loaded or exported, or probabilities that differ by more than 1e-3 (5e-2 with
            `half`) or masks with an IoU below 0.999 (0.99).
    """
    model, facts = models.load_model(folder)
    facts = portable_facts(folder, model, facts, size, kind in ONE_SIZE)
    writers: dict[str, Callable] = {
        "onnx": partial(export_onnx, opset=opset),
        "openvino": export_openvino,
        "torchscript": export_torchscript,
        "litert": phones.export_litert,
        "coreml": phones.export_coreml,
    }
    eager = TorchNetwork(model, facts, "cpu")
    with atomic(output) as temporary:
        try:
            writers[kind](plain_layout(model), temporary, facts, half)
        except (RuntimeError, AssertionError, ImportError) as error:
            raise UserError(
                f"{folder}: {facts['decoder']} cannot be exported at {facts['img_size']} px: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        if kind == "coreml":  # it runs on Apple's systems alone
            print(
                f"{output}: {_megabytes(temporary):.1f} MB, not compared with PyTorch: Core ML runs on Apple's systems"
            )
            return
        reader = "onnx" if kind == "onnx" else "auto"
        network = open_network(temporary, reader, "cpu", precision="f32")
        if network.facts != facts:
            raise UserError(f"{output}: its metadata have changed: {network.facts} is not {facts}")
        _check(output, temporary, eager, network, facts, half)
        if kind == "openvino":
            temporary.with_suffix(".bin").replace(output.with_suffix(".bin"))
    print(f"{output}: {_megabytes(output):.1f} MB")


def portable_facts(folder: Path, model: nn.Module, facts: dict, size: int | None, one_size: bool = False) -> dict:
    """The metadata of a run folder's model that inference needs, as JSON values. Raises UserError.

    `one_size`: the file's format allows no other input size.
    """
    facts = parse_facts(folder / "config.json", json.dumps(facts))
    decoder, size = type(model).__name__, size or facts["img_size"]
    held_out = {key: facts[key] for key in ("fold", "n_folds") if key in facts}  # evaluate.py scores on this fold
    return {
        "img_size": size,
        "fixed_size": size if one_size or decoder in FIXED_SIZE else None,
        "mean": list(facts["mean"]),
        "std": list(facts["std"]),
        "threshold": facts["threshold"],
        **held_out,
        "decoder": decoder,
        "made_from": fingerprint(folder / "model.safetensors"),
    }


def _check(output: Path, written: Path, eager: Network, network: Network, facts: dict, half: bool) -> None:
    """Compare an exported network with PyTorch, print the differences and the speeds.

    Args:
        output: the file to write, for messages.
        written: the file as it is now.
        eager: PyTorch.
        network: the exported one.
        facts: of the model.
        half: whether its weights are float16.

    Raises:
        UserError: differences that are too large.
    """
    photos = sorted(DEMO.glob("*.jpg"))
    sizes = [facts["img_size"]] + ([] if facts["fixed_size"] else [facts["img_size"] + OTHER_SIZE])
    inputs = [_inputs(photos[:count], facts, size) for size in sizes for count in (1, len(photos))]
    largest, iou = compare(eager, network, inputs, facts["threshold"])
    print(f"{output}: probabilities differ from PyTorch's by at most {largest:.1e}, IoU of the masks {iou:.5f}")
    limits = (LARGEST_DIFFERENCE_HALF, LEAST_IOU_HALF) if half else (LARGEST_DIFFERENCE, LEAST_IOU)
    if network.backend == "litert":
        limits = LARGEST_DIFFERENCE_LITERT, LEAST_IOU_LITERT
    if largest > limits[0] or iou < limits[1]:
        raise UserError(f"{output}: not written, it differs too much from PyTorch; use another --format")
    networks = {"PyTorch": eager, f"{network.backend} {output.suffix} float32": network}
    if output.suffix == ".onnx" and find_spec("openvino"):
        networks["the same by OpenVINO"] = open_network(written, "openvino")
    times = time_in_turns(networks, inputs[0])
    print(f"one photo of {facts['img_size']} px: " + ", ".join(f"{name} {ms:.0f} ms" for name, ms in times.items()))


def _megabytes(path: Path) -> float:
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    if path.is_dir():  # Core ML
        files = [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def export_int8(
    folder: Path, photos_dir: Path, output: Path, size: int | None = None, opset: int | None = None
) -> dict[str, float]:
    """Write an int8 file and print its loss in quality, on photos that were not used for calibration.

    Args:
        folder: with `config.json` and `model.safetensors`.
        photos_dir: at least 8 photos that resemble the user's own; with `image/` and `mask/`, Dice is measured, too.
        output: the file to write, `.onnx` or `.tflite`.
        size: pixels of the network's input; the trained size if None.
        opset: the oldest possible one if None.

    Returns:
        `iou` of its masks with the float32 masks; `ms_float32` and `ms_int8`; `dice_float32` and `dice_int8` where
        there are masks.

    Raises:
        UserError: too few photos, or weights that cannot be loaded or exported.
    """
    has_masks = (photos_dir / "mask").is_dir()
    photos = photos_in(photos_dir / "image" if has_masks else photos_dir)
    if len(photos) < LEAST_INT8_PHOTOS:
        raise UserError(
            f"{photos_dir}: --int8 needs at least {LEAST_INT8_PHOTOS} photos to calibrate and to measure, "
            f"not {len(photos)}"
        )
    photos = [photos[i] for i in np.random.default_rng(0).permutation(len(photos))[:MOST_INT8_PHOTOS]]
    calibrate, measure = photos[: len(photos) // 2], photos[len(photos) // 2 :]
    model, facts = models.load_model(folder)
    is_litert = output.suffix == ".tflite"
    facts = portable_facts(folder, model, facts, size, is_litert)
    with atomic(output) as temporary, tempfile.TemporaryDirectory(dir=temporary.parent) as scratch:
        source = Path(scratch, f"float32{output.suffix}")
        if is_litert:
            phones.export_litert(plain_layout(model), source, facts)
        else:
            export_onnx(model, source, facts, opset=opset)
        write_int8 = phones.quantise_litert if is_litert else quantise
        write_int8(source, temporary, facts | {"int8": True}, calibration_inputs(calibrate, facts))
        reader = "litert" if is_litert else "onnx"
        networks = {"float32": open_network(source, reader), "int8": open_network(temporary, reader)}
        inputs = [_inputs([photo], facts) for photo in measure]
        _, iou = compare(networks["float32"], networks["int8"], inputs, facts["threshold"])
        result = {"iou": iou}
        if has_masks:
            result |= {f"dice_{name}": _dice(network, inputs, measure, facts) for name, network in networks.items()}
        result |= {f"ms_{name}": ms for name, ms in time_in_turns(networks, inputs[0]).items()}
    print(f"{output}: {_megabytes(output):.1f} MB, calibrated on {len(calibrate)} photos, measured on {len(measure)}:")
    print(", ".join(f"{key} {value:.4f}" for key, value in result.items()))
    return result


def _dice(network: Network, inputs: list[np.ndarray], photos: list[Path], facts: dict) -> float:
    """Dice over all photos together, at the photos' own sizes."""
    masks = {path.stem: path for path in (photos[0].parents[1] / "mask").iterdir()}
    hits = total = 0
    for photo, batch in zip(photos, inputs, strict=True):
        shape = read_photo(photo).shape[:2]
        if photo.stem not in masks:
            raise UserError(f"{photo}: has no mask with the same name; add one, or use a folder with only photos")
        truth = read_mask(masks[photo.stem], shape) > 0
        found = restore(sigmoid(network(batch)[0, 0]), shape) >= facts["threshold"]
        hits, total = hits + 2 * np.count_nonzero(truth & found), total + truth.sum() + found.sum()
    return float(hits / total) if total else 1.0

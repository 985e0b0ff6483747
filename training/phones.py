"""Write networks for telephones: LiteRT (Android) and Core ML (iOS).

The packages that convert are imported only when they are needed.
"""

import contextlib
import io
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hair.backends import LITERT_FACTS, METADATA
from hair.errors import UserError

SIGNATURE = "serving_default"  # what litert-torch calls a file's only function


class ChannelsLast(nn.Module):
    """A network on pictures as telephones hold them: `photo` (N, H, W, 3) to `logits` (N, H, W, 1)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, photo: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.network(photo.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the converters' progress, warnings about versions and logs off the terminal."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # messages of the C++ code
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        said = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def export_litert(model: nn.Module, path: Path, facts: dict, half: bool = False) -> None:
    """Write a network as LiteRT: `photo` float32 (1, S, S, 3), normalised, to `logits` float32 (1, S, S, 1).

    Args:
        model: a network from `models.build_model`, in eval mode and with its weights in the default memory format.
        path: the file to write.
        facts: stored as JSON in `metadata.json`, an associated file (the end of a LiteRT file may be a zip file).
        half: store the weights as float16; the computation is in float32 on CPUs and in float16 on GPUs.

    Raises:
        UserError: litert-torch is not installed.
    """
    try:
        with _quiet():
            import litert_torch
    except ImportError as error:
        raise UserError('--format litert needs litert-torch: pip install ".[phones]"') from error
    size = facts["img_size"]
    with _quiet():
        module = ChannelsLast(model).eval()
        litert_torch.convert(module, sample_kwargs={"photo": torch.zeros(1, size, size, 3)}).export(str(path))
        if half:
            _store_half(path)
    add_facts(path, facts)


def _store_half(path: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    names = quantizer.algorithm_manager.AlgorithmName
    work = quantizer.Quantizer(path.read_bytes())
    work.add_weight_only_config(".*", recipe.TFLOperationName.ALL_SUPPORTED, 16, algorithm_key=names.FLOAT_CASTING)
    path.write_bytes(work.quantize().quantized_model)


def quantise_litert(source: Path, path: Path, facts: dict, inputs: Iterator[np.ndarray]) -> None:
    """Write an int8 version of a LiteRT file; photos and logits stay float32.

    Args:
        source: a file of `export_litert`, in float32.
        path: the file to write.
        facts: as in `source`'s metadata.
        inputs: of the network, float32 (1, 3, S, S), to calibrate with.
    """
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    operations = recipe.TFLOperationName
    interpreter = Interpreter(model_content=source.read_bytes())
    convolutions = [found for found in interpreter._get_ops_details() if found["op_name"] == "CONV_2D"]
    outputs = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    last = outputs[convolutions[-1]["outputs"][0]]
    work = quantizer.Quantizer(source.read_bytes())
    work.add_static_config(".*", operations.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    # The last convolution determines the edges and is cheap: it stays in float32.
    for name, operation in [(".*", operations.INPUT), (".*", operations.OUTPUT), (re.escape(last), operations.CONV_2D)]:
        work.update_quantization_recipe(
            name, operation, algorithm_key=quantizer.algorithm_manager.AlgorithmName.NO_QUANTIZE
        )
    photos = [{"photo": np.ascontiguousarray(photo.transpose(0, 2, 3, 1))} for photo in inputs]  # counted first
    with _quiet():
        ranges = work.calibrate({SIGNATURE: photos}, num_threads=1)
        path.write_bytes(work.quantize(ranges).quantized_model)
    add_facts(path, facts)


def add_facts(path: Path, facts: dict) -> None:
    """Append `metadata.json` to a LiteRT file, which then is a zip file, too: every program can read it."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LITERT_FACTS, json.dumps(facts))


def export_coreml(model: nn.Module, path: Path, facts: dict, half: bool = False) -> None:
    """Write a network for Core ML in iOS 16: `photo` float32 (1, 3, S, S), normalised, to `logits` (1, 1, S, S).

    Args:
        model: a network from `models.build_model`, in eval mode and with its weights in the default memory format.
        path: the package (a folder) to write.
        facts: stored as JSON in the metadata that Core ML calls "creator defined", key `hair`.
        half: weights and computation in float16, which the Neural Engine needs; else both in float32.

    Raises:
        UserError: coremltools is not installed.
    """
    try:
        with _quiet():
            import coremltools
    except ImportError as error:
        raise UserError('--format coreml needs coremltools: pip install ".[phones]"') from error
    size = facts["img_size"]
    with _quiet():
        program = torch.export.export(model, (torch.zeros(1, 3, size, size),)).run_decompositions({})
        package = coremltools.convert(
            program,
            convert_to="mlprogram",
            inputs=[coremltools.TensorType(name="photo", shape=(1, 3, size, size), dtype=np.float32)],
            outputs=[coremltools.TensorType(name="logits", dtype=np.float32)],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
        package.short_description = "Hair segmentation: the sigmoid of a logit is the probability of hair"
        package.user_defined_metadata[METADATA] = json.dumps(facts)
        package.save(str(path))

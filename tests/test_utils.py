"""Devices, metrics and memory."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import utils
from hair import UserError, backends
from tests.conftest import ROOT

# ---------------------------------------------------------------------------------------------------- devices


def test_an_unknown_device_is_refused() -> None:
    assert utils.choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="try --device cpu"):
        utils.choose_device("abacus")


def test_old_gpus_get_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation  # as on a GPU that can only imitate bfloat16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert utils.fast_precision(torch.device("cuda")) is torch.float16


@pytest.mark.parametrize(
    ("machine", "avx512", "amx", "arm", "expected"),
    [
        ("x86_64", True, False, False, torch.bfloat16),
        ("AMD64", False, True, False, torch.bfloat16),
        ("x86_64", False, False, True, torch.float32),  # mkldnn says that it can imitate them
        ("aarch64", False, False, True, torch.bfloat16),
        ("arm64", False, False, False, torch.float32),
    ],
)
def test_cpus_without_bf16_get_float32(
    monkeypatch: pytest.MonkeyPatch, machine: str, avx512: bool, amx: bool, arm: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: arm)
    assert utils.fast_precision(torch.device("cpu")) is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_cuda_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--device cuda:0 cannot be used here .*--device cpu") as error:
        utils.choose_device("cuda")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="--device cuda") as error:
        backends.TorchNetwork(torch.nn.Identity(), {}, "cuda")
    assert "\n" not in str(error.value)
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match="--device cuda: this ONNX Runtime has no such device; install onnxruntime-gpu"):
        backends.open_network(tmp_path / "net.onnx", "auto", "cuda")


# ---------------------------------------------------------------------------------------------------- metrics


def test_dice_is_of_the_whole_set_and_empty_photos_count_as_right() -> None:
    counts = [torch.tensor(column)[:, None] for column in ([90, 0, 0], [10, 0, 5], [10, 0, 0], [0, 100, 95])]
    result = utils.scores(*counts)
    assert result["dice"] == pytest.approx(2 * 90 / (2 * 90 + 15 + 10))
    assert result["iou"] == pytest.approx(90 / 115)
    assert result["dice_per_photo"] == pytest.approx((0.9 + 1 + 0) / 3)
    assert (result["precision"], result["recall"]) == (pytest.approx(90 / 105), pytest.approx(0.9))


def test_scores_without_hair_are_numbers() -> None:
    nothing, full = torch.zeros(2, 1, dtype=torch.int64), torch.full((2, 1), 64)
    ideal = {"dice": 1, "iou": 1, "dice_per_photo": 1, "precision": 0, "recall": 0}
    assert utils.scores(nothing, nothing, nothing, full) == ideal


def test_boundary_f1() -> None:
    square = np.zeros((300, 400), bool)  # diagonal 500: the tolerance is 4 pixels
    square[100:200, 100:200] = True
    assert utils.boundary_f1(square, square) == 1
    assert utils.boundary_f1(np.roll(square, 3, axis=1), square) == 1
    assert utils.boundary_f1(np.roll(square, 20, axis=1), square) == pytest.approx(0.45, abs=0.1)
    assert utils.boundary_f1(~square & False, square) == 0
    assert utils.boundary_f1(~square & False, ~square & False) == 1
    assert utils.boundary_f1(~square | True, ~square & False) == 0, "neither has an outline, but they differ"


# ---------------------------------------------------------------------------------------------------- memory


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of Linux's C libraries")
def test_freed_memory_is_kept() -> None:
    program = """
import resource, numpy, utils

def fill():
    return [numpy.full(3 << 20, 1, numpy.uint8) for _ in range(20)]  # smaller than what NumPy wants huge pages for

def faults():
    fill()
    fill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    fill()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
utils.keep_freed_memory()
print(faults())
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    returned, kept = map(int, done.stdout.split())
    if returned < 1000:
        pytest.skip("this C library keeps it anyway")
    assert kept < returned / 10

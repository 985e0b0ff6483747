"""What the training scripts share: devices, memory, seeds and metrics."""

import ctypes
import os
import platform
import random
import sys

import cv2
import numpy as np
import torch

from hair.backends import torch_device

BOUNDARY_TOLERANCE = 0.0075  # of boundary_f1, as a share of the picture's diagonal


def choose_device(name: str) -> torch.device:
    """A device by name; `auto` takes CUDA, then MPS, then the CPU. Raises UserError for a device that is not there."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # torchrun numbers its processes on a machine
    return torch_device(name)


def fast_precision(device: torch.device) -> torch.dtype:
    """The type for mixed precision: bf16 where the device computes in it, fp16 on older GPUs, float32 on older CPUs.

    A CPU without bf16 instructions imitates them, in more than twice the time of float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type != "cpu" or _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # of ARM's own instructions


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that this process frees, instead of returning them to the kernel. Linux only.

    A training step on a CPU frees hundreds of MB and allocates as many again, and a loading process a photo's; the
    kernel clears and maps new pages one by one, in about a quarter of the step's time (mallopt(3);
    benchmarks/training.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # numbers of the options in malloc.h
        mallopt(trim_threshold, -1)  # never
        mallopt(mmap_threshold, 2**31 - 1)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Augmentations have seeds of their own (see `dataset.EpochSampler`)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def scores(tp: torch.Tensor, fp: torch.Tensor, fn: torch.Tensor, tn: torch.Tensor) -> dict[str, float]:
    """Scores of a whole set from its photos' counts, as `smp.metrics.get_stats` gives them.

    Args:
        tp, fp, fn, tn: int64 (photos, 1), pixels of each kind.

    Returns:
        `dice`, `iou`, `precision` and `recall` of the summed counts, `dice_per_photo` as the mean over photos. Where
        there is neither hair nor a predicted pixel, Dice and IoU count as 1; precision without a predicted pixel and
        recall without hair count as 0. All in [0, 1].
    """
    from segmentation_models_pytorch import metrics  # it takes seconds, and processes that load photos need none of it

    counts = (tp, fp, fn, tn)
    return {
        "dice": metrics.f1_score(*counts, reduction="micro").nan_to_num(1.0).item(),
        "iou": metrics.iou_score(*counts, reduction="micro").nan_to_num(1.0).item(),
        "dice_per_photo": float(metrics.f1_score(*counts, reduction="micro-imagewise", zero_division=1.0)),
        "precision": metrics.precision(*counts, reduction="micro").nan_to_num(0.0).item(),
        "recall": metrics.recall(*counts, reduction="micro").nan_to_num(0.0).item(),
    }


def boundary_f1(found: np.ndarray, hair: np.ndarray) -> float:
    """How well the outlines of two masks agree: the boundary F1 of Csurka et al., "What is a good evaluation measure
    for semantic segmentation?", BMVC 2013.

    Args:
        found, hair: bool (H, W).

    Returns:
        In [0, 1]: the harmonic mean of the shares of either outline that lie within BOUNDARY_TOLERANCE of the other.
        Where a mask has no outline, 1 if the two are equal and else 0.
    """
    radius = max(1, round(BOUNDARY_TOLERANCE * float(np.hypot(*hair.shape))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    found_edge, hair_edge = _outline(found), _outline(hair)
    if not found_edge.any() or not hair_edge.any():  # the frame is no edge: a mask without one is black, or white
        return float((found == hair).all())
    precision = (found_edge & cv2.dilate(hair_edge, disk)).sum() / found_edge.sum()
    recall = (hair_edge & cv2.dilate(found_edge, disk)).sum() / hair_edge.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch its outside, uint8 {0, 1}."""
    pixels = mask.astype(np.uint8)
    return pixels - cv2.erode(pixels, np.ones((3, 3), np.uint8))

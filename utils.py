"""Helpers that the training scripts share: devices, memory, seeds and metrics."""

import ctypes
import os
import platform
import random
import sys

import cv2
import numpy as np
import torch

from hair.backends import torch_device

BOUNDARY_TOLERANCE = 0.0075  # of boundary_f1, as a fraction of the image diagonal


def choose_device(name: str) -> torch.device:
    """A device by name; `auto` chooses CUDA, then MPS, then the CPU. Raises UserError if the device does not exist."""
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # torchrun's number of this process on this machine
    return torch_device(name)


def fast_precision(device: torch.device) -> torch.dtype:
    """The type for mixed precision: bf16 if the device supports it, else fp16 on GPUs and float32 on CPUs.

    A CPU without bf16 instructions emulates them, which takes more than twice as long as float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type != "cpu" or _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # ARM instructions


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that this process frees, instead of returning them to the kernel. Linux only.

    A training step on a CPU frees hundreds of MB and allocates as many again, and a process that loads photos does so
    for each photo. The kernel clears and maps new pages one by one, which takes about a quarter of the time of a step
    (mallopt(3); benchmarks/training.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # numbers of the options in malloc.h
        mallopt(trim_threshold, -1)  # never
        mallopt(mmap_threshold, 2**31 - 1)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch. Augmentations have their own seeds (see `dataset.EpochSampler`)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def scores(tp: torch.Tensor, fp: torch.Tensor, fn: torch.Tensor, tn: torch.Tensor) -> dict[str, float]:
    """Scores of a whole data set from the pixel counts of its photos.

    Args:
        tp, fp, fn, tn: int64 (photos, 1), from `smp.metrics.get_stats`.

    Returns:
        `dice`, `iou`, `precision` and `recall` of the summed counts, and `dice_per_photo`, the mean over photos; all in
        [0, 1]. If there is neither hair nor a predicted pixel, Dice and IoU are 1. Precision without predicted pixels
        and recall without hair are 0.
    """
    from segmentation_models_pytorch import metrics  # slow to import; processes that load photos do not need it

    counts = (tp, fp, fn, tn)
    return {
        "dice": metrics.f1_score(*counts, reduction="micro").nan_to_num(1.0).item(),
        "iou": metrics.iou_score(*counts, reduction="micro").nan_to_num(1.0).item(),
        "dice_per_photo": float(metrics.f1_score(*counts, reduction="micro-imagewise", zero_division=1.0)),
        "precision": metrics.precision(*counts, reduction="micro").nan_to_num(0.0).item(),
        "recall": metrics.recall(*counts, reduction="micro").nan_to_num(0.0).item(),
    }


def boundary_f1(found: np.ndarray, hair: np.ndarray) -> float:
    """The boundary F1 of two masks: how well their outlines agree (Csurka et al., "What is a good evaluation measure
    for semantic segmentation?", BMVC 2013).

    Args:
        found, hair: bool (H, W).

    Returns:
        In [0, 1]: the harmonic mean of the fractions of each outline that are within BOUNDARY_TOLERANCE of the other.
        If a mask has no outline, 1 if the masks are equal, else 0.
    """
    radius = max(1, round(BOUNDARY_TOLERANCE * float(np.hypot(*hair.shape))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    found_edge, hair_edge = _outline(found), _outline(hair)
    if not found_edge.any() or not hair_edge.any():  # the image border does not count: the mask is all black or white
        return float((found == hair).all())
    precision = (found_edge & cv2.dilate(hair_edge, disk)).sum() / found_edge.sum()
    recall = (hair_edge & cv2.dilate(found_edge, disk)).sum() / hair_edge.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _outline(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask that touch pixels outside the mask, uint8 {0, 1}."""
    pixels = mask.astype(np.uint8)
    return pixels - cv2.erode(pixels, np.ones((3, 3), np.uint8))

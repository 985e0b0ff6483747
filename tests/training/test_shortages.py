"""Memory, shared memory and files that run out: one line with the way out, whoever notices it."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import dataset
from hair.errors import UserError
from training.shortages import shortage
from training.workers import worker_errors

GPU = ("GPU is out of memory", "--batch_size", "--grad_accum", "--img_size", "--apex")
MEMORY = ("out of memory", "--batch_size", "--grad_accum", "--img_size", "--num_workers")
SHARED = ("/dev/shm", "--shm-size", "--ipc=host", "--num_workers")
OPEN_FILES = ("too many open files", "ulimit -n", "--num_workers")
ERRORS = [  # as PyTorch, OpenCV, NumPy and the operating system write them
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of …"), GPU),
    (torch.OutOfMemoryError("Allocation on device"), GPU),
    (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported …"), GPU),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), GPU),
    (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GPU),
    (RuntimeError("MPS backend out of memory (MPS allocated: 8.88 GB, other allocations: 1.2 GB)"), GPU),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:98] data. DefaultCPUAllocator: not enough memory: you tried …"),
        MEMORY,
    ),
    (MemoryError(), MEMORY),
    (np._core._exceptions._ArrayMemoryError((1 << 40,), np.dtype(np.uint8)), MEMORY),
    (cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 3 bytes"), MEMORY),
    (OSError(12, "Cannot allocate memory"), MEMORY),
    (RuntimeError("std::bad_alloc"), MEMORY),
    (RuntimeError("unable to mmap 5 bytes from file </torch_1_2_3>: Cannot allocate memory (12)"), SHARED),
    (RuntimeError("unable to write to file </torch_18692_1954506624>: No space left on device (28)"), SHARED),
    (
        RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"),
        OPEN_FILES,
    ),
    (RuntimeError("received 0 items of ancdata"), OPEN_FILES),
    (OSError(24, "Too many open files", "me.jpg"), OPEN_FILES),
]


def check_line(message: str, parts: tuple[str, ...]) -> None:
    assert all(part in message for part in parts) and "\n" not in message, message


@pytest.mark.parametrize(("error", "parts"), ERRORS, ids=lambda value: type(value).__name__)
def test_each_shortage_is_one_line_with_the_way_out(error: Exception, parts: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught, worker_errors():
        raise error
    check_line(str(caught.value), parts)


def test_memory_that_really_is_not_there() -> None:
    with pytest.raises(UserError) as caught, worker_errors():
        torch.empty(1 << 60, dtype=torch.uint8)
    check_line(str(caught.value), MEMORY)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "last.pth"), RuntimeError("shapes differ")])
def test_other_errors_are_no_shortages(error: Exception) -> None:
    assert shortage(error) is None


# ---------------------------------------------------------------------------------------------------- in workers


def bus_error(**_: object) -> None:
    os.kill(os.getpid(), signal.SIGBUS)


def full_shared_memory(**_: object) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)")


def no_memory(**_: object) -> None:
    raise MemoryError


def no_descriptors(**_: object) -> None:
    raise OSError(24, "Too many open files")


@pytest.mark.parametrize(
    ("strike", "parts"),
    [(bus_error, SHARED), (full_shared_memory, SHARED), (no_memory, MEMORY), (no_descriptors, OPEN_FILES)],
)
def test_shortages_of_workers(celeb: Path, strike: Callable, parts: tuple[str, ...]) -> None:
    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(4)])
    with pytest.raises(UserError) as caught, worker_errors():
        list(dataset.build_loader(dataset.HairDataset(photos, strike), 2, num_workers=1))
    check_line(str(caught.value), parts)


def test_no_files_left_for_another_worker(celeb: Path) -> None:
    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(4)])
    loader = dataset.build_loader(dataset.HairDataset(photos, no_memory), 2, num_workers=2)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = next(number for number in range(limits[0]) if number not in used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(UserError) as caught, worker_errors():
            list(loader)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    check_line(str(caught.value), OPEN_FILES)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a traceback from a half-made iterator
def test_no_shared_memory_for_the_queues(celeb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    photos = dataset.PhotoSet([dataset.open_folder(celeb)], [np.arange(4)])
    loader = dataset.build_loader(dataset.HairDataset(photos, no_memory), 2, num_workers=1)
    monkeypatch.setattr("multiprocessing.queues.SimpleQueue.__init__", full)
    monkeypatch.setattr("multiprocessing.queues.Queue.__init__", full)
    with pytest.raises(UserError) as caught, worker_errors():
        list(loader)
    check_line(str(caught.value), SHARED)

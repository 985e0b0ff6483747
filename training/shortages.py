"""Messages for when memory, shared memory or open files run out: one line that says what to do."""

import re

import torch

PHOTOS_A_STEP = "a smaller --batch_size (--grad_accum keeps the photos of a step)"
# Parts of messages of PyTorch, CUDA, OpenCV and the operating system, and what to do.
SHORTAGES = (
    (
        r"Too many open files|received 0 items of ancdata",
        "too many open files; raise the limit with `ulimit -n 65536`, or try fewer --num_workers",
    ),
    (
        r"Bus error|shared memory|</torch_",
        "/dev/shm, the memory that processes share, is full; in Docker add --shm-size=8g or --ipc=host, elsewhere free "
        "it or try fewer --num_workers",
    ),
    (
        r"CUDA out of memory|CUDA error: out of memory|STATUS_ALLOC_FAILED|(MPS|HIP|XPU).*out of memory",
        f"the GPU is out of memory; try {PHOTOS_A_STEP}, a smaller --img_size, or --apex",
    ),
    (
        r"can't allocate memory|Cannot allocate memory|not enough memory|Insufficient memory|bad_?alloc",
        f"out of memory; try {PHOTOS_A_STEP}, a smaller --img_size, or fewer --num_workers",
    ),
    (
        r"^DataLoader worker .*(killed by signal|exited unexpectedly)",
        "a process that loads photos was killed, perhaps out of memory; try fewer --num_workers",
    ),
)


def shortage(error: BaseException) -> str | None:
    """A one-line message for the user about an error of this kind; None for other errors.

    Args:
        error: may come from a process that loads photos; then its message ends with that of the original error.
    """
    if error.__cause__ is not None and (message := shortage(error.__cause__)):  # it says more, as for a killed worker
        return message
    lines = [line for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines and lines[0].startswith("Caught ") else " ".join(lines)
    if isinstance(error, torch.OutOfMemoryError):  # its message depends on the device
        last = "CUDA out of memory"
    elif isinstance(error, MemoryError):  # its message may be empty
        last = "Cannot allocate memory"
    return next((message for pattern, message in SHORTAGES if re.search(pattern, last)), None)

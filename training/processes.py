"""Distributed training: several processes, one per GPU, started by torchrun."""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar, cast

import torch
from torch import distributed

from hair.errors import UserError

T = TypeVar("T")
LONGEST_WAIT = timedelta(hours=2)  # the others wait while the first process builds an index or checks the photos


def join_processes(device: torch.device) -> None:
    """Join the process group if torchrun started this process (it sets WORLD_SIZE); else do nothing."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or distributed.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=LONGEST_WAIT)


def leave_processes() -> None:
    """Leave the process group; without this the process may hang at its end."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process. Only process 0 prints and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait_for_all() -> None:
    """Wait until all processes have reached this point."""
    if world_size() > 1:
        distributed.barrier()


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in place."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def share_buffers(model: torch.nn.Module) -> None:
    """Copy the buffers of the first process to all: each has batch normalisation statistics of its own photos."""
    if world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def first_alone(function: Callable[[], T]) -> T:
    """Call a function in the first process, then in the others, which can use the files that it has made.

    If the first process raises a UserError or OSError, the other processes end without a message.
    """
    if world_size() == 1:
        return function()
    result, failure = None, None
    if rank() == 0:
        try:
            result = function()
        except (UserError, OSError) as error:
            failure = error
    has_failed = [failure is not None]
    distributed.broadcast_object_list(has_failed)
    if failure is not None:
        raise failure
    if has_failed[0]:
        sys.exit(1)
    return cast(T, result if rank() == 0 else function())

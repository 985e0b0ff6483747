"""Processes that load photos for a training: how they start and end, and what is said when one fails."""

import contextlib
import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator
from multiprocessing import util
from typing import Any

import cv2
from torch.utils.data import DataLoader

from hair.errors import UserError
from utils import keep_freed_memory

# What asks a training to stop: Ctrl-C; SLURM, systemd, Docker and `timeout`; a terminal that is closed.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class WorkerLoader(DataLoader):
    """A DataLoader whose workers outlive every request to stop, also when it reaches the whole process group.

    The training alone decides when to stop, and its workers end with it, even if it is killed: PyTorch's workers look
    for their parent every five seconds.
    """

    def __iter__(self) -> Any:
        if self.num_workers:
            _end_workers_of(os.getpid())
        with _blocked_signals():  # workers inherit this; a signal for the training comes when they have been started
            return super().__iter__()


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(_: int) -> None:
    """What each worker does first (`worker_init_fn`)."""
    for kind in STOP_SIGNALS:  # where they are not blocked, and instead of PyTorch's own handler
        signal.signal(kind, signal.SIG_IGN)
    keep_freed_memory()
    cv2.setNumThreads(0)  # each worker is one process on one core


@functools.cache
def _end_workers_of(process: int) -> None:
    """Let workers that are still there be killed at the end of this process, once for each that has any.

    Without it multiprocessing would send them SIGTERM, which they ignore, and wait.
    """
    util.Finalize(None, _end_workers, exitpriority=100)


def _end_workers() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Turn errors of the processes that load photos into a UserError of one line.

    PyTorch raises the worker's own error with the worker's trace before the message, and a RuntimeError, at any moment,
    for a worker that was killed.
    """
    try:
        yield
    except (UserError, OSError) as error:
        lines = str(error).strip().splitlines()
        if not lines or not lines[0].startswith("Caught "):
            raise
        raise UserError(lines[-1].partition(": ")[2]) from error  # after the name of the error's class
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        message = "a process that loads photos was killed, perhaps out of memory; try fewer --num_workers"
        raise UserError(message) from error

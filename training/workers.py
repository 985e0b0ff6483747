"""Processes that load photos for a training: how they start and end, and what is said when one fails."""

import contextlib
import errno
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import util
from typing import Any

import cv2
from torch.utils.data import DataLoader

from hair.errors import UserError
from training.shortages import shortage
from training.stops import STOP_SIGNALS
from utils import keep_freed_memory


class WorkerLoader(DataLoader):
    """A DataLoader whose workers outlive every request to stop, also when it reaches the whole process group.

    The training alone decides when to stop, and its workers end with it, even if it is killed.
    """

    def __iter__(self) -> Any:
        if self.num_workers:
            _end_workers_of(os.getpid())
        try:
            with _blocked_signals():  # workers inherit this, and the training gets its signals when they have started
                return super().__iter__()
        except OSError as error:
            if error.errno == errno.ENOSPC:  # queues need shared memory, and the error does not say so
                raise RuntimeError("shared memory: No space left on device") from error
            raise


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
    threading.Thread(target=_end_with_training, daemon=True).start()
    keep_freed_memory()
    cv2.setNumThreads(0)  # each worker is one process on one core


def _end_with_training() -> None:
    """End this process when the training's is gone, even if killed.

    PyTorch's workers look at their parent, which under `forkserver` (Python 3.14's default) outlives the training.
    """
    training = multiprocessing.parent_process()
    if training is not None:
        training.join()
        os._exit(1)


@functools.cache
def _end_workers_of(process: int) -> None:
    """Let workers that are still there be killed at the end of this process, once for each that has any.

    Without it multiprocessing would send them SIGTERM, which they ignore, and wait.
    """
    util.Finalize(None, _end_workers, exitpriority=100)


def _end_workers() -> None:
    if hasattr(signal, "SIGCHLD"):  # PyTorch's handler would raise an error for each
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Turn errors of the processes that load photos, and of memory that runs out, into a UserError of one line.

    PyTorch raises the worker's own error with the worker's trace before the message, and a RuntimeError, at any moment,
    for a worker that was killed.
    """
    try:
        yield
    except (UserError, OSError, RuntimeError, MemoryError, cv2.error) as error:
        message = None if isinstance(error, UserError) else shortage(error)
        lines = str(error).strip().splitlines()
        is_known = isinstance(error, UserError | OSError)
        if message is None and is_known and lines and lines[0].startswith("Caught "):
            message = lines[-1].partition(": ")[2]  # after the name of the error's class
        if message is None:
            raise
        raise UserError(message) from error

"""Processes that load photos for training: start and end them, and report their errors."""

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
    """A DataLoader whose workers ignore requests to stop, even if these reach the whole process group.

    Only the training process decides when to stop. Its workers end with it, even if it is killed.
    """

    def __iter__(self) -> Any:
        if self.num_workers:
            _end_workers_of(os.getpid())
        try:
            if self.num_workers:  # if this fails in PyTorch, its iterator, half made, prints a traceback
                (self.multiprocessing_context or multiprocessing).Queue().close()
            with _blocked_signals():  # workers inherit this; the training gets its signals after they have started
                return super().__iter__()
        except OSError as error:
            if error.errno == errno.ENOSPC:  # queues need shared memory; the error does not say so
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
    """Initialise a worker (`worker_init_fn`)."""
    for kind in STOP_SIGNALS:  # in case they are not blocked, and to replace PyTorch's own handler
        signal.signal(kind, signal.SIG_IGN)
    threading.Thread(target=_end_with_training, daemon=True).start()
    keep_freed_memory()
    cv2.setNumThreads(0)  # each worker is one process on one core


def _end_with_training() -> None:
    """End this process when the training process has ended, even if it was killed.

    PyTorch's workers watch their parent, but under `forkserver` (default of Python 3.14) that outlives the training.
    """
    training = multiprocessing.parent_process()
    if training is not None:
        training.join()
        os._exit(1)


@functools.cache
def _end_workers_of(process: int) -> None:
    """Kill remaining workers at the end of this process; registered once per process.

    Otherwise multiprocessing would send them SIGTERM, which they ignore, and would wait.
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
    """Turn errors of processes that load photos, and out-of-memory errors, into a one-line UserError.

    PyTorch raises the error of the worker with the worker's traceback before the message. If a worker was killed, it
    raises a RuntimeError, at any moment.
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

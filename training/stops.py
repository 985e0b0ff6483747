"""Requests to stop a training: Ctrl-C; SLURM, systemd, Docker and `timeout`; a terminal that is closed."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TextIO, cast

STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe, of a terminal


def handle_stops(handler: Callable | int) -> None:
    """Set the handler of all requests to stop, except for those that are ignored, as with `nohup`."""
    for kind in STOP_SIGNALS:
        if signal.getsignal(kind) != signal.SIG_IGN:
            signal.signal(kind, handler)


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Let Ctrl-C end the process without a word while packages are imported, which would print traces of their own."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let every request to stop end what is done within by a KeyboardInterrupt of (signal, line to print).

    So does an error that the request causes in a library. Between steps `checkpoint.CheckpointTimer` takes over.
    """
    stopped_by: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped_by.append(number)
        handle_stops(signal.SIG_IGN)  # the end is near; timeout(1), torchrun and impatient users send several
        raise KeyboardInterrupt(number, "stopped before the first step" if os.environ.get("RANK", "0") == "0" else "")

    handlers = {kind: signal.getsignal(kind) for kind in STOP_SIGNALS}
    handle_stops(stop)
    try:
        with _lasting_streams():
            yield
    except Exception as error:
        if not stopped_by:
            raise
        raise KeyboardInterrupt(stopped_by[0], "") from error
    finally:
        if not stopped_by:
            for kind, handler in handlers.items():
                signal.signal(kind, handler)


class _LastingStream:
    """An output that may lose its reader, as `| tee` ends with the same Ctrl-C: it is silent then, and asks to stop."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._reader():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._reader():
            self.stream.flush()

    @contextlib.contextmanager
    def _reader(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in READER_GONE:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast(TextIO, _LastingStream(stream)) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before

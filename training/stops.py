"""Requests to stop a training: Ctrl-C, signals of SLURM, systemd, Docker and `timeout`, and a closed terminal."""

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
    """Set the handler of all stop signals, except those that are ignored, as with `nohup`."""
    for kind in STOP_SIGNALS:
        if signal.getsignal(kind) != signal.SIG_IGN:
            signal.signal(kind, handler)


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Let Ctrl-C end the process silently while packages are imported; they would print tracebacks."""
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn every request to stop into a KeyboardInterrupt with (signal, line to print).

    The same happens if the request causes an error in a library. During steps, `checkpoint.CheckpointTimer` takes over.
    """
    stopped_by: list[int] = []

    def stop(number: int, _: object) -> None:
        stopped_by.append(number)
        handle_stops(signal.SIG_IGN)  # already stopping; timeout(1), torchrun and users may send several signals
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
    """An output whose reader may end, as `| tee` does with the same Ctrl-C: then it is silent and requests a stop."""

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

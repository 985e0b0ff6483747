"""The error class for problems that the user can fix, and how scripts report it."""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress


class UserError(ValueError):
    """A problem that the user can fix. Its message is one line that names the file or flag and says what to do."""


def run(main: Callable[[], None]) -> None:
    """Run a script's `main` and end the process with the right exit status.

    A `UserError` or `OSError` becomes one line on standard error and exit status 1. Ctrl-C is exit status 130; a
    KeyboardInterrupt of (signal, line) prints that line, and its exit status is 128 + the signal.
    """
    if hasattr(sys.stdout, "reconfigure"):  # file names may have characters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except BrokenPipeError:  # the reader, such as `| head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        number, line = stop.args if len(stop.args) == 2 else (signal.SIGINT, "interrupted")
        if line:
            with suppress(OSError):  # a terminal that has been closed
                print(line, file=sys.stderr, flush=True)
        sys.exit(128 + number)

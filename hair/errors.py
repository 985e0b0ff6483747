"""The error class for problems that the user can fix, and how scripts report it."""

import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """A problem that the user can fix. Its message is one line that names the file or flag and says what to do."""


def run(main: Callable[[], None]) -> None:
    """Run a script's `main` and end the process with the right exit status.

    A `UserError` or `OSError` becomes one line on standard error and exit status 1; Ctrl-C is exit status 130.
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)

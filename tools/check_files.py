"""Find files that must not be committed: `python -m tools.check_files FILE…`; pre-commit passes the staged files.

These are photos outside demo/, as those of the data sets may not be redistributed, and notebooks with large outputs.
"""

import sys
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".avif")
MAX_NOTEBOOK = 500_000  # bytes; tests/test_notebooks.py has the same limit


def problem(path: Path) -> str | None:
    """What is wrong with a file, given relative to the root of the repository; None if nothing is."""
    if path.suffix.lower() in PICTURES and path.parts[0] != "demo":
        return f"{path}: images belong in demo/, with their source in demo/README.md; never commit those of a data set"
    if path.suffix == ".ipynb" and path.stat().st_size >= MAX_NOTEBOOK:
        size = path.stat().st_size
        return f"{path}: {size:,} bytes, the limit is {MAX_NOTEBOOK:,}; clear its outputs or make them smaller"
    return None


def main() -> None:
    """Check the files named on the command line. Exit status 1 and a line for each that must not be committed."""
    problems = [text for name in sys.argv[1:] if (text := problem(Path(name)))]
    if problems:
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()

"""Refuse what must not be committed: `python .ci/check_files.py FILE…`; pre-commit calls it with the staged files.

No photo outside demo/, since those of the data sets may not be passed on, and no notebook with large outputs.
"""

import sys
from pathlib import Path

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".avif")
MOST = 500_000  # bytes of a notebook, as in tests/test_notebooks.py


def complaint(path: Path) -> str | None:
    """What is wrong with a file, named from the repository's root; None if nothing is."""
    if path.suffix.lower() in PICTURES and path.parts[0] != "demo":
        return f"{path}: pictures lie in demo/, with their source in demo/README.md; no photo or mask of a data set"
    if path.suffix == ".ipynb" and path.stat().st_size >= MOST:
        return f"{path}: {path.stat().st_size:,} bytes are more than {MOST:,}; make its outputs smaller or clear them"
    return None


if __name__ == "__main__":
    found = [text for name in sys.argv[1:] if (text := complaint(Path(name)))]
    sys.exit("\n".join(found) or 0)

"""Files that are written whole or not at all, and the names of results."""

import json
import os
import shutil
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib

from hair.errors import UserError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_FILTER_UP = 2  # each row is stored as its difference from the row above
PNG_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # by number of channels: grey, RGB, RGBA


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder that replaces `path` only if the block succeeds.

    The temporary path lies in a folder of its own beside `path`, so writers of the same file do not meet.

    Raises:
        OSError: a full disk, a missing permission; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Of a long name the beginning will do: file systems allow 255 bytes.
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:32]}.", dir=path.parent))
    temporary = folder / path.name
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        # A full disk's error names no file, others name the temporary one.
        if error.errno and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill that becomes `path` only if the block succeeds. Raises UserError where `path` exists."""
    if path.exists():
        raise UserError(f"{path}: already exists; remove it, or choose another --output_dir")
    with atomic(path) as folder:
        folder.mkdir()
        yield folder


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all. Raises OSError."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, content: dict | list) -> None:
    """Write `content` as indented JSON, whole or not at all. Raises OSError."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    write_bytes(path, text.encode(errors="surrogateescape"))  # file names on Linux may be invalid UTF-8


def write_png(path: Path, image: np.ndarray) -> None:
    """Write grey, RGB or RGBA uint8 as PNG, whole or not at all. Raises OSError."""
    write_bytes(path, encode_picture(image))


def encode_picture(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode a picture.

    ISA-L compresses a PNG several times as fast as OpenCV and Pillow, and smaller (`benchmarks/inference.py`). No
    library writes PNGs with it, hence the few lines here (https://www.w3.org/TR/png/).

    Args:
        image: uint8, (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; RGB only where `suffix` is not ".png".
        suffix: of a format that OpenCV writes, such as ".jpg".
    """
    if suffix != ".png":
        return cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    channels = image.shape[2] if image.ndim == 3 else 1
    height, width = image.shape[:2]
    rows = image.reshape(height, width * channels)
    filtered = np.full((height, 1 + width * channels), PNG_FILTER_UP, np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOR_TYPES[channels], 0, 0, 0)
    parts = [PNG_SIGNATURE]
    for name, data in ((b"IHDR", header), (b"IDAT", isal_zlib.compress(filtered, 1)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))]
    return b"".join(parts)


def result_names(inputs: Sequence[Path], output_dir: Path, endings: Sequence[str]) -> list[Path]:
    """Choose where each input's results go.

    Args:
        inputs: photos and videos.
        output_dir: the folder of results.
        endings: what may be added to a name, such as `_mask.png`.

    Returns:
        A path without ending for each input. Inputs of the same name get a number, and no result replaces an input.
    """
    # A result replaces what has its name, even a link; an input that is a link is read from where the link leads.
    taken = {_comparable(path) for path in inputs} | {_comparable(real_path(path)) for path in inputs}
    folder = _comparable(output_dir / "x")[:-1]
    count: Counter[str] = Counter()
    names = []
    for path in inputs:
        stem = path.stem or "input"
        while True:
            count[stem.casefold()] += 1
            number = count[stem.casefold()]
            name = stem if number == 1 else f"{stem}-{number}"
            targets = {folder + (name + ending).casefold() for ending in endings}
            if not targets & taken:
                break
        taken |= targets
        names.append(output_dir / name)
    return names


def _comparable(path: Path) -> str:
    """A path as text that is equal for equal files: some file systems do not distinguish a.png from A.png."""
    return str(real_path(path.parent) / path.name).casefold()


def real_path(path: Path) -> Path:
    """The path with all links followed. Unlike `Path.resolve` this works for links that lead to each other."""
    return Path(os.path.realpath(path))

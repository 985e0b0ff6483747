"""Atomic file writing, image encoding (PNG, JPEG, WebP), and the names of results."""

import glob
import io
import json
import os
import re
import shutil
import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib
from PIL import Image

from hair.errors import UserError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_FILTER_UP = 2  # each row is stored as its difference from the row above
LONGEST_NAME = 255  # bytes of a file name on most file systems
ROOM_FOR_NUMBER = 6  # bytes reserved for the number that is added if a name is taken
PNG_COLOR_TYPES = {1: 0, 3: 2, 4: 6}  # by number of channels: grey, RGB, RGBA
QUALITY = 92  # of JPEG and WebP, 1 to 100
LONGEST_SIDES = {".jpg": 65_500, ".webp": 16_383}  # in pixels; limits of libjpeg and of the WebP format
EXIF_START = b"Exif\0\0"  # start of the JPEG segment that contains EXIF
STANDARD_INPUT = Path("-")  # as written on the command line


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder that replaces `path` only if the block succeeds.

    The temporary path is in its own folder next to `path`, so two writers of the same file do not conflict.

    Raises:
        OSError: a full disk, a missing permission; the error names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Only the beginning of a long name: file systems allow 255 bytes.
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:32]}.", dir=path.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    temporary = folder / path.name
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir() and not path.is_symlink():
            path.replace(folder / f"{path.name[:32]}.old")  # a folder cannot replace a folder that is not empty
        temporary.replace(path)
    except OSError as error:
        # The error for a full disk names no file; others name the temporary one.
        if error.errno and (error.filename is None or str(error.filename).startswith(str(temporary))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `path` only if the block succeeds. Raises UserError if `path` exists."""
    if path.exists():
        raise UserError(f"{path}: already exists; remove it, or choose another --output_dir")
    with atomic(path) as folder:
        folder.mkdir()
        yield folder


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically. Raises OSError."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, content: dict | list) -> None:
    """Write `content` as indented JSON, atomically. Raises OSError."""
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
    write_bytes(path, text.encode(errors="surrogateescape"))  # file names on Linux may be invalid UTF-8


def write_png(path: Path, image: np.ndarray) -> None:
    """Write grey, RGB or RGBA uint8 as PNG, atomically. Raises OSError."""
    write_bytes(path, encode_picture(image))


def encode_picture(image: np.ndarray, suffix: str = ".png", quality: int = QUALITY, exif: bytes = b"") -> bytes:
    """Encode a picture.

    Args:
        image: uint8, (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; a JPEG is RGB, a WebP RGB or RGBA.
        suffix: ".png", ".jpg" or ".webp".
        quality: of JPEG and WebP, 1 to 100; PNG is lossless.
        exif: EXIF to put into the file, as TIFF (beginning with its byte order); empty for none.

    Raises:
        UserError: a picture that is too large for the format.
    """
    longest = LONGEST_SIDES.get(suffix)
    if longest and max(image.shape[:2]) > longest:
        raise UserError(f"too large for {suffix}, which allows up to {longest} pixels per side; use --format png")
    return {".png": _encode_png, ".jpg": _encode_jpeg, ".webp": _encode_webp}[suffix](image, quality, exif)


def _encode_png(image: np.ndarray, quality: int, exif: bytes) -> bytes:
    """Write a PNG with ISA-L: several times as fast as OpenCV and Pillow, and smaller (`benchmarks/inference.py`).

    No library writes PNGs with ISA-L, so the chunks are written here (https://www.w3.org/TR/png/).
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    height, width = image.shape[:2]
    rows = image.reshape(height, width * channels)
    filtered = np.full((height, 1 + width * channels), PNG_FILTER_UP, np.uint8)
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_COLOR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"eXIf", exif), (b"IDAT", isal_zlib.compress(filtered, 1)), (b"IEND", b"")]
    parts = [PNG_SIGNATURE]
    for name, data in chunks:
        if data or name == b"IEND":
            parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))]
    return b"".join(parts)


def _encode_jpeg(image: np.ndarray, quality: int, exif: bytes) -> bytes:
    """OpenCV takes half the time of Pillow. Colours at full resolution (4:4:4), because overlays have thin outlines."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()
    if not exif:
        return data
    # A JPEG is a two-byte start marker followed by segments: a two-byte marker, a two-byte length, content. EXIF goes
    # after the first segment (JFIF).
    place = 4 + struct.unpack_from(">H", data, 4)[0]
    content = EXIF_START + exif
    return b"".join([data[:place], b"\xff\xe1", struct.pack(">H", 2 + len(content)), content, data[place:]])


def _encode_webp(image: np.ndarray, quality: int, exif: bytes) -> bytes:
    """Pillow with method 0 takes less than half the time of OpenCV's method 4; the files are 5% larger."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", quality=quality, method=0, exif=exif)
    return stream.getvalue()


def folders_below(files: Sequence[Path], inputs: Sequence[Path]) -> list[Path]:
    """The folder of each file, relative to the input in which it was found.

    Args:
        files: from `photos.find_inputs`.
        inputs: what the user named: files, folders and globs.

    Returns:
        A relative folder for each file; `Path()` for files that the user named directly.
    """
    tops: dict[Path, int] = {}
    for number, path in enumerate(inputs):
        is_glob = not path.exists() and glob.has_magic(str(path))
        top = next(folder for folder in path.parents if not glob.has_magic(str(folder))) if is_glob else path
        tops.setdefault(top, number)
    folders = []
    for file in files:
        found = [] if file in tops else [folder for folder in file.parents if folder in tops]
        below = file.parent.relative_to(min(found, key=tops.__getitem__)) if found else Path()
        folders.append(Path() if ".." in below.parts else below)  # a glob such as a*/../b/*.jpg
    return folders


def result_names(
    inputs: Sequence[Path], output_dir: Path, endings: Sequence[str], folders: Sequence[Path] | None = None
) -> list[Path]:
    """Choose where the results of each input go. This depends only on the arguments and on links among the files.

    Args:
        inputs: photos and videos.
        output_dir: the folder of results.
        endings: what may be added to a name, such as `_mask.png`.
        folders: where the results of each input go, relative to `output_dir`; None: all directly in `output_dir`.

    Returns:
        A path without ending for each input. Inputs with the same name get a number, and no result replaces an input.
    """
    # A result replaces whatever has its name, even a link; an input that is a link is read from the link's target.
    taken = {_comparable(path) for path in inputs} | {_comparable(real_path(path)) for path in inputs}
    below = folders or [Path()] * len(inputs)
    texts = {folder: _comparable(output_dir / folder / "x")[:-1] for folder in dict.fromkeys(below)}
    count: Counter[str] = Counter()
    names = []
    room = LONGEST_NAME - max((len(os.fsencode(ending)) for ending in endings), default=0) - ROOM_FOR_NUMBER
    for path, folder in zip(inputs, below, strict=True):
        stem = "stdin" if path == STANDARD_INPUT else _shortened(path.stem, room) or "input"
        while True:
            key = texts[folder] + stem.casefold()
            count[key] += 1
            name = stem if count[key] == 1 else f"{stem}-{count[key]}"
            targets = {texts[folder] + (name + ending).casefold() for ending in endings}
            if not targets & taken:
                break
        taken |= targets
        names.append(output_dir / folder / name)
    return names


def results_among(names: Mapping[Path, Path], endings: Collection[str]) -> set[Path]:
    """The inputs that are results of other inputs: an earlier run may have written them next to the photos.

    Args:
        names: each input, and the path of its results without ending, from `result_names`.
        endings: the endings of results.
    """
    made = {_comparable(name.with_name(path.stem)) for path, name in names.items()}
    found = set()
    for path in names:
        for ending in endings:
            if path.name.casefold().endswith(ending.casefold()):
                stem = path.name[: -len(ending)]
                of_number = re.sub(r"-\d+$", "", stem)
                if {_comparable(path.with_name(text)) for text in (stem, of_number) if text} & made:
                    found.add(path)
    return found


def _shortened(name: str, room: int) -> str:
    """The beginning of a name, of at most `room` bytes."""
    while len(os.fsencode(name)) > room:
        name = name[:-1]
    return name


def _comparable(path: Path) -> str:
    """A path as text that is equal for equal files: some file systems do not distinguish a.png from A.png."""
    return str(real_path(path.parent) / path.name).casefold()


def real_path(path: Path) -> Path:
    """The path with all links followed. Unlike `Path.resolve`, this works for links that point to each other."""
    return Path(os.path.realpath(path))

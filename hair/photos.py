"""Which files are photos, reading one, and finding the photos that a user names."""

import glob
import math
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hair.damage import JPEG_END, JPEG_START, PNG_END, PNG_START
from hair.decoding import JPEG_SCALES, decode
from hair.errors import UserError
from hair.files import real_path
from hair.headers import LimitError, beginning, open_header, reading, upright_size
from hair.pixels import on_white, shrink, to_grey, to_srgb

# Of what `headers.FORMATS` read, and HEIC. A name only says what to look for in a folder; the content decides.
PHONE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".heic", ".heif", ".hif", ".avif", ".png", ".apng", ".webp")
OTHER_SUFFIXES = (".gif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c")
NETPBM_SUFFIXES = (".ppm", ".pgm", ".pbm", ".pnm")  # Figaro-1k has its masks in these
PHOTO_SUFFIXES = PHONE_SUFFIXES + OTHER_SUFFIXES + NETPBM_SUFFIXES
MARKERS = ((JPEG_START, JPEG_END), (PNG_START, PNG_END))  # a file that begins and ends like this is taken for complete
PNG_SIZE = slice(16, 24)  # where a PNG's width and height are
SYSTEM_FILES = ("thumbs.db", "desktop.ini")  # that Windows hides
LARGE_PIXELS = 24_000_000  # above this, photos are processed one at a time to bound the memory of a batch


@dataclass(frozen=True)
class Photo:
    """A photo, upright and in sRGB.

    Attributes:
        pixels: RGB uint8 (H, W, 3), transparent ones on white.
        alpha: opacity, uint8 (H, W); None where all is opaque.
        colors: RGB uint8 (H, W, 3), without the white; the same array as `pixels` where all is opaque.
        notes: remarks for the user, such as "is animated; the first picture was read".
        exif: EXIF data of the file, if it has any; their orientation is no longer true.
        scale: it was read at 1/scale of its size.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    colors: np.ndarray
    notes: tuple[str, ...] = ()
    exif: bytes | None = None
    scale: int = 1


def read_photo(path: str | Path, max_pixels: int | None = None) -> np.ndarray:
    """Read a photo.

    Args:
        path: a file of any format in PHOTO_SUFFIXES, whatever its name, of at most `headers.MAX_PIXELS`.
        max_pixels: larger photos are read at 1/2, 1/3, 1/4 … of their size.

    Returns:
        RGB uint8 (H, W, 3), upright, in sRGB. Transparent pixels become white.

    Raises:
        FileNotFoundError: no such file.
        UserError: not a photo, cut off, or too large; the size is checked before decoding.
    """
    return open_photo(path, max_pixels).pixels


def open_photo(
    path: str | Path, max_pixels: int | None = None, jpeg_scale: Callable[[int, int], int] | None = None
) -> Photo:
    """Read a photo with its transparency and with remarks on it.

    Args:
        path, max_pixels: as for `read_photo`.
        jpeg_scale: as for `decode`; without it `max_pixels` decides.

    Raises:
        FileNotFoundError, UserError: as `read_photo`.
    """
    stored = decode(Path(path), jpeg_scale or (partial(_scale_within, max_pixels) if max_pixels else None))
    colors, alpha = to_srgb(stored)
    scale = _scale(colors.shape[0] * colors.shape[1], max_pixels)
    pixels = shrink(colors if alpha is None else on_white(colors, alpha), scale)
    if alpha is None:
        colors = pixels
    else:
        colors, alpha = shrink(colors, scale), shrink(alpha, scale)
    scale *= stored.scale
    if scale > 1:
        height, width = pixels.shape[:2]
        stored.notes.append(f"read at 1/{scale} of its size: {width}×{height} pixels")
    return Photo(pixels, alpha, colors, tuple(stored.notes), stored.exif, scale)


def _scale_within(max_pixels: int, width: int, height: int) -> int:
    """The scale at which a JPEG of width × height has no more than `max_pixels`, or comes closest to that."""
    return next((scale for scale in JPEG_SCALES if width * height <= max_pixels * scale**2), JPEG_SCALES[-1])


def _scale(pixels: int, max_pixels: int | None) -> int:
    """The smallest part of a picture's size at which it has no more than `max_pixels`."""
    return math.ceil(math.sqrt(pixels / max_pixels)) if max_pixels and pixels > max_pixels else 1


def read_grey(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a picture whose values count, such as a mask: upright, and only colours converted, to grey.

    Returns:
        Grey uint8 or uint16 (H, W), and the opacity of the same type; None where the file has none.

    Raises:
        FileNotFoundError, UserError: as `read_photo`.
    """
    return to_grey(decode(Path(path)))


def check_photo(path: str | Path) -> tuple[int, int]:
    """Check that a photo is complete; of JPEGs and PNGs that end as they should only the first and last bytes are read.

    Returns:
        The upright photo's (height, width).

    Raises:
        FileNotFoundError, UserError: as `read_photo`.
    """
    path = Path(path)
    # Whatever is wrong with a file, decoding it says so, or repairs it.
    with suppress(UserError), reading(path) as stream:
        size = upright_size(open_header(stream))
        for start, end in MARKERS:
            stream.seek(-len(end), os.SEEK_END)
            if stream.read() == end and beginning(stream, len(start)) == start:
                return size
    return read_photo(path).shape[:2]


def photo_size(path: Path) -> tuple[int, int] | None:
    """The (height, width) that a picture file states, before any rotation, also where that is too large to be read.

    None if it is not a picture, or where its beginning is damaged.
    """
    try:
        with reading(path) as stream:
            size = open_header(stream).size
    except OSError:
        return None
    except UserError as error:
        size = error.__cause__.size if isinstance(error.__cause__, LimitError) else _size_of_damaged(path)
    return size and size[::-1]


def _size_of_damaged(path: Path) -> tuple[int, int] | None:
    """The (width, height) of a PNG that Pillow does not open, but `decode` may repair."""
    try:
        with path.open("rb") as stream:
            head = stream.read(PNG_SIZE.stop)
    except OSError:  # which is reported when the photo is read
        return None
    is_png = head.startswith(PNG_START) and len(head) == PNG_SIZE.stop
    return struct.unpack(">II", head[PNG_SIZE]) if is_png else None


def is_large(path: Path) -> bool:
    """Whether a photo has more than LARGE_PIXELS."""
    size = photo_size(path)
    return size is not None and size[0] * size[1] > LARGE_PIXELS


# ---------------------------------------------------------------------------------------------------- finding photos


def is_photo(path: Path) -> bool:
    """Whether a file's name is that of a photo. Hidden files are not."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def photos_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The photos in a folder, in order of their names; `recursive` includes its subfolders. Raises OSError."""
    return sorted(filter(is_photo, _files_in(folder, recursive)))


def is_hidden(path: Path) -> bool:
    """Whether a path below a folder that someone named is hidden, or lies in a hidden folder."""
    return any(part.startswith(".") and part != ".." for part in path.parts) or path.name.lower() in SYSTEM_FILES


def _files_in(folder: Path, recursive: bool) -> Iterator[Path]:
    """The files in a folder that are not hidden, nor in a hidden folder. Raises OSError."""
    for file in folder.rglob("*") if recursive else folder.iterdir():
        if not is_hidden(file.relative_to(folder)) and not file.is_dir():
            yield file


def kinds_of_others(names: Iterable[Path]) -> Counter[str]:
    """The suffixes of those of these files that are not photos by their names, and how often each is there."""
    return Counter(path.suffix.lower() or "without a suffix" for path in names if not is_photo(path))


def count_others(names: Iterable[Path]) -> str | None:
    """Say how many of these files are not photos by their names, such as "3 files are not photos: 2 .mov, 1 .txt"."""
    others = kinds_of_others(names)
    if not others:
        return None
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    count = others.total()
    return f"{count} file{'s are' if count > 1 else ' is'} not {'photos' if count > 1 else 'a photo'}: {kinds}"


def passed_over(inputs: Sequence[Path], recursive: bool, leave_out: Path) -> list[str]:
    """A line for each folder among `inputs` with files that `find_photos` passes over; hidden files do not count."""
    lines = []
    for folder in inputs:
        try:
            files = [] if not folder.is_dir() else _without(_files_in(folder, recursive), folder, leave_out)
            line = count_others(files)
        except OSError:  # find_photos reports it
            continue
        lines += [f"{folder}: {line}"] if line else []
    return lines


def _without(files: Iterable[Path], top: Path, leave_out: Path | None) -> list[Path]:
    """The files found in folder `top` that are not in a folder of results inside it."""
    results = real_path(leave_out) if leave_out else None
    if results and real_path(top) in results.parents:
        return [file for file in files if results not in real_path(file).parents]
    return list(files)


def find_photos(inputs: Sequence[Path], recursive: bool = False, leave_out: Path | None = None) -> Iterator[Path]:
    """Yield the files among `inputs` and, in order of their names, the photos in the folders among them.

    Args:
        inputs: files, folders and globs (for quoted globs, and shells that do not expand them).
        recursive: include subfolders.
        leave_out: a folder of results, which may lie inside an input folder.

    Raises:
        FileNotFoundError: a glob without a match, a folder without photos.
        OSError: a folder that cannot be read.
    """
    for path in inputs:
        if path.is_dir():
            found, top = photos_in(path, recursive), path
        elif not path.exists() and glob.has_magic(str(path)):
            found, top = _photos_matching(path, recursive)
        else:
            yield path
            continue
        found = _without(found, top, leave_out)
        if not found:
            raise FileNotFoundError(f"{path}: no photos in it")
        yield from found


def _photos_matching(pattern: Path, recursive: bool) -> tuple[list[Path], Path]:
    """The photos that a glob names, and the last folder before its first wildcard. Raises FileNotFoundError."""
    matches = sorted(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207 (Path.glob: relative ones only)
    if not matches:
        raise FileNotFoundError(f"{pattern}: nothing matches")
    found = [file for match in matches for file in (photos_in(match, recursive) if match.is_dir() else [match])]
    return found, next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def find_inputs(inputs: Sequence[Path], recursive: bool, leave_out: Path) -> tuple[list[Path], list[str]]:
    """What `find_photos` finds, each file once, and an error message for each input where it finds nothing."""
    files: dict[Path, None] = {}
    missing = []
    for path in inputs:
        try:
            files |= dict.fromkeys(find_photos([path], recursive, leave_out))
        except OSError as error:
            missing.append(str(error))
    return list(files), missing

"""Read photos, and find the photos that a user names."""

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

# Suffixes of the formats in `headers.FORMATS`, and of HEIC. They only choose files in a folder; the content decides.
PHONE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".heic", ".heif", ".hif", ".avif", ".png", ".apng", ".webp")
OTHER_SUFFIXES = (".gif", ".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc", ".j2c")
NETPBM_SUFFIXES = (".ppm", ".pgm", ".pbm", ".pnm")  # used by the masks of Figaro-1k
PHOTO_SUFFIXES = PHONE_SUFFIXES + OTHER_SUFFIXES + NETPBM_SUFFIXES
MARKERS = ((JPEG_START, JPEG_END), (PNG_START, PNG_END))  # a file that begins and ends like this counts as complete
PNG_SIZE = slice(16, 24)  # bytes of a PNG that contain its width and height
SYSTEM_FILES = ("thumbs.db", "desktop.ini")  # hidden by Windows
LARGE_PIXELS = 24_000_000  # above this, photos are processed one at a time to limit memory


@dataclass(frozen=True)
class Photo:
    """A photo, upright and in sRGB.

    Attributes:
        pixels: RGB uint8 (H, W, 3), with transparent pixels on white.
        alpha: opacity, uint8 (H, W); None if the photo is opaque.
        colors: RGB uint8 (H, W, 3), without the white; the same array as `pixels` if the photo is opaque.
        notes: notes for the user, such as "is animated; only the first frame was read".
        exif: EXIF data of the file, if it has any; its orientation no longer applies.
        scale: the photo was read at 1/scale of its size.
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
        path: a file in any format of PHOTO_SUFFIXES, whatever its name, with at most `headers.MAX_PIXELS`.
        max_pixels: larger photos are read at 1/2, 1/3, 1/4 … of their size.

    Returns:
        RGB uint8 (H, W, 3), upright, in sRGB. Transparent pixels become white.

    Raises:
        FileNotFoundError: no such file.
        UserError: not a photo, truncated, or too large; the size is checked before decoding.
    """
    return open_photo(path, max_pixels).pixels


def open_photo(
    path: str | Path, max_pixels: int | None = None, jpeg_scale: Callable[[int, int], int] | None = None
) -> Photo:
    """Read a photo with its transparency and with notes on how it was read.

    Args:
        path, max_pixels: as for `read_photo`.
        jpeg_scale: as for `decode`; if None, `max_pixels` decides.

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
    """The scale of JPEG_SCALES at which a JPEG of width × height has at most `max_pixels`, or comes closest to that."""
    return next((scale for scale in JPEG_SCALES if width * height <= max_pixels * scale**2), JPEG_SCALES[-1])


def _scale(pixels: int, max_pixels: int | None) -> int:
    """The smallest scale so that an image at 1/scale of its size has at most `max_pixels`."""
    return math.ceil(math.sqrt(pixels / max_pixels)) if max_pixels and pixels > max_pixels else 1


def read_grey(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an image whose exact values matter, such as a mask: upright, without colour management.

    Returns:
        Grey uint8 or uint16 (H, W), and the opacity of the same type, or None if the file has none.

    Raises:
        FileNotFoundError, UserError: as `read_photo`.
    """
    return to_grey(decode(Path(path)))


def check_photo(path: str | Path) -> tuple[int, int]:
    """Check that a photo is complete. If a JPEG or PNG has its end marker, only the first and last bytes are read.

    Returns:
        The upright photo's (height, width).

    Raises:
        FileNotFoundError, UserError: as `read_photo`.
    """
    path = Path(path)
    # Anything that is wrong with the file is reported, or repaired, when it is decoded below.
    with suppress(UserError), reading(path) as stream:
        size = upright_size(open_header(stream))
        for start, end in MARKERS:
            stream.seek(-len(end), os.SEEK_END)
            if stream.read() == end and beginning(stream, len(start)) == start:
                return size
    return read_photo(path).shape[:2]


def photo_size(path: Path) -> tuple[int, int] | None:
    """The (height, width) in an image file's header, before any rotation, even if the image is too large to be read.

    None if the file is not an image, or if its header is damaged.
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
    """The (width, height) of a PNG that Pillow cannot open but `decode` may be able to repair."""
    try:
        with path.open("rb") as stream:
            head = stream.read(PNG_SIZE.stop)
    except OSError:  # reported when the photo is read
        return None
    is_png = head.startswith(PNG_START) and len(head) == PNG_SIZE.stop
    return struct.unpack(">II", head[PNG_SIZE]) if is_png else None


def is_large(path: Path) -> bool:
    """Whether a photo has more than LARGE_PIXELS."""
    size = photo_size(path)
    return size is not None and size[0] * size[1] > LARGE_PIXELS


# ---------------------------------------------------------------------------------------------------- finding photos


def is_photo(path: Path) -> bool:
    """Whether a file has the name of a photo. Hidden files do not count."""
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def photos_in(folder: Path, recursive: bool = False) -> list[Path]:
    """The photos in a folder, in order of their names; `recursive` includes its subfolders. Raises OSError."""
    return sorted(filter(is_photo, _files_in(folder, recursive)))


def is_hidden(path: Path) -> bool:
    """Whether a path, relative to a folder that the user named, is hidden or lies in a hidden folder."""
    return any(part.startswith(".") and part != ".." for part in path.parts) or path.name.lower() in SYSTEM_FILES


def _files_in(folder: Path, recursive: bool) -> Iterator[Path]:
    """The files in a folder that are not hidden, nor in a hidden folder. Raises OSError."""
    for file in folder.rglob("*") if recursive else folder.iterdir():
        if not is_hidden(file.relative_to(folder)) and not file.is_dir():
            yield file


def kinds_of_others(names: Iterable[Path]) -> Counter[str]:
    """How often each suffix occurs among the files that do not have the name of a photo."""
    return Counter(path.suffix.lower() or "without a suffix" for path in names if not is_photo(path))


def count_others(names: Iterable[Path]) -> str | None:
    """Say how many files do not have the name of a photo: "3 files are not photos: 2 .mov, 1 .txt"."""
    others = kinds_of_others(names)
    if not others:
        return None
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
    count = others.total()
    return f"{count} file{'s are' if count > 1 else ' is'} not {'photos' if count > 1 else 'a photo'}: {kinds}"


def passed_over(inputs: Sequence[Path], recursive: bool, leave_out: Path) -> list[str]:
    """A line for each folder among `inputs` with files that `find_photos` skips; hidden files do not count."""
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
    """The files in folder `top`, without those in the folder of results if that is inside it."""
    results = real_path(leave_out) if leave_out else None
    if results and real_path(top) in results.parents:
        return [file for file in files if results not in real_path(file).parents]
    return list(files)


def find_photos(inputs: Sequence[Path], recursive: bool = False, leave_out: Path | None = None) -> Iterator[Path]:
    """Yield the files among `inputs` and the photos in the folders among them, sorted by name.

    Args:
        inputs: files, folders and globs (quoted ones, or for shells that do not expand them).
        recursive: include subfolders.
        leave_out: a folder of results, which may lie inside an input folder.

    Raises:
        FileNotFoundError: a glob matches nothing, or a folder has no photos.
        OSError: a folder cannot be read.
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
    """The photos that match a glob, and the last folder before its first wildcard. Raises FileNotFoundError."""
    matches = sorted(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207 (Path.glob: relative ones only)
    if not matches:
        raise FileNotFoundError(f"{pattern}: nothing matches")
    found = [file for match in matches for file in (photos_in(match, recursive) if match.is_dir() else [match])]
    return found, next(folder for folder in pattern.parents if not glob.has_magic(str(folder)))


def find_inputs(inputs: Sequence[Path], recursive: bool, leave_out: Path) -> tuple[list[Path], list[str]]:
    """The files that `find_photos` finds, each once, and an error message for each input for which it finds nothing."""
    files: dict[Path, None] = {}
    missing = []
    for path in inputs:
        try:
            files |= dict.fromkeys(find_photos([path], recursive, leave_out))
        except OSError as error:
            missing.append(str(error))
    return list(files), missing

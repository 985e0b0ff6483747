"""Which files are photos, reading one, and finding the photos that a user names."""

import glob
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hair.errors import UserError
from hair.files import real_path

# OpenCV and Pillow would print lines of their own beside the one that names a damaged file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is below MAX_PIXELS, which read_photo enforces

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 100_000_000
LARGE_PIXELS = 24_000_000  # above this, photos are processed one at a time to bound the memory of a batch
END_MARKERS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}  # by Pillow's name of the format


def read_photo(path: str | Path) -> np.ndarray:
    """Read a photo.

    Args:
        path: a file of any format in PHOTO_SUFFIXES, of at most MAX_PIXELS.

    Returns:
        RGB uint8 (H, W, 3), upright. Transparent pixels become white.

    Raises:
        FileNotFoundError: no such file.
        UserError: not a photo, cut off, or too large; the size is checked before decoding.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # Opened as a stream: given a name, Pillow maps uncompressed TIFFs into memory and scrambles rotated ones.
        with path.open("rb") as stream, Image.open(stream) as header:
            width, height = header.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width}×{height} is more than {MAX_PIXELS // 1_000_000} megapixels; shrink it first")
            if _is_transparent(header):
                return _on_white(header)
            data = np.fromfile(path, np.uint8)
            end = END_MARKERS.get(header.format or "")
            if end and end not in data[-4096:].tobytes():
                header.load()  # Pillow raises for a file that is cut off; OpenCV would fill the rest with grey
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: cannot be read as a photo (not a picture)") from error
    except (OSError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read as a photo ({reason})") from error
    return _decode(path, data)


def _is_transparent(picture: Image.Image) -> bool:
    """Whether Pillow must decode a picture for its transparency. 16-bit grey is left to OpenCV: Pillow clips it."""
    has_alpha = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
    return has_alpha and not picture.mode.startswith("I")


def _on_white(picture: Image.Image) -> np.ndarray:
    upright = ImageOps.exif_transpose(picture).convert("RGBA")
    white = Image.new("RGBA", upright.size, "white")
    return np.asarray(Image.alpha_composite(white, upright))[..., :3].copy()


def _decode(path: Path, data: np.ndarray) -> np.ndarray:
    """Decode an opaque picture by OpenCV, which is faster than Pillow and applies the EXIF orientation."""
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # a side of more than a million pixels
        image = None
    if image is None:
        raise UserError(f"{path}: cannot be read as a photo (damaged, or a format that OpenCV does not know)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def photo_size(path: Path) -> tuple[int, int] | None:
    """The (height, width) that a picture file states, before any rotation; None if it is not a picture."""
    try:
        with Image.open(path) as header:
            return header.size[1], header.size[0]
    except (OSError, ValueError, SyntaxError):
        return None


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
    files = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(file for file in files if is_photo(file) and not file.is_dir())


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
        results = real_path(leave_out) if leave_out else None
        if results and real_path(top) in results.parents:
            found = [file for file in found if results not in real_path(file).parents]
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

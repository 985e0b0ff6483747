"""Mask files, and whether a picture file is complete."""

import os
from pathlib import Path
from typing import IO, cast

import cv2
import numpy as np
from PIL import Image

from hair.errors import UserError
from hair.photos import read_photo

PROPORTIONS_TOLERANCE = 0.02  # by which a mask's proportions may differ from its photo's: rounding when it was resized
PNG_SIGNATURE = b"\x89PNG"
PNG_COLOR_TYPE = 25  # place of this byte in a PNG file
PNG_WITH_ALPHA = (4, 6)  # its values for grey and RGB with transparency
FILE_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # by Pillow's name of the format
EXIF_ORIENTATION = 274
LYING = 5  # from this value of the orientation on, width and height are exchanged


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a mask file.

    Args:
        path: a grey picture in which hair is above half of the range, so that JPEGs work, and which is not transparent
            there (PNG); or a picture of the values 0 and 1 alone.
        shape: the photo's (height, width). A mask of another size is resized if its proportions are the photo's.

    Returns:
        uint8 {0, 1} (height, width).

    Raises:
        UserError: a missing or unreadable file, other values, other proportions.
    """
    mask = _decode(path)
    top, brightest = np.iinfo(mask.dtype).max, int(mask.max())
    if brightest <= 1:
        mask = mask * top
    elif brightest <= top // 2:  # it would become a mask without hair; it is a palette, or holds class numbers
        raise UserError(f"{path}: its brightest pixel is {brightest}, but hair is above {top // 2}; make hair white")
    if mask.shape != shape:
        check_proportions(path, mask.shape, shape)
        mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (mask > top // 2).astype(np.uint8)


def _decode(path: Path) -> np.ndarray:
    """A mask file as grey uint8 or uint16 (H, W), 0 where a PNG is transparent. Raises UserError."""
    try:
        data = np.fromfile(path, np.uint8)  # not cv2.imread, which fails on TIFFs with an orientation
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a mask ({error.strerror})") from error
    mask: np.ndarray | None = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH) if data.size else None
    if mask is None or mask.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: cannot be read as a mask")
    if data[:4].tobytes() == PNG_SIGNATURE and data[PNG_COLOR_TYPE] in PNG_WITH_ALPHA:
        opacity = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))[..., -1]
        mask = np.where(opacity > np.iinfo(opacity.dtype).max // 2, mask, 0).astype(mask.dtype)
    return mask


def check_proportions(path: Path, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise UserError where a mask (height, width) cannot be that of a photo (height, width)."""
    if abs(mask[0] * photo[1] - mask[1] * photo[0]) > PROPORTIONS_TOLERANCE * mask[0] * photo[1]:
        raise UserError(f"{path}: the mask is {mask[1]}×{mask[0]} but its photo {photo[1]}×{photo[0]}")


def check_picture(path: Path) -> tuple[int, int]:
    """Check that a picture file is complete; of JPEGs and PNGs only the first and the last bytes are read.

    Returns:
        The upright picture's (height, width).

    Raises:
        UserError: missing, empty, not a picture, or cut off.
    """
    try:
        with Image.open(path) as picture:
            end = FILE_ENDS.get(picture.format or "")
            if end is None:  # other formats have to be decoded
                return read_photo(path).shape[:2]
            file = cast(IO[bytes], picture.fp)  # open until the picture is loaded
            file.seek(-len(end), os.SEEK_END)
            if file.read() != end:  # cut off, or something follows the picture, which is fine
                file.seek(0)
                picture.load()
            width, height = picture.size
            is_lying = picture.getexif().get(EXIF_ORIENTATION, 1) >= LYING
            return (width, height) if is_lying else (height, width)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a whole picture ({error}); replace or remove it") from error

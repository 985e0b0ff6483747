"""One picture at a time: photos, masks and polygons to arrays, and whether a picture file is whole."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import cv2
import numpy as np
from PIL import Image

from inference import read_photo
from utils import UserError


def read_image(path: Path) -> np.ndarray:
    """Read a photo as RGB uint8 (H, W, 3), upright, as inference does. Raises UserError."""
    try:
        return read_photo(path)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error


def read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Read a mask file as uint8 {0, 1} of `shape` (height, width).

    Values above half are hair, so that JPEG masks work, but not where a PNG is transparent; a mask that holds 0 and 1
    alone is taken as it is. Where its size differs from the photo's it is resized, if the proportions agree within 2%.
    Raises UserError.
    """
    try:
        data = np.fromfile(path, np.uint8)  # not cv2.imread, which fails on TIFFs that lie on their side
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a mask ({error.strerror})") from error
    mask: np.ndarray | None = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH) if data.size else None
    if mask is None or mask.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{path}: cannot be read as a mask")
    if data[:4].tobytes() == b"\x89PNG" and data[25] in (4, 6):  # with transparency, which a grey mask loses
        opacity = np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED))[..., -1]
        mask = np.where(opacity > np.iinfo(opacity.dtype).max // 2, mask, 0).astype(mask.dtype)
    top, brightest = np.iinfo(mask.dtype).max, int(mask.max())
    if brightest <= 1:
        mask = mask * top
    elif brightest <= top // 2:  # without hair it would be black; this is a palette, or numbers of classes
        raise UserError(f"{path}: its brightest pixel is {brightest}, but hair is above {top // 2}; make hair white")
    if mask.shape != shape:
        check_proportions(path, mask.shape, shape)
        mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (mask > top // 2).astype(np.uint8)


def check_proportions(path: Path, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise UserError where a mask (height, width) cannot be of a photo (height, width)."""
    if abs(mask[0] * photo[1] - mask[1] * photo[0]) > 0.02 * mask[0] * photo[1]:
        raise UserError(f"{path}: the mask is {mask[1]}×{mask[0]} but its photo {photo[1]}×{photo[0]}")


def check_picture(path: Path) -> tuple[int, int]:
    """The (height, width) of a picture file that is whole, at the cost of its first and last bytes only.

    Raises:
        UserError: missing, empty, not a picture, or a JPEG or PNG cut off.
    """
    ends = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
    try:
        with Image.open(path) as picture:
            end = ends.get(picture.format or "")
            if end is None:  # of other formats only reading tells
                return read_image(path).shape[:2]
            file = cast(IO[bytes], picture.fp)  # open until the picture is loaded
            file.seek(-len(end), os.SEEK_END)
            if file.read() != end:  # there may be something behind the picture
                file.seek(0)
                picture.load()
            width, height = picture.size
            # Tag 274 is EXIF's orientation; from 5 on the picture is stored lying on its side.
            return (width, height) if picture.getexif().get(274, 1) >= 5 else (height, width)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a whole picture ({error}); replace or remove it") from error


def rasterise(curves: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill closed curves, as a union, into a mask: hair is a pixel whose centre lies inside a curve.

    `cv2.fillPoly` would round the points' y and paint the outline too, half a pixel more hair all around.

    Args:
        curves: float (points, 2) each, x and y in pixels; pixel (0, 0) covers x and y from 0 to 1. May leave the frame.
        shape: (height, width).

    Returns:
        uint8 {0, 1} (height, width).
    """
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    for curve in curves:
        x, y = np.asarray(curve, np.float64).T - 0.5  # now pixel centres are whole numbers
        # Each edge crosses the columns [first, first + count); edges between two columns cross none.
        start = np.ceil(x).clip(0, width).astype(np.intp)
        end = np.roll(start, -1)
        edges = np.flatnonzero(start != end)
        first, count = np.minimum(start, end)[edges], np.abs(end - start)[edges]
        slope = (np.roll(y, -1) - y)[edges] / (np.roll(x, -1) - x)[edges]
        column = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        row = np.ceil(np.repeat(y[edges] - x[edges] * slope, count) + column * np.repeat(slope, count))
        row = row.clip(0, height).astype(np.intp)
        # Below each crossing inside turns to outside or back; eight columns at once, as one 64-bit word.
        turns = np.zeros((height + 1, -(-width // 8) * 8), np.uint8)
        np.bitwise_xor.at(turns.reshape(-1), row * turns.shape[1] + column, np.uint8(1))
        words = turns.view(np.uint64)
        np.bitwise_xor.accumulate(words, axis=0, out=words)
        mask |= turns[:height, :width]
    return mask

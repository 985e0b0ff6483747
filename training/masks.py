"""Mask files, and whether a picture file is complete."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hair.errors import UserError
from hair.headers import open_header, orientation, reading
from hair.photos import check_photo, read_grey
from hair.pixels import turn

PROPORTIONS_TOLERANCE = 0.02  # by which a mask's proportions may differ from its photo's: rounding when it was resized


def read_mask(path: Path, shape: tuple[int, int], hair: Sequence[int] = ()) -> np.ndarray:
    """Read a mask file.

    Args:
        path: a grey picture in which hair is above half of the range, so that JPEGs work, and which is not transparent
            there (PNG); or a picture of the values 0 and 1 alone.
        shape: the photo's (height, width). A mask of another size is resized if its proportions are the photo's.
        hair: class numbers of hair, of a mask of class numbers: its grey levels, or the places of its palette. Masks
            of 0 and 255 alone and JPEGs are read as if this was empty.

    Returns:
        uint8 {0, 1} (height, width).

    Raises:
        UserError: a missing or unreadable file, other values, other proportions.
    """
    classes = _read_classes(path) if hair else None
    mask = _decode(path) if classes is None else np.isin(classes, hair).astype(np.uint8)
    top, brightest = np.iinfo(mask.dtype).max, int(mask.max())
    if brightest <= 1:
        mask = mask * top
    elif brightest <= top // 2:  # it would become a mask without hair; it is a palette, or holds class numbers
        raise UserError(
            f"{path}: its brightest pixel is {brightest}, but hair is above {top // 2}; make hair white, or give the "
            "number of its class with --hair_label"
        )
    if mask.shape != shape:
        check_proportions(path, mask.shape, shape)
        mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (mask > top // 2).astype(np.uint8)


def _read_classes(path: Path) -> np.ndarray | None:
    """A mask file's class numbers, uint8 or uint16 (H, W), upright; None where it holds none. Raises UserError."""
    with _user_errors(path), reading(path) as stream:
        picture = open_header(stream)
        if isinstance(picture, Image.Image) and picture.mode == "P":
            return turn(np.asarray(picture), orientation(picture))
        if not isinstance(picture, Image.Image) or picture.format in ("JPEG", "MPO"):
            return None
        if picture.mode[:3] == "RGB":
            levels = np.asarray(picture.convert("RGB"))
            if (levels != levels[..., :1]).any():
                raise UserError(f"{path}: is in colour, but --hair_label needs grey levels or a palette")
    classes, _ = read_grey(path)
    return None if ((classes == 0) | (classes == 255)).all() else classes


def _decode(path: Path) -> np.ndarray:
    """A mask file as grey uint8 or uint16 (H, W), upright, 0 where it is transparent. Raises UserError."""
    with _user_errors(path):
        mask, opacity = read_grey(path)
    if opacity is not None:
        mask = np.where(opacity > np.iinfo(opacity.dtype).max // 2, mask, 0).astype(mask.dtype)
    return mask


def check_proportions(path: Path, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise UserError where a mask (height, width) cannot be that of a photo (height, width)."""
    if abs(mask[0] * photo[1] - mask[1] * photo[0]) > PROPORTIONS_TOLERANCE * mask[0] * photo[1]:
        raise UserError(f"{path}: the mask is {mask[1]}×{mask[0]} but its photo {photo[1]}×{photo[0]}")


def check_picture(path: Path) -> tuple[int, int]:
    """Check that a picture file is complete; of JPEGs and PNGs that end as they should only the ends are read.

    Returns:
        The upright picture's (height, width).

    Raises:
        UserError: missing, empty, not a picture, or cut off.
    """
    with _user_errors(path):
        try:
            return check_photo(path)
        except UserError as error:
            raise UserError(f"{error}; replace or remove it") from error


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a file into a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error

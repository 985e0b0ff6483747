"""Read mask files, and check that image files are complete."""

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

PROPORTIONS_TOLERANCE = 0.02  # relative difference of aspect ratios of mask and photo that rounding may cause


def read_mask(path: Path, shape: tuple[int, int], hair: Sequence[int] = ()) -> np.ndarray:
    """Read a mask file.

    Args:
        path: a grey image in which hair is opaque and above half of the range (so that JPEGs work), or an image with
            only the values 0 and 1.
        shape: the photo's (height, width). A mask of another size is resized if it has the same aspect ratio.
        hair: for masks that contain class numbers (grey levels or palette indices), the classes that are hair. JPEGs
            and masks with only 0 and 255 are read as if this were empty.

    Returns:
        uint8 {0, 1} (height, width).

    Raises:
        UserError: the file is missing or unreadable, or has other values or another aspect ratio.
    """
    classes = _read_classes(path) if hair else None
    mask = _decode(path) if classes is None else np.isin(classes, hair).astype(np.uint8)
    top, brightest = np.iinfo(mask.dtype).max, int(mask.max())
    if brightest <= 1:
        mask = mask * top
    elif brightest <= top // 2:  # probably a mask of class numbers; it would be read as a mask without hair
        raise UserError(
            f"{path}: its brightest pixel is {brightest}, but hair is above {top // 2}; make hair white, or give the "
            "class number of hair with --hair_label"
        )
    if mask.shape != shape:
        check_proportions(path, mask.shape, shape)
        mask = cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (mask > top // 2).astype(np.uint8)


def _read_classes(path: Path) -> np.ndarray | None:
    """The class numbers in a mask file, uint8 or uint16 (H, W), upright; None if it has none. Raises UserError."""
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
    """A mask file as grey uint8 or uint16 (H, W), upright, with 0 in transparent parts. Raises UserError."""
    with _user_errors(path):
        mask, opacity = read_grey(path)
    if opacity is not None:
        mask = np.where(opacity > np.iinfo(opacity.dtype).max // 2, mask, 0).astype(mask.dtype)
    return mask


def check_proportions(path: Path, mask: tuple[int, int], photo: tuple[int, int]) -> None:
    """Raise UserError if the (height, width) of mask and photo have different aspect ratios."""
    if abs(mask[0] * photo[1] - mask[1] * photo[0]) > PROPORTIONS_TOLERANCE * mask[0] * photo[1]:
        raise UserError(f"{path}: the mask is {mask[1]}×{mask[0]}, but its photo is {photo[1]}×{photo[0]}")


def check_picture(path: Path) -> tuple[int, int]:
    """Check that an image file is complete. Of JPEGs and PNGs with an end marker, only both ends are read.

    Returns:
        The (height, width) of the upright image.

    Raises:
        UserError: missing, empty, not an image, or truncated.
    """
    with _user_errors(path):
        try:
            return check_photo(path)
        except UserError as error:
            raise UserError(f"{error}; replace or remove it") from error


@contextmanager
def _user_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about a file into a UserError."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error

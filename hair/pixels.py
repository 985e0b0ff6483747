"""Convert stored pixels to upright arrays: to sRGB for photos, with unchanged values for masks."""

from collections.abc import Iterator

import cv2
import numpy as np

from hair.decoding import Stored
from hair.profiles import converter

STRIP = 300_000  # pixels that are converted at a time; so many fit into the CPU cache
FLIPS = {2: 1, 3: -1, 4: 0, 7: -1}  # by EXIF orientation; OpenCV's codes: 1 left-right, 0 top-bottom, -1 both
TURNS = {6: cv2.ROTATE_90_CLOCKWISE, 8: cv2.ROTATE_90_COUNTERCLOCKWISE}


def to_srgb(stored: Stored) -> tuple[np.ndarray, np.ndarray | None]:
    """The colours as RGB uint8 (H, W, 3), and the opacity as uint8 (H, W) or None if the image is opaque.

    Both are upright. Notes on the colours are added to `stored.notes`.
    """
    width, height = stored.size
    colors = np.empty((height, width, 3), np.uint8)
    alpha = np.full((height, width), 255, np.uint8) if stored.mode.endswith("A") else None
    convert = converter(stored.mode.removesuffix("A"), stored.profile, stored.numbers, stored.notes)
    for place, rows, opacity in _strips(stored):
        colors[place] = convert(_as_bytes(rows))
        if alpha is not None and opacity is not None:
            alpha[place] = _as_bytes(opacity)
    if alpha is not None:
        alpha = turn(alpha, stored.orientation) if alpha.min() < 255 else None
    return turn(colors, stored.orientation), alpha


def to_grey(stored: Stored) -> tuple[np.ndarray, np.ndarray | None]:
    """The grey levels, uint8 or uint16 (H, W), and the opacity or None. Both are upright."""
    plain = converter(stored.mode.removesuffix("A"), None, None, [])
    greys, opacities = [], []
    for _, rows, opacity in _strips(stored):
        greys.append(rows if rows.ndim == 2 else cv2.cvtColor(plain(rows), cv2.COLOR_RGB2GRAY))
        if opacity is not None:
            opacities.append(opacity)
    grey = turn(np.concatenate(greys), stored.orientation)
    return grey, turn(np.concatenate(opacities), stored.orientation) if opacities else None


def _strips(stored: Stored) -> Iterator[tuple[slice, np.ndarray, np.ndarray | None]]:
    """The image in strips of rows: their position, their values and their opacity."""
    width, height = stored.size
    step = max(1, STRIP // width)
    for top in range(0, height, step):
        place = slice(top, min(top + step, height))
        rows = stored.rows(place.start, place.stop)
        if not stored.mode.endswith("A"):
            yield place, rows, None
        elif stored.mode == "LA":
            yield place, rows[..., 0], rows[..., 1]
        else:
            yield place, rows[..., :3], rows[..., 3]


def _as_bytes(values: np.ndarray) -> np.ndarray:
    """uint8 or uint16 values as uint8."""
    return values if values.dtype == np.uint8 else cv2.convertScaleAbs(values, alpha=255 / 65535)


def turn(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Rotate an image (H, W) or (H, W, channels) upright, given its EXIF orientation, 1 to 8."""
    if orientation in TURNS:
        return cv2.rotate(picture, TURNS[orientation])
    if orientation in (5, 7):
        picture = cv2.transpose(picture)
    return cv2.flip(picture, FLIPS[orientation]) if orientation in FLIPS else picture


def shrink(picture: np.ndarray, scale: int) -> np.ndarray:
    """The image at 1/scale of its size."""
    height, width = picture.shape[:2]
    size = max(1, width // scale), max(1, height // scale)
    return picture if scale == 1 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def on_white(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Blend RGB uint8 (H, W, 3) with the opacity `alpha`, uint8 (H, W), onto white."""
    pixels = np.empty_like(colors)
    step = max(1, STRIP // colors.shape[1])
    for top in range(0, len(colors), step):
        rows = slice(top, top + step)
        opacity = cv2.cvtColor(alpha[rows], cv2.COLOR_GRAY2RGB)
        pixels[rows] = 255 - cv2.multiply(255 - colors[rows], opacity, scale=1 / 255)
    return pixels

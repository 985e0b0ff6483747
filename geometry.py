"""Photos and the square that the network sees: there, back again, and where to look closer."""

from collections.abc import Sequence

import cv2
import numpy as np

SUSPECTED = 0.15  # probability from which pixels of a first look may be hair, and worth a closer look …
SURE = 0.6  # … if one of those that touch has this much: much that fills a closer look is taken for hair


def letterbox(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Where a photo of height × width, shrunk or grown to fit, lies in the middle of a square of `size`.

    Stretching it to fill the square scores a little better on Figaro-1k (`benchmarks/proportions.py`), but takes a
    cat's face for a person's and misses small heads.
    """
    scale = size / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - height) // 2, (size - width) // 2
    return np.s_[top : top + height, left : left + width]


def fit_square(picture: np.ndarray, size: int, interpolation: int | None = None) -> np.ndarray:
    """Bring a photo or a mask, uint8 (H, W) or (H, W, 3), into a square of `size`, black where nothing of it is.

    The interpolation is one of OpenCV's; where not given, what suits a photo.
    """
    window = letterbox(picture.shape[0], picture.shape[1], size)
    if interpolation is None:
        interpolation = cv2.INTER_AREA if max(picture.shape[:2]) > size else cv2.INTER_LINEAR
    height, width = (side.stop - side.start for side in window)
    square = np.zeros((size, size, *picture.shape[2:]), np.uint8)
    square[window] = cv2.resize(picture, (width, height), interpolation=interpolation)
    return square


def preprocess(image: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Bring a photo, RGB uint8 (H, W, 3), to the network's input, float32 (3, size, size).

    The same as `augment.eval_transform` and `models.Normalise` without their imports; a test compares them.
    """
    square = np.ascontiguousarray(fit_square(image, size).transpose(2, 0, 1))  # as bytes, four times as fast as floats
    # (x / 255 - mean) / std in one multiplication and one subtraction
    means, deviations = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    scaled = square * (1 / (255 * deviations))
    scaled -= means / deviations
    return scaled


def restore(square: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Bring the network's probabilities, float32 (S, S), back to a photo's `shape` (H, W, …): undo `preprocess`.

    Probabilities, not a mask, are brought to the photo's size: a mask's edge would become a staircase.
    """
    window = square[letterbox(shape[0], shape[1], square.shape[0])]
    full = cv2.resize(window, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.clip(full, 0, 1, out=full)


def crops_around(look: np.ndarray, shape: Sequence[int], most: int = 6) -> list[tuple[slice, slice]]:
    """Squares of a photo in which its small heads are as large as in a portrait.

    Args:
        look: probabilities float32 (h, w) of the first look, the photo's proportions at any size.
        shape: the photo's (H, W, …).
        most: as many squares at most, the largest hair first.

    Returns:
        Slices of the photo, one for each group of heads; none for heads that fill enough of the frame.
    """
    suspected = (look >= SUSPECTED).astype(np.uint8)
    # BBDT: OpenCV's default takes three times as long.
    count, places, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(suspected, 8, cv2.CV_32S, cv2.CCL_BBDT)
    scale = max(shape[:2]) / max(look.shape)
    squares: list[tuple[np.ndarray, np.ndarray]] = []
    for number in sorted(range(1, count), key=lambda n: -stats[n, cv2.CC_STAT_AREA]):
        x, y, width, height, area = stats[number]
        if area < 8 or look[places == number].max() < SURE:
            continue
        reach = 1.25 * max(width, height)  # half the square's side: the hair fills 40% of it
        centre = np.array((y + height / 2, x + width / 2))
        # In the photo's whole pixels from here on, so that no rounding makes two of them meet.
        low, high = np.floor((centre - reach) * scale).astype(int), np.ceil((centre + reach) * scale).astype(int)
        place = len(squares)
        # Merged ones are larger and may meet others.
        while met := [i for i, (start, stop) in enumerate(squares) if (start < high).all() and (low < stop).all()]:
            start, stop = squares.pop(met[0])
            low, high, place = np.minimum(low, start), np.maximum(high, stop), min(place, met[0])
        squares.insert(place, (low, high))
    crops = []
    for low, high in squares[:most]:
        if max(high - low) < 0.6 * max(shape[:2]):
            low, high = np.maximum(0, low), np.minimum(shape[:2], high)
            crops.append(np.s_[low[0] : high[0], low[1] : high[1]])
    return crops

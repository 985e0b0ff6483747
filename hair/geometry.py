"""Scale a photo to the network's square input and probabilities back, and find crops for a closer look."""

from collections.abc import Sequence

import cv2
import numpy as np

# Pixels with a probability of at least SUSPECTED in the first look may be hair. They get a closer look only if a pixel
# connected to them reaches SURE: otherwise texture that fills the crop would be mistaken for hair.
SUSPECTED = 0.15
SURE = 0.6
SMALLEST_HAIR = 8  # pixels in the first look; smaller regions are noise
MARGIN = 1.25  # half the side of a crop divided by the longer side of the hair: the hair fills 40% of the crop
LARGEST_CROP = 0.6  # of the photo's longer side; a larger crop would show nothing new
MOST_CROPS = 6


def letterbox(height: int, width: int, size: int) -> tuple[slice, slice]:
    """The position of a photo of height × width in the middle of a square of `size`, after it is scaled to fit.

    With photos stretched to the square, the score on Figaro-1k is a little higher (`benchmarks/proportions.py`), but
    the network takes a cat's face for a person's and misses small heads.
    """
    scale = size / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - height) // 2, (size - width) // 2
    return np.s_[top : top + height, left : left + width]


def fit_square(picture: np.ndarray, size: int, interpolation: int | None = None) -> np.ndarray:
    """Fit a photo or a mask, uint8 (H, W, 3) or (H, W), into a square of `size` with black borders.

    `interpolation` is an OpenCV constant; None chooses one that suits photos.
    """
    window = letterbox(picture.shape[0], picture.shape[1], size)
    if interpolation is None:
        interpolation = cv2.INTER_AREA if max(picture.shape[:2]) > size else cv2.INTER_LINEAR
    height, width = (side.stop - side.start for side in window)
    square = np.zeros((size, size, *picture.shape[2:]), np.uint8)
    square[window] = cv2.resize(picture, (width, height), interpolation=interpolation)
    return square


def preprocess(image: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Turn a photo, RGB uint8 (H, W, 3), into the network's input, float32 (3, size, size).

    The same as `training.augment.eval_transform` and `models.Normalise`, without PyTorch; a test compares them.
    """
    square = np.ascontiguousarray(fit_square(image, size).transpose(2, 0, 1))  # transposing bytes is four times faster
    # (x / 255 - mean) / std in one multiplication and one subtraction
    means, deviations = (np.array(values, np.float32)[:, None, None] for values in (mean, std))
    scaled = square * (1 / (255 * deviations))
    scaled -= means / deviations
    return scaled


def restore(square: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Undo `preprocess`: bring probabilities, float32 (S, S), back to a photo's `shape` (H, W, …).

    Probabilities are resized, not masks: the edges of a resized mask would look like stairs.
    """
    window = square[letterbox(shape[0], shape[1], square.shape[0])]
    full = cv2.resize(window, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.clip(full, 0, 1, out=full)


def crops_around(probabilities: np.ndarray, shape: Sequence[int]) -> list[tuple[slice, slice]]:
    """Square crops of a photo in which its small heads are as large as in a portrait.

    Args:
        probabilities: float32 (h, w) of the first look, with the photo's aspect ratio at any size.
        shape: the photo's (H, W, …).

    Returns:
        Slices of the photo, one for each group of small heads, at most MOST_CROPS, those with the most hair first.
    """
    scale = max(shape[:2]) / max(probabilities.shape)
    squares: list[tuple[np.ndarray, np.ndarray]] = []
    for low, high in _squares_around_hair(probabilities, scale):
        _add_square(squares, low, high)
    crops = []
    for low, high in squares[:MOST_CROPS]:
        if max(high - low) < LARGEST_CROP * max(shape[:2]):
            low, high = np.maximum(0, low), np.minimum(shape[:2], high)
            crops.append(np.s_[low[0] : high[0], low[1] : high[1]])
    return crops


def _squares_around_hair(probabilities: np.ndarray, scale: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """A square (low and high corner, in pixels of the photo) around each connected region of hair, largest first."""
    suspected = (probabilities >= SUSPECTED).astype(np.uint8)
    # BBDT: OpenCV's default takes three times as long.
    count, places, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(suspected, 8, cv2.CV_32S, cv2.CCL_BBDT)
    squares = []
    for number in sorted(range(1, count), key=lambda n: -stats[n, cv2.CC_STAT_AREA]):
        x, y, width, height, area = stats[number]
        if area < SMALLEST_HAIR or probabilities[places == number].max() < SURE:
            continue
        reach = MARGIN * max(width, height)
        centre = np.array((y + height / 2, x + width / 2))
        # From here on whole pixels of the photo, so that rounding cannot make two squares overlap.
        low, high = np.floor((centre - reach) * scale).astype(int), np.ceil((centre + reach) * scale).astype(int)
        squares.append((low, high))
    return squares


def _add_square(squares: list[tuple[np.ndarray, np.ndarray]], low: np.ndarray, high: np.ndarray) -> None:
    """Add a square to a list of squares that do not overlap: overlapping squares are merged, which may repeat."""
    place = len(squares)
    while met := [i for i, (start, stop) in enumerate(squares) if (start < high).all() and (low < stop).all()]:
        start, stop = squares.pop(met[0])
        low, high, place = np.minimum(low, start), np.maximum(high, stop), min(place, met[0])
    squares.insert(place, (low, high))

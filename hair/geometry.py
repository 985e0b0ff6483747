"""Scale a photo to the network's square input, and probabilities back."""

from collections.abc import Sequence

import cv2
import numpy as np


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

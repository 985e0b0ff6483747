"""Process large photos in strips of rows, to limit memory, or at a reduced size where that is enough."""

from collections.abc import Iterator, Sequence
from math import sqrt

import cv2
import numpy as np

STRIP = 4_000_000  # pixels per strip; float arrays of a whole large photo would need gigabytes
SMALL_STRIP = 400_000  # pixels; strips that fit into the CPU cache are faster if they need little overlap
LONGEST = 16_384  # pixels of a reduced photo's side: OpenCV's remap takes less than 32,767
ROW = 1024  # OpenCV's remap needs a 2-D array of points, not a list


def strips(shape: Sequence[int], overlap: int = 0, pixels: int | None = None) -> Iterator[tuple[slice, slice, slice]]:
    """Divide an image into strips of rows: the rows to read, the rows to write, and their position in the rows to read.

    Args:
        shape: shape of the image, (height, width, …).
        overlap: rows to read above and below those to write.
        pixels: pixels per strip; STRIP if None.
    """
    step = max(1, (STRIP if pixels is None else pixels) // shape[1])
    for top in range(0, shape[0], step):
        bottom = min(top + step, shape[0])
        first = max(0, top - overlap)
        yield np.s_[first : min(bottom + overlap, shape[0])], np.s_[top:bottom], np.s_[top - first : bottom - first]


def enlarge(small: np.ndarray, shape: Sequence[int], rows: slice) -> np.ndarray:
    """Some rows of a small array, enlarged linearly. Strips of any height give the same values.

    Args:
        small: float32 (h, w) or (h, w, channels).
        shape: (height, width) of the whole enlarged array.
        rows: the wanted rows of the enlarged array.

    Returns:
        float32 (number of rows, width) or (number of rows, width, channels).
    """
    between = _rows_between(small, shape[0], rows)
    return cv2.resize(between, (shape[1], len(between)), interpolation=cv2.INTER_LINEAR)


def sample(small: np.ndarray, shape: Sequence[int], rows: slice, points: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The values of `enlarge` at some points only.

    Args:
        small, shape, rows: as in `enlarge`.
        points: rows (N,), counted from the first of `rows`, and columns (N,).

    Returns:
        float32 (N,) or (N, channels).
    """
    between = _rows_between(small, shape[0], rows)
    left, right, share = _neighbours(np.arange(shape[1]), small.shape[1], shape[1])
    row, column = points
    first = between[row, left[column]]
    share = share[column].reshape(-1, *[1] * (small.ndim - 2))
    return first + share * (between[row, right[column]] - first)


def _rows_between(small: np.ndarray, height: int, rows: slice) -> np.ndarray:
    above, below, share = _neighbours(np.arange(rows.start, rows.stop), small.shape[0], height)
    share = share.reshape(-1, *[1] * (small.ndim - 1))
    return small[above] + share * (small[below] - small[above])


def _neighbours(places: np.ndarray, small: int, large: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel in a row of `large`: the two nearest in a row of `small` pixels, and the weight of the second."""
    exact = ((places + 0.5) * (small / large) - 0.5).clip(0, small - 1)
    first = exact.astype(int)
    return first, np.minimum(first + 1, small - 1), (exact - first).astype(np.float32)


class Reduction:
    """Converts between a photo and a copy that is reduced by an integer factor.

    Args:
        shape: (H, W, …) of the photo.
        factor: the factor.
        largest: the most pixels that the reduced photo may have; the factor is raised if needed.

    Attributes:
        factor: the factor that is used.
        size: (height, width) of the reduced photo, at least 1.
    """

    def __init__(self, shape: Sequence[int], factor: int, largest: int) -> None:
        self.shape = shape[0], shape[1]
        self.factor = max(1, factor, round(sqrt(shape[0] * shape[1] / largest)), max(shape[:2]) // LONGEST)
        self._steps = tuple(min(self.factor, side) for side in self.shape)
        self.size = tuple(side // step for side, step in zip(self.shape, self._steps, strict=True))
        # The cell of each row and column of the photo; those that do not fill a whole cell belong to the last one.
        self._along, self._across = (
            np.minimum(np.arange(side) // step, count - 1)
            for side, step, count in zip(self.shape, self._steps, self.size, strict=True)
        )

    def reduce(self, picture: np.ndarray) -> np.ndarray:
        """The mean values of an image (H, W, …) in each whole cell."""
        (height, width), (down, right) = self.size, self._steps
        cropped = picture[: height * down, : width * right]  # whole cells are what OpenCV averages quickly
        return cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA)

    def repeat(self, cells: np.ndarray, rows: slice) -> np.ndarray:
        """These rows, (rows, W, …), of a reduced image (h, w, …) enlarged as flat squares."""
        first, last = self._along[rows.start], self._along[rows.stop - 1]
        return cells[first : last + 1].take(self._across, 1).take(self._along[rows] - first, 0)

    def locate(self, rows: slice, pixels: np.ndarray) -> np.ndarray:
        """Where pixels of the photo lie in the reduced one, for `enlarge`; int32 (N,), counted within these rows."""
        count, width = len(pixels), np.int32(self.shape[1])
        points = np.zeros((2, -(-max(1, count) // ROW) * ROW), np.float32)
        y = pixels // width
        points[0, :count], points[1, :count] = pixels - y * width, y
        for axis, start, step in ((0, 0, self._steps[1]), (1, rows.start, self._steps[0])):
            points[axis] += start + 0.5
            points[axis] *= 1 / step
            points[axis] -= 0.5
        return points.reshape(2, -1, ROW)

    @staticmethod
    def enlarge(reduced: np.ndarray, points: np.ndarray, count: int) -> list[np.ndarray]:
        """Values of a reduced picture, float32 (h, w, …), between its pixels at the first `count` points.

        Returns float32 (N,) for each channel.

        Fastest for one channel or four.
        """
        values = cv2.remap(reduced, points[0], points[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return [plane.reshape(-1)[:count] for plane in cv2.split(values)]


def pick(picture: np.ndarray, pixels: np.ndarray) -> list[np.ndarray]:
    """The pixels of a strip (rows, W, C) at flat indices, int32 (N,): an array (N,) for each channel.

    Arithmetic on these is several times as fast as on (N, C).
    """
    found = picture.reshape(-1, picture.shape[2]).take(pixels, 0)
    return [plane.reshape(-1) for plane in cv2.split(found[:, None])] if pixels.size else list(found.T)

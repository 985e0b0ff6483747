"""Large photos: in strips of rows, so that float arithmetic needs no gigabytes, and reduced, where that will do."""

from collections.abc import Iterator, Sequence
from math import sqrt

import cv2
import numpy as np

STRIP = 4_000_000  # pixels
LONGEST = 16_384  # pixels of a reduced photo's side: OpenCV's remap takes less than 32,767
ROW = 1024  # OpenCV's remap wants a picture of points, not a list


def strips(shape: Sequence[int], overlap: int = 0, share: int = 1) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of a picture in strips: the rows to read, the rows to write, and the latter's place within the former.

    `share` divides STRIP, for work on many planes, which is faster in small strips that stay in the processor's cache.
    """
    step = max(1, STRIP // (share * shape[1]))
    for top in range(0, shape[0], step):
        bottom = min(top + step, shape[0])
        first = max(0, top - overlap)
        yield np.s_[first : min(bottom + overlap, shape[0])], np.s_[top:bottom], np.s_[top - first : bottom - first]


class Reduction:
    """A photo's size divided by a whole number, and single pixels at the photo's own size.

    Args:
        shape: (H, W, …) of the photo.
        factor: the number.
        largest: pixels of the reduced photo; it is reduced further if it had more.

    Attributes:
        factor: the number used.
        size: (height, width) of the reduced photo, at least 1.
    """

    def __init__(self, shape: Sequence[int], factor: int, largest: int) -> None:
        self.shape = shape[0], shape[1]
        self.factor = max(1, factor, round(sqrt(shape[0] * shape[1] / largest)), max(shape[:2]) // LONGEST)
        self._steps = tuple(min(self.factor, side) for side in self.shape)
        self.size = tuple(side // step for side, step in zip(self.shape, self._steps, strict=True))
        # The cell of each of the photo's rows and columns; those that fill no whole cell belong to the last one.
        self._along, self._across = (
            np.minimum(np.arange(side) // step, count - 1)
            for side, step, count in zip(self.shape, self._steps, self.size, strict=True)
        )

    def reduce(self, picture: np.ndarray) -> np.ndarray:
        """Mean values of a picture (H, W, …), of whole cells only."""
        (height, width), (down, right) = self.size, self._steps
        cropped = picture[: height * down, : width * right]  # whole cells are what OpenCV averages quickly
        return cv2.resize(cropped, (width, height), interpolation=cv2.INTER_AREA)

    def repeat(self, cells: np.ndarray, rows: slice) -> np.ndarray:
        """A reduced picture (h, w, …) in flat squares: these rows of the photo, (rows, W, …)."""
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
    """Pixels of a strip (rows, W, C), by their numbers, int32 (N,), along the rows: an array (N,) for each channel.

    Arithmetic on these is several times as fast as on (N, C).
    """
    found = picture.reshape(-1, picture.shape[2]).take(pixels, 0)
    return [plane.reshape(-1) for plane in cv2.split(found[:, None])] if pixels.size else list(found.T)

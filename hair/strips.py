"""Large pictures in strips of rows, and fields that are computed small and enlarged."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

STRIP = 4_000_000  # pixels; float pictures are made in strips of this size, so that a large photo needs no gigabytes
SMALL_STRIP = 400_000  # pixels; strips that fit into the processor's cache are faster where they need little overlap


def strips(shape: Sequence[int], overlap: int = 0, pixels: int | None = None) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of a picture in strips: the rows to read, the rows to write, and the latter's place within the former.

    Args:
        shape: of the picture, (height, width, …).
        overlap: rows to read above and below those to write.
        pixels: of a strip; STRIP if None.
    """
    step = max(1, (STRIP if pixels is None else pixels) // shape[1])
    for top in range(0, shape[0], step):
        bottom = min(top + step, shape[0])
        first = max(0, top - overlap)
        yield np.s_[first : min(bottom + overlap, shape[0])], np.s_[top:bottom], np.s_[top - first : bottom - first]


def enlarge(small: np.ndarray, shape: Sequence[int], rows: slice) -> np.ndarray:
    """Some rows of a small field, enlarged linearly. Strips of any height give the same values.

    Args:
        small: float32 (h, w) or (h, w, channels).
        shape: (height, width) of the whole enlarged field.
        rows: of the enlarged field.

    Returns:
        float32 (number of rows, width) or (number of rows, width, channels).
    """
    between = _rows_between(small, shape[0], rows)
    return cv2.resize(between, (shape[1], len(between)), interpolation=cv2.INTER_LINEAR)


def sample(small: np.ndarray, shape: Sequence[int], rows: slice, points: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What `enlarge` gives, at some points only.

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
    """Of pixels in a row of `large`: the two nearest in a row of `small` pixels, and the second's share, float32."""
    exact = ((places + 0.5) * (small / large) - 0.5).clip(0, small - 1)
    first = exact.astype(int)
    return first, np.minimum(first + 1, small - 1), (exact - first).astype(np.float32)

"""Align probabilities with the edges of the photo, with a guided filter that is computed on a reduced photo."""

from collections.abc import Iterator

import cv2
import numpy as np

from hair.strips import SMALL_STRIP, Reduction, pick, strips

REDUCED_RADIUS = 3  # pixels of the reduced photo; 4 to 8 are slower and no better (on 180 photos)
REDUCED_PIXELS = 1_500_000  # about the largest size of the reduced photo, to limit memory
DECIDED = 0.02  # probabilities this close to 0 or 1 are not changed
FADE = 4  # the filter fades out where less than 1/FADE of the neighbourhood is undecided
EXPLAINED = (0.2, 0.6)  # explained variance: colours are ignored below the first fraction, trusted above the second
FLAT = 1e-4  # variance of probabilities that does not need to be explained


def refine_edges(
    image: np.ndarray, probabilities: np.ndarray, img_size: int, reach: float = 4, softness: float = 1e-3
) -> np.ndarray:
    """Align the edges of the hair with those of the photo.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        img_size: longer side of the photo at the network's input.
        reach: radius of the filter, in pixels of the network's input.
        softness: variance of colour, in [0, 1] squared, below which a place counts as flat.

    Returns:
        float32 (H, W) in [0, 1].
    """
    radius = max(1, round(reach * max(image.shape[:2]) / img_size))
    refined = probabilities.copy(order="C")
    for rows, pixels, values in guided_filter(image, probabilities, radius, softness):
        refined[rows].reshape(-1)[pixels] = values
    return refined


def guided_filter(
    image: np.ndarray, probabilities: np.ndarray, radius: int, softness: float, cautious: bool = False
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """The guided filter (He, Sun, Tang 2010) with the photo's colours as its guide, in strips.

    Around each pixel the probabilities are fitted by a linear function of colour. These functions vary slowly: they are
    fitted on a reduced photo and enlarged ("Fast Guided Filter", He and Sun 2015, https://arxiv.org/abs/1505.00996).
    The probabilities stay as they are where all of a neighbourhood is surely hair or surely not.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        radius: of a neighbourhood, a square, in pixels.
        softness: see `refine_edges`.
        cautious: also keep the probabilities where colours hardly explain them, such as dark hair in a dark room. With
            a large radius, edges would be lost there; with a small one, masks are better without it.

    Yields:
        Rows of the photo; indices of the pixels in them that change, int32 (N,); their new values, float32 (N,) in
        [0, 1].
    """
    small = Reduction(image.shape, radius // REDUCED_RADIUS, REDUCED_PIXELS)
    radius = max(1, round(radius / small.factor))
    source = small.reduce(probabilities)
    undecided = cv2.inRange(source, DECIDED, 1 - DECIDED).astype(np.float32) / 255
    weight = np.minimum(FADE * _mean(undecided, radius), 1)
    lines, explained = _fit(small.reduce(image).astype(np.float32) / 255, source, radius, softness)
    if cautious:
        weight *= ((explained - EXPLAINED[0]) / (EXPLAINED[1] - EXPLAINED[0])).clip(0, 1)
    lines *= weight[..., None]
    lines[..., :3] /= 255  # from here on they take the photo's bytes
    near_edge = weight > 0
    for _, rows, _ in strips(image.shape, pixels=SMALL_STRIP):
        pixels = np.flatnonzero(small.repeat(near_edge, rows)).astype(np.int32)
        points, count = small.locate(rows, pixels), len(pixels)
        *slopes, values = small.enlarge(lines, points, count)
        for slope, color in zip(slopes, pick(image[rows], pixels), strict=True):
            values += slope * color
        [trust] = small.enlarge(weight, points, count)
        values += (1 - trust) * probabilities[rows].reshape(-1).take(pixels)
        yield rows, pixels, values.clip(0, 1, out=values)


def _mean(plane: np.ndarray, radius: int) -> np.ndarray:
    return cv2.blur(plane, (2 * radius + 1, 2 * radius + 1))


def _fit(guide: np.ndarray, source: np.ndarray, radius: int, softness: float) -> tuple[np.ndarray, np.ndarray]:
    """Fit `source`, float32 (h, w), by a linear function of `guide`, float32 (h, w, 3), around each pixel.

    Returns:
        Slopes and offset, float32 (h, w, 4), each averaged over all neighbourhoods that contain the pixel; and the
        fraction of the variance of `source` that colour explains, float32 (h, w) in about [0, 1].
    """
    channels = [np.ascontiguousarray(guide[..., i]) for i in range(3)]
    means, mean = [_mean(channel, radius) for channel in channels], _mean(source, radius)
    covariances = [_mean(channel * source, radius) - m * mean for channel, m in zip(channels, means, strict=True)]
    matrix = {}
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        matrix[i, j] = _mean(channels[i] * channels[j], radius) - means[i] * means[j] + softness * (i == j)
    slopes = _solve(matrix, covariances)
    offset = mean - sum(slope * m for slope, m in zip(slopes, means, strict=True))
    variance = _mean(source * source, radius) - mean * mean
    explained = sum(slope * c for slope, c in zip(slopes, covariances, strict=True)) / (variance + FLAT)
    return np.dstack([_mean(plane, radius) for plane in (*slopes, offset)]), explained


def _solve(matrix: dict[tuple[int, int], np.ndarray], vector: list[np.ndarray]) -> list[np.ndarray]:
    """Solve matrix · x = vector for each pixel by elimination. Of the symmetric 3×3 `matrix`, i <= j are given."""
    x = [plane.copy() for plane in vector]
    for i in range(3):
        for j in range(i + 1, 3):
            share = matrix[i, j] / matrix[i, i]
            x[j] -= share * x[i]
            for k in range(j, 3):
                matrix[j, k] = matrix[j, k] - share * matrix[i, k]
    for i in (2, 1, 0):
        for k in range(i + 1, 3):
            x[i] -= matrix[i, k] * x[k]
        x[i] /= matrix[i, i]
    return x

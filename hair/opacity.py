"""How much of each pixel is hair: soft edges, and single strands that are visible in the photo."""

import numpy as np

from hair.refine import guided_filter
from hair.strips import SMALL_STRIP, strips

SOFT_EDGE = 0.3  # opacity is 0 below this fraction of the threshold; the same fraction applies between 1 and threshold
STRANDS_EDGE = 0.15  # the same where the photo shows strands
REACH = 5  # how far strands are looked for, in widths of the network's edge; by benchmarks/cutout.py …
SHARPEST = 80  # … where it is steep, at this percentile: it is vague where the network is in doubt
WIDEST = 0.1  # … and at most, as a share of the hair's width: further away, clothes and faces are taken for strands
MEASURED_LINES = 512  # rows, and as many columns
SOFTNESS = 1e-4  # see `refine_edges`


def soft_edge(probabilities: np.ndarray, threshold: float, margin: float = SOFT_EDGE) -> np.ndarray:
    """Opacity uint8 (H, W) or (N,): 0 and 255 away from the hair's edge, half at `threshold`, gradual between."""
    low, high = margin * threshold, 1 - margin * (1 - threshold)
    knots, heights = [0, low, threshold, high, 1], [0, 0, 127.5, 255, 255]
    # Through a table of 1024 steps: np.interp would work in float64, eight times the memory.
    table = np.interp(np.linspace(0, 1, 1024), knots, heights).round().astype(np.uint8)
    opacity = np.empty(probabilities.shape, np.uint8)
    for _, rows, _ in strips((*probabilities.shape, 1), pixels=SMALL_STRIP):
        opacity[rows] = table.take((probabilities[rows] * 1023).astype(np.uint16))
    return opacity


def hair_opacity(image: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """How much of each pixel is hair, including single strands and gaps that the photo shows but the network blurs.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the hair is half transparent.

    Returns:
        uint8 (H, W).
    """
    opacity, radius = soft_edge(probabilities, threshold, STRANDS_EDGE), strand_reach(probabilities, threshold)
    if radius:
        for rows, pixels, values in guided_filter(image, probabilities, radius, SOFTNESS, cautious=True):
            opacity[rows].reshape(-1)[pixels] = soft_edge(values, threshold, STRANDS_EDGE)
    return opacity


def strand_reach(probabilities: np.ndarray, threshold: float) -> int:
    """How far from the hair's edge to look for strands, in pixels; 0 if there is no edge.

    Measured along some rows and columns: where the network cannot resolve single strands, its edges are soft. The
    distance is limited in proportion to the width of the hair.
    """
    rises, inside = [], 0
    for plane in (probabilities, probabilities.T):
        lines = plane[:: max(1, len(plane) // MEASURED_LINES)]
        hair = lines >= threshold
        edges = hair[:, 1:] != hair[:, :-1]
        rises.append(np.abs(lines[:, 1:][edges] - lines[:, :-1][edges]))
        inside += np.count_nonzero(hair)
    rise = np.concatenate(rises)
    if not rise.size:
        return 0
    hair_width = 2 * inside / rise.size  # a line enters the hair and leaves it
    return max(1, round(min(REACH / np.percentile(rise, SHARPEST), WIDEST * hair_width)))

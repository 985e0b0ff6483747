"""How much of each pixel is hair."""

import numpy as np

from hair.strips import SMALL_STRIP, strips

SOFT_EDGE = 0.3  # opacity reaches 0 at this share of the threshold, and 1 as near to a probability of 1


def soft_edge(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Opacity uint8 (H, W): 0 and 255 away from the hair's edge, half at `threshold`, gradual between."""
    low, high = SOFT_EDGE * threshold, 1 - SOFT_EDGE * (1 - threshold)
    knots, heights = [0, low, threshold, high, 1], [0, 0, 127.5, 255, 255]
    # Through a table of 1024 steps: np.interp would work in float64, eight times the memory.
    table = np.interp(np.linspace(0, 1, 1024), knots, heights).round().astype(np.uint8)
    opacity = np.empty(probabilities.shape, np.uint8)
    for _, rows, _ in strips(probabilities.shape, pixels=SMALL_STRIP):
        opacity[rows] = table[(probabilities[rows] * 1023).astype(np.uint16)]
    return opacity

"""From probabilities to pictures: overlay, mask, cut-out and dyed hair; refined edges."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hair.dye import Dye, recolor
from hair.opacity import soft_edge, strips
from hair.palette import draw_palette

OVERLAY_COLOR = (255, 0, 110)


@dataclass(frozen=True)
class Looks:
    """How pictures of the hair look.

    Attributes:
        threshold: probability from which a pixel is hair, 0 to 1.
        dye: of `recolor`, and how the colours of `palette` are applied.
        opacity: of the overlay's tint, 0 to 1.
    """

    threshold: float
    dye: Dye
    opacity: float = 0.45


def draw_overlay(
    image: np.ndarray, mask: np.ndarray, color: Sequence[int] = OVERLAY_COLOR, opacity: float = 0.45
) -> np.ndarray:
    """Tint the hair and draw its outline.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: bool or uint8 (H, W), non-zero where there is hair.
        color: RGB, 0 to 255.
        opacity: of the tint, 0 to 1; the outline is opaque.

    Returns:
        RGB uint8 (H, W, 3).
    """
    mask = mask.view(np.uint8) if mask.dtype == bool else mask
    overlay = image.copy()
    for _, rows, _ in strips(image.shape):
        tinted = cv2.addWeighted(image[rows], 1 - opacity, np.full_like(image[rows], color), opacity, 0)
        cv2.copyTo(tinted, mask[rows], overlay[rows])
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(image.shape[:2]) / 500))
    return cv2.drawContours(overlay, contours, -1, tuple(map(int, color)), thickness, cv2.LINE_AA)


def cut_out(image: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Cut the hair out.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the hair is half transparent.

    Returns:
        RGBA uint8 (H, W, 4), transparent where there is no hair.
    """
    return np.dstack([image, soft_edge(probabilities, threshold)])


def draw(kind: str, image: np.ndarray, probabilities: np.ndarray, looks: Looks) -> np.ndarray:
    """Draw one kind of picture.

    Args:
        kind: `overlay`, `mask`, `alpha` (the cut-out), `recolor` or `palette`.
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        looks: threshold, dye, opacity of the overlay.

    Returns:
        uint8 (H, W) for a mask, 0 or 255; RGBA (H, W, 4) for alpha; else RGB (H, W, 3).
    """
    if kind == "recolor":
        return recolor(image, probabilities, looks.threshold, looks.dye)
    if kind == "palette":
        return draw_palette(image, probabilities, looks.threshold, looks.dye)
    if kind == "alpha":
        return cut_out(image, probabilities, looks.threshold)
    mask = probabilities >= looks.threshold
    if kind == "mask":
        return mask.view(np.uint8) * np.uint8(255)
    return draw_overlay(image, mask, opacity=looks.opacity)


def refine_edges(
    image: np.ndarray, probabilities: np.ndarray, img_size: int, reach: float = 4, softness: float = 1e-3
) -> np.ndarray:
    """Align the hair's edges with the photo's by a guided filter (He, Sun, Tang 2010) on the photo's lightness.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        img_size: longer side at which the network saw the photo.
        reach: radius of the filter, in pixels that the network saw.
        softness: variance of lightness, in [0, 1] squared, below which a place counts as flat.

    Returns:
        float32 (H, W) in [0, 1].
    """
    radius = max(1, round(reach * max(image.shape[:2]) / img_size))
    window = (2 * radius + 1, 2 * radius + 1)
    refined = np.empty_like(probabilities)
    for read, write, place in strips(image.shape, overlap=2 * radius):
        guide = cv2.cvtColor(image[read], cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        source = probabilities[read]
        mean_guide, mean_source = cv2.blur(guide, window), cv2.blur(source, window)
        variance = cv2.blur(guide * guide, window) - mean_guide * mean_guide
        covariance = cv2.blur(guide * source, window) - mean_guide * mean_source
        slope = covariance / (variance + softness)
        offset = mean_source - slope * mean_guide
        refined[write] = (cv2.blur(slope, window) * guide + cv2.blur(offset, window))[place]
    return refined.clip(0, 1, out=refined)

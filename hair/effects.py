"""From probabilities to pictures: overlay, mask, cut-out and dyed hair; refined edges."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hair.colors import to_lab

STRIP = 4_000_000  # pixels; float pictures are made in strips of this size, so that a large photo needs no gigabytes
OVERLAY_COLOR = (255, 0, 110)
SOFT_EDGE = 0.3  # opacity reaches 0 at this share of the threshold, and 1 as near to a probability of 1
GAMUT_FALL_OFF = 0.75  # how fast a dye's chroma falls towards black and white; by eye, on the demo photos


@dataclass(frozen=True)
class Looks:
    """How pictures of the hair look.

    Attributes:
        threshold: probability from which a pixel is hair, 0 to 1.
        color: of the dye, RGB, 0 to 255.
        opacity: of the overlay's tint, 0 to 1.
        strength: of the dye, 0 to 1.
    """

    threshold: float
    color: tuple[int, int, int]
    opacity: float = 0.45
    strength: float = 1.0


def _strips(shape: Sequence[int], overlap: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of a picture in strips: the rows to read, the rows to write, and the latter's place within the former."""
    step = max(1, STRIP // shape[1])
    for top in range(0, shape[0], step):
        bottom = min(top + step, shape[0])
        first = max(0, top - overlap)
        yield np.s_[first : min(bottom + overlap, shape[0])], np.s_[top:bottom], np.s_[top - first : bottom - first]


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
    for _, rows, _ in _strips(image.shape):
        tinted = cv2.addWeighted(image[rows], 1 - opacity, np.full_like(image[rows], color), opacity, 0)
        cv2.copyTo(tinted, mask[rows], overlay[rows])
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(image.shape[:2]) / 500))
    return cv2.drawContours(overlay, contours, -1, tuple(map(int, color)), thickness, cv2.LINE_AA)


def soft_edge(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Opacity uint8 (H, W): 0 and 255 away from the hair's edge, half at `threshold`, gradual between."""
    low, high = SOFT_EDGE * threshold, 1 - SOFT_EDGE * (1 - threshold)
    knots, heights = [0, low, threshold, high, 1], [0, 0, 127.5, 255, 255]
    # Through a table of 1024 steps: np.interp would work in float64, eight times the memory.
    table = np.interp(np.linspace(0, 1, 1024), knots, heights).round().astype(np.uint8)
    opacity = np.empty(probabilities.shape, np.uint8)
    for _, rows, _ in _strips(probabilities.shape):
        opacity[rows] = table[(probabilities[rows] * 1023).astype(np.uint16)]
    return opacity


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


def recolor(
    image: np.ndarray, probabilities: np.ndarray, threshold: float, color: Sequence[int], strength: float = 1
) -> np.ndarray:
    """Dye the hair: its hue and chroma in CIELAB become the dye's; its lightness, and so every strand, stays.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the dye covers half.
        color: RGB, 0 to 255. Dark hair stays dark, as without bleach.
        strength: of the dye, 0 to 1.

    Returns:
        RGB uint8 (H, W, 3).
    """
    dye = to_lab(color)
    dyed = np.empty(image.shape, np.uint8)  # not empty_like, which keeps the memory order of a rotated photo
    opacity = soft_edge(probabilities, threshold)
    for _, rows, _ in _strips(image.shape):
        lab = cv2.cvtColor(image[rows].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lightness, cover = lab[..., 0], opacity[rows] * np.float32(strength / 255)
        # Near black and near white there is no room for the dye's full chroma; outside the gamut hues would shift.
        room = np.minimum(lightness / max(dye[0], 1), (100 - lightness) / max(100 - dye[0], 1))
        room = room.clip(0, 1) ** GAMUT_FALL_OFF
        for channel in (1, 2):
            lab[..., channel] += cover * (dye[channel] * room - lab[..., channel])
        dyed[rows] = (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).round().clip(0, 255).astype(np.uint8)
        cv2.copyTo(image[rows], (cover == 0).view(np.uint8), dyed[rows])  # CIELAB and back is off by one at times
    return dyed


def draw(kind: str, image: np.ndarray, probabilities: np.ndarray, looks: Looks) -> np.ndarray:
    """Draw one kind of picture.

    Args:
        kind: `overlay`, `mask`, `alpha` (the cut-out) or `recolor`.
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        looks: threshold, colour and strength of the dye, opacity of the overlay.

    Returns:
        uint8 (H, W) for a mask, 0 or 255; RGBA (H, W, 4) for alpha; else RGB (H, W, 3).
    """
    if kind == "recolor":
        return recolor(image, probabilities, looks.threshold, looks.color, looks.strength)
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
    for read, write, place in _strips(image.shape, overlap=2 * radius):
        guide = cv2.cvtColor(image[read], cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        source = probabilities[read]
        mean_guide, mean_source = cv2.blur(guide, window), cv2.blur(source, window)
        variance = cv2.blur(guide * guide, window) - mean_guide * mean_guide
        covariance = cv2.blur(guide * source, window) - mean_guide * mean_source
        slope = covariance / (variance + softness)
        offset = mean_source - slope * mean_guide
        refined[write] = (cv2.blur(slope, window) * guide + cv2.blur(offset, window))[place]
    return refined.clip(0, 1, out=refined)

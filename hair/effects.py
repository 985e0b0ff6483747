"""From probabilities to pictures: overlay, mask, cut-out and dyed hair."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hair.colors import to_lab
from hair.cutout import Background, cut_out, place_on, soft_edge
from hair.strips import strips as _strips

OVERLAY_COLOR = (255, 0, 110)
GAMUT_FALL_OFF = 0.75  # how fast a dye's chroma falls towards black and white; by eye, on the demo photos


@dataclass(frozen=True)
class Looks:
    """How pictures of the hair look.

    Attributes:
        threshold: probability from which a pixel is hair, 0 to 1.
        color: of the dye, RGB, 0 to 255.
        opacity: of the overlay's tint, 0 to 1.
        strength: of the dye, 0 to 1.
        background: of the cut-out, see `cutout.place_on`; None leaves it transparent.
    """

    threshold: float
    color: tuple[int, int, int]
    opacity: float = 0.45
    strength: float = 1.0
    background: Background | None = None


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
        looks: threshold, colour and strength of the dye, opacity of the overlay, background of the cut-out.

    Returns:
        uint8 (H, W) for a mask, 0 or 255; RGBA (H, W, 4) for alpha without a background; else
        RGB (H, W, 3).
    """
    if kind == "recolor":
        return recolor(image, probabilities, looks.threshold, looks.color, looks.strength)
    if kind == "alpha":
        cut = cut_out(image, probabilities, looks.threshold)
        return cut if looks.background is None else place_on(cut, looks.background, image)
    mask = probabilities >= looks.threshold
    if kind == "mask":
        return mask.view(np.uint8) * np.uint8(255)
    return draw_overlay(image, mask, opacity=looks.opacity)

"""Draw results from probabilities: overlay, mask, cut-out, dyed hair, and a palette of dyes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hair.colors import HAIR_COLORS, parse_color
from hair.cutout import Background, cut_out, place_on
from hair.dye import Dye, recolor
from hair.strips import strips

OVERLAY_COLOR = (255, 0, 110)
# The palette:
COLUMNS = 6
TILE = 360  # pixels: longer side of each tile
AROUND = 0.5  # margin around the hair, as a fraction of its longer side
MARGIN, LINE, FONT_SIZE = 16, 34, 20  # pixels
PAPER, INK = (255, 255, 255), (40, 40, 40)


@dataclass(frozen=True)
class Looks:
    """Settings of the results.

    Attributes:
        threshold: probability from which a pixel counts as hair, 0 to 1.
        dye: dye of `recolor`; `palette` uses its other settings with its own colours.
        opacity: opacity of the overlay's tint, 0 to 1.
        background: background of the cut-out, see `cutout.place_on`; None leaves it transparent.
    """

    threshold: float
    dye: Dye
    opacity: float = 0.45
    background: Background | None = None


def draw_overlay(
    image: np.ndarray, mask: np.ndarray, color: Sequence[int] = OVERLAY_COLOR, opacity: float = 0.45
) -> np.ndarray:
    """Tint the hair and draw its outline.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: bool or uint8 (H, W), non-zero where there is hair.
        color: RGB, 0 to 255.
        opacity: opacity of the tint, 0 to 1; the outline is opaque.

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


def draw_palette(image: np.ndarray, probabilities: np.ndarray, threshold: float, dye: Dye) -> np.ndarray:
    """Dye the hair in each colour of HAIR_COLORS.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the dye covers half of a pixel.
        dye: how the colours are applied; its own colours are not used.

    Returns:
        RGB uint8: tiles with the reduced photo around the hair, undyed and in each colour, with the names below.
    """
    image, probabilities = _around_hair(image, probabilities, threshold)
    scale = min(1, TILE / max(probabilities.shape))
    width, height = (max(1, round(n * scale)) for n in probabilities.shape[::-1])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    probabilities = cv2.resize(probabilities, (width, height), interpolation=cv2.INTER_AREA)
    pictures = {"photo": image}
    for name in HAIR_COLORS:
        # One colour each, and no highlights: a palette shows the colours themselves.
        plain = replace(dye, colors=(parse_color(name),), highlights=None)
        pictures[name] = recolor(image, probabilities, threshold, plain)
    cell = (max(width, TILE // 2) + MARGIN, height + LINE + MARGIN)  # wide enough for the longest name
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + MARGIN, rows * cell[1] + MARGIN), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for number, (name, picture) in enumerate(pictures.items()):
        left, top = number % COLUMNS * cell[0] + MARGIN, number // COLUMNS * cell[1] + MARGIN
        middle = left + (cell[0] - MARGIN) // 2
        sheet.paste(Image.fromarray(picture), (middle - width // 2, top))
        pen.text((middle, top + height + LINE // 2), name, INK, font, anchor="mm")
    return np.asarray(sheet).copy()


def _around_hair(image: np.ndarray, probabilities: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The part of the photo around its hair; the whole photo if there is none."""
    left, top, width, height = cv2.boundingRect((probabilities >= threshold).view(np.uint8))
    if not width:
        return image, probabilities
    margin = round(AROUND * max(width, height))
    part = np.s_[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin]
    return image[part], probabilities[part]


def draw(kind: str, image: np.ndarray, probabilities: np.ndarray, looks: Looks) -> np.ndarray:
    """Draw one kind of result.

    Args:
        kind: `overlay`, `mask`, `alpha` (the cut-out), `recolor` or `palette`.
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        looks: threshold, dye, opacity of the overlay, background of the cut-out.

    Returns:
        uint8 (H, W) for a mask, 0 or 255; RGBA (H, W, 4) for alpha without a background; else RGB (H, W, 3).
    """
    if kind == "recolor":
        return recolor(image, probabilities, looks.threshold, looks.dye)
    if kind == "palette":
        return draw_palette(image, probabilities, looks.threshold, looks.dye)
    if kind == "alpha":
        cut = cut_out(image, probabilities, looks.threshold)
        return cut if looks.background is None else place_on(cut, looks.background, image)
    mask = probabilities >= looks.threshold
    if kind == "mask":
        return mask.view(np.uint8) * np.uint8(255)
    return draw_overlay(image, mask, opacity=looks.opacity)

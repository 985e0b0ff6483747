"""A sheet of all hair colours on one photo."""

from dataclasses import replace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hair.colors import HAIR_COLORS, parse_color
from hair.dye import Dye, recolor

COLUMNS = 6
TILE = 360  # pixels: longer side of each picture
AROUND = 0.5  # of the hair's longer side: how much of the photo is shown around it
MARGIN, LINE, FONT_SIZE = 16, 34, 20  # pixels
PAPER, INK = (255, 255, 255), (40, 40, 40)


def draw_palette(image: np.ndarray, probabilities: np.ndarray, threshold: float, dye: Dye) -> np.ndarray:
    """Dye the hair in each colour of HAIR_COLORS.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which a dye covers half.
        dye: how the colours are applied; its own are not used.

    Returns:
        RGB uint8: the photo around its hair, reduced, as it is and once in each colour, with their names below.
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
    """The part of the photo around its hair; all of it where there is none."""
    left, top, width, height = cv2.boundingRect((probabilities >= threshold).view(np.uint8))
    if not width:
        return image, probabilities
    margin = round(AROUND * max(width, height))
    part = np.s_[max(0, top - margin) : top + height + margin, max(0, left - margin) : left + width + margin]
    return image[part], probabilities[part]

"""Hair colours and their names."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import ImageColor

from hair.errors import UserError

# Natural colours and dyes. The sRGB values are mean colours of hair in photos, not from a catalogue.
HAIR_COLORS = {
    "black": "#1c1816",
    "dark brown": "#3b2a22",
    "brown": "#5a4031",
    "light brown": "#7f6048",
    "auburn": "#6e3325",
    "copper": "#a3552f",
    "red": "#8f2a24",
    "dark blond": "#9a7f5e",
    "blond": "#c0a27a",
    "platinum": "#ddd0b8",
    "dark grey": "#504e4d",
    "grey": "#8b8987",
    "white": "#d2d0ce",
    "pink": "#c8728f",
    "purple": "#6d4580",
    "blue": "#3c5f9c",
    "green": "#4f7d52",
}


def parse_color(text: str) -> tuple[int, int, int]:
    """RGB, 0 to 255, of a hair colour, a CSS colour name or `#rrggbb`. Raises UserError."""
    try:
        color = ImageColor.getrgb(HAIR_COLORS.get(text.lower().replace("_", " "), text))[:3]
        if max(color) > 255:  # Pillow accepts rgb(300, 0, 0)
            raise ValueError(text)
    except ValueError as error:
        names = ", ".join(HAIR_COLORS)
        raise UserError(f"--color {text}: not #rrggbb, a CSS colour or one of {names}") from error
    return color


def to_lab(rgb: np.ndarray | Sequence) -> np.ndarray:
    """RGB uint8 (…, 3) to CIELAB float32: L from 0 to 100, a and b about -100 to 100."""
    flat = np.asarray(rgb, np.uint8).reshape(1, -1, 3)
    return cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(np.shape(rgb))


def color_name(rgb: Sequence[float]) -> str:
    """The name in HAIR_COLORS whose colour is nearest in CIELAB to an RGB colour, 0 to 255."""
    names = list(HAIR_COLORS)
    distances = np.linalg.norm(to_lab([parse_color(name) for name in names]) - to_lab(np.round(rgb)), axis=1)
    return names[int(distances.argmin())]

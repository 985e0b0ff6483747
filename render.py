"""Probabilities become pictures and facts: overlay, cut-out, dyed hair, polygons, colour names, sharper edges."""

import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib
from PIL import ImageColor

STRIP = 4_000_000  # pixels; float pictures are made in strips of this many, so that a large photo needs no gigabytes

# Natural colours, and dyes, by which hair is called; sRGB of mean hair in photos, not of a catalogue.
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
    """RGB, 0 to 255, of a hair colour, a CSS colour name or `#rrggbb`. Raises ValueError."""
    try:
        color = ImageColor.getrgb(HAIR_COLORS.get(text.lower().replace("_", " "), text))[:3]
        if max(color) > 255:  # Pillow takes rgb(300, 0, 0)
            raise ValueError(text)
        return color
    except ValueError as error:
        raise ValueError(f"--color {text}: neither #rrggbb, nor a CSS name, nor {', '.join(HAIR_COLORS)}") from error


def _lab(rgb: np.ndarray | Sequence) -> np.ndarray:
    """RGB uint8 (…, 3) to CIELAB float32: L from 0 to 100, a and b about -100 to 100."""
    flat = np.asarray(rgb, np.uint8).reshape(1, -1, 3)
    return cv2.cvtColor(flat.astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(np.shape(rgb))


def color_name(rgb: Sequence[float]) -> str:
    """The name in HAIR_COLORS that is nearest in CIELAB to an RGB colour, 0 to 255."""
    names = list(HAIR_COLORS)
    distances = np.linalg.norm(_lab([parse_color(name) for name in names]) - _lab(np.round(rgb)), axis=1)
    return names[int(distances.argmin())]


def _strips(shape: Sequence[int], overlap: int = 0) -> Iterator[tuple[slice, slice, slice]]:
    """Rows of a picture in strips: the rows to read, the rows to write, and the latter's place within the former."""
    step = max(1, STRIP // shape[1])
    for top in range(0, shape[0], step):
        bottom = min(top + step, shape[0])
        first = max(0, top - overlap)
        yield np.s_[first : min(bottom + overlap, shape[0])], np.s_[top:bottom], np.s_[top - first : bottom - first]


def draw_overlay(
    image: np.ndarray, mask: np.ndarray, color: Sequence[int] = (255, 0, 110), opacity: float = 0.45
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
    """Opacity uint8 (H, W): 0 and 255 away from the hair's edge, half at `threshold`, the network's doubt between."""
    low, high = 0.3 * threshold, 1 - 0.3 * (1 - threshold)
    knots, heights = [0, low, threshold, high, 1], [0, 0, 127.5, 255, 255]
    # Through a table of 1024 steps: np.interp would work in float64, eight times the memory.
    table = np.interp(np.linspace(0, 1, 1024), knots, heights).round().astype(np.uint8)
    opacity = np.empty(probabilities.shape, np.uint8)
    for _, rows, _ in _strips(probabilities.shape):
        opacity[rows] = table[(probabilities[rows] * 1023).astype(np.uint16)]
    return opacity


def cut_out(image: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """The hair on a transparent ground.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the hair is half transparent.

    Returns:
        RGBA uint8 (H, W, 4).
    """
    return np.dstack([image, soft_edge(probabilities, threshold)])


def recolor(
    image: np.ndarray, probabilities: np.ndarray, threshold: float, color: Sequence[int], strength: float = 1
) -> np.ndarray:
    """Dye the hair: its hue and chroma in CIELAB become the dye's, its lightness, and so every strand, stays.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the dye covers half.
        color: RGB, 0 to 255. Dark hair takes a light dye darkly, as it does without bleach.
        strength: of the dye, 0 to 1.

    Returns:
        RGB uint8 (H, W, 3).
    """
    dye = _lab(color)
    dyed = np.empty(image.shape, np.uint8)  # not empty_like, which turned photos would lead astray
    opacity = soft_edge(probabilities, threshold)
    for _, rows, _ in _strips(image.shape):
        lab = cv2.cvtColor(image[rows].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lightness, cover = lab[..., 0], opacity[rows] * np.float32(strength / 255)
        # Neither near black nor near white is there room for the dye's full chroma; past the gamut hues would shift.
        room = np.minimum(lightness / max(dye[0], 1), (100 - lightness) / max(100 - dye[0], 1)).clip(0, 1) ** 0.75
        for channel in (1, 2):
            lab[..., channel] += cover * (dye[channel] * room - lab[..., channel])
        dyed[rows] = (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).round().clip(0, 255).astype(np.uint8)
        cv2.copyTo(image[rows], (cover == 0).view(np.uint8), dyed[rows])  # CIELAB and back is off by one at times
    return dyed


def draw(
    kind: str,
    image: np.ndarray,
    probabilities: np.ndarray,
    threshold: float,
    color: Sequence[int],
    opacity: float = 0.45,
    strength: float = 1,
) -> np.ndarray:
    """One of the pictures, by name.

    Args:
        kind: `overlay`, `mask`, `alpha` (the cut-out) or `recolor`.
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability from which a pixel is hair.
        color, strength: see `recolor`.
        opacity: see `draw_overlay`.

    Returns:
        uint8 (H, W) for a mask, (H, W, 4) for alpha, else (H, W, 3).
    """
    if kind == "recolor":
        return recolor(image, probabilities, threshold, color, strength)
    if kind == "alpha":
        return cut_out(image, probabilities, threshold)
    mask = probabilities >= threshold
    return mask.view(np.uint8) * np.uint8(255) if kind == "mask" else draw_overlay(image, mask, opacity=opacity)


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask's pieces, whose union is the mask with gaps of one pixel closed.

    A face within hair is a hole, which lists of polygons such as COCO's cannot tell: a piece with a hole is cut in two
    through the hole's middle.

    Args:
        mask: bool or uint8 (H, W), non-zero where there is hair.

    Returns:
        float32 (points, 2) each, x and y in pixels; pixel (0, 0) covers x and y from 0 to 1.
    """
    mask = mask.view(np.uint8) if mask.dtype == bool else mask
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [contour for contour, node in zip(contours, tree[0] if contours else [], strict=True) if node[3] >= 0]
    # A hole's contour runs on the hair around it, so a hole of one pixel is three wide and its middle is inside.
    cuts = sorted({int(hole[..., 0].min() + hole[..., 0].max()) // 2 for hole in holes})
    outlines = []
    for left, right in zip([0, *cuts], [*cuts, mask.shape[1]], strict=True):
        # A corner of the pixel grid belongs to the outline's inside if one of the four pixels around it is hair: thus
        # the outline runs along the pixels' edges; through their middles it would lose half a pixel all around.
        part = cv2.copyMakeBorder(mask[:, left:right], 0, 1, 0, 1, cv2.BORDER_CONSTANT)
        corners = cv2.dilate(part, np.ones((2, 2), np.uint8), anchor=(1, 1))
        pieces, _ = cv2.findContours(corners, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for piece in pieces:
            points = cv2.approxPolyDP(piece, 0.5, closed=True).reshape(-1, 2)
            if len(points) >= 3:
                outlines.append(points.astype(np.float32) + np.array((left, 0), np.float32))
    return outlines


def coco(name: str, mask: np.ndarray) -> dict:
    """A photo's hair as a COCO data set of one image, with one annotation unless there is no hair."""
    image = {"id": 1, "file_name": name, "width": mask.shape[1], "height": mask.shape[0]}
    segmentation = [outline.ravel().tolist() for outline in polygons(mask)]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(np.count_nonzero(mask))}
    annotations = [{**annotation, "bbox": box(mask), "segmentation": segmentation}] if segmentation else []
    return {"images": [image], "categories": [{"id": 1, "name": "hair"}], "annotations": annotations}


def box(mask: np.ndarray) -> list[int] | None:
    """The smallest [x, y, width, height] that holds the mask, in pixels; None for an empty one."""
    found = cv2.boundingRect(mask.view(np.uint8) if mask.dtype == bool else mask)
    return list(found) if found[2] else None


def describe(name: str, image: np.ndarray, mask: np.ndarray) -> dict:
    """A photo's hair in numbers: its share of the frame in [0, 1], its box, its mean colour and that colour's name."""
    facts = {"file": name, "width": image.shape[1], "height": image.shape[0], "hair": round(float(mask.mean()), 4)}
    color = None
    if mask.any():
        color = [round(value) for value in cv2.mean(image, mask.view(np.uint8))[:3]]
    return {
        **facts,
        "box": box(mask),
        "color": color and "#{:02x}{:02x}{:02x}".format(*color),
        "color_name": color and color_name(color),
    }


def refine_edges(
    image: np.ndarray, probabilities: np.ndarray, img_size: int, reach: float = 4, softness: float = 1e-3
) -> np.ndarray:
    """Draw the hair's edges to the photo's own by a guided filter (He, Sun, Tang 2010) with the photo's lightness.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        img_size: longer side at which the network saw the photo.
        reach: of the filter, in pixels that the network saw.
        softness: variance of lightness, in [0, 1] squared, below which a place counts as flat.

    Returns:
        float32 (H, W) in [0, 1].
    """
    radius = max(1, round(reach * max(image.shape[:2]) / img_size))
    mean = lambda x: cv2.blur(x, (2 * radius + 1, 2 * radius + 1))
    refined = np.empty_like(probabilities)
    for read, write, place in _strips(image.shape, overlap=2 * radius):
        guide = cv2.cvtColor(image[read], cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        source = probabilities[read]
        mean_guide, mean_source = mean(guide), mean(source)
        variance = mean(guide * guide) - mean_guide * mean_guide
        slope = (mean(guide * source) - mean_guide * mean_source) / (variance + softness)
        offset = mean_source - slope * mean_guide
        refined[write] = (mean(slope) * guide + mean(offset))[place]
    return refined.clip(0, 1, out=refined)


def encode(image: np.ndarray, kind: str = ".png") -> bytes:
    """Grey, RGB or RGBA uint8 as the bytes of a PNG; RGB also as `kind`, the suffix of what OpenCV writes.

    ISA-L packs a PNG (https://www.w3.org/TR/png/) several times as fast as what OpenCV and Pillow bring along, and in
    less room (`benchmarks/inference.py`); no library puts the two together.
    """
    if kind != ".png":
        return cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    channels = image.shape[2] if image.ndim == 3 else 1
    height, width = image.shape[:2]
    rows = image.reshape(height, width * channels)
    less_above = np.full((height, 1 + width * channels), 2, np.uint8)  # a row begins with its filter: 2, what is above
    less_above[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=less_above[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in ((b"IHDR", header), (b"IDAT", isal_zlib.compress(less_above, 1)), (b"IEND", b"")):
        parts += [struct.pack(">I", len(data)), name, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))]
    return b"".join(parts)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write grey, RGB or RGBA uint8 as PNG, with a name in any script. Raises OSError."""
    write_whole(path, encode(image))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    # A full disk or Ctrl-C leaves no half picture, and two that write the same file do not meet.
    temporary = path.with_name(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        if error.errno:  # a full disk's error names no file, others the temporary one
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)

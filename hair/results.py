"""What is saved of a photo: pictures, outlines and facts as files."""

import json
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hair.colors import color_name
from hair.effects import Looks, draw
from hair.files import write_bytes, write_png
from hair.outlines import box, coco
from hair.photos import is_large, read_photo
from hair.segmenter import HairSegmenter

PICTURES = ("overlay", "mask", "alpha", "recolor", "palette")
KINDS = {**dict.fromkeys(PICTURES, "png"), "contour": "json", "json": "json"}  # kind of result to file name suffix


@dataclass(frozen=True)
class Results:
    """What to save of each photo.

    Attributes:
        kinds: of KINDS.
        looks: of the pictures.
    """

    kinds: tuple[str, ...]
    looks: Looks


def describe(name: str, image: np.ndarray, mask: np.ndarray) -> dict:
    """A photo's hair in numbers.

    Args:
        name: of the photo's file.
        image: RGB uint8 (H, W, 3).
        mask: bool (H, W).

    Returns:
        `file`, `width`, `height`, `hair` (its share of the photo in [0, 1]), `box` (see `outlines.box`), `color` (mean,
        `#rrggbb`) and `color_name`; the last three are None where there is no hair.
    """
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


def save_results(name: Path, source: str, photo: np.ndarray, probabilities: np.ndarray, results: Results) -> list[Path]:
    """Write each kind of result as `<name>_<kind>.<suffix>`.

    Args:
        name: path without ending.
        source: name of the photo's file, for the JSON files.
        photo: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        results: what to write.

    Returns:
        The files. Raises OSError.
    """
    files = []
    for kind in results.kinds:
        path = name.with_name(f"{name.name}_{kind}.{KINDS[kind]}")
        if kind in PICTURES:
            write_png(path, draw(kind, photo, probabilities, results.looks))
        else:
            mask = probabilities >= results.looks.threshold
            facts = coco(source, mask) if kind == "contour" else describe(source, photo, mask)
            text = json.dumps(facts, ensure_ascii=False) + "\n"
            write_bytes(path, text.encode(errors="backslashreplace"))  # file names may be invalid UTF-8
        files.append(path)
    return files


def segment_file(path: Path, name: Path, segmenter: HairSegmenter, results: Results, one_large: threading.Lock) -> str:
    """Segment a photo from file to files.

    Args:
        path: of the photo.
        name: of its results, see `save_results`.
        segmenter: gives the probabilities.
        results: what to write.
        one_large: held while a large photo is processed, so that threads take these in turns.

    Returns:
        A line to print. Raises OSError or UserError, which name the file.
    """
    with one_large if is_large(path) else nullcontext():
        photo = read_photo(path)
        probabilities = segmenter(photo)
        files = save_results(name, path.name, photo, probabilities, results)
        share = (probabilities >= results.looks.threshold).mean()
        return f"{path}: {share:.1%} hair -> {' '.join(map(str, files))}"

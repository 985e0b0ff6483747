"""Save the results of a photo: images, outlines and measurements."""

import json
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import cv2
import numpy as np

from hair.colors import color_name
from hair.cutout import place_on
from hair.effects import Looks, draw
from hair.errors import UserError
from hair.exif import read_exif
from hair.files import QUALITY, STANDARD_INPUT, encode_picture, write_bytes
from hair.outlines import box, coco
from hair.photos import Photo, is_large, open_photo
from hair.segmenter import HairSegmenter

PICTURES = ("overlay", "mask", "alpha", "recolor", "palette")
TEXTS = ("contour", "rle", "json")
KINDS = {**dict.fromkeys(PICTURES, "png"), **dict.fromkeys(TEXTS, "json")}  # kind of result to file name suffix
FORMATS = ("png", "jpg", "webp")
ENDINGS = (  # of all names of results, whatever the format
    *(f"_{kind}.{suffix}" for kind in PICTURES for suffix in FORMATS),
    *(f"_{kind}.json" for kind in TEXTS),
)
KEEP_TRANSPARENCY = ("alpha", "recolor")  # kinds that keep the photo's transparency
OPAQUE = (".jpg", ".jpeg")  # photos that cannot be transparent
NO_EXIF = "its EXIF cannot be read and is left out"  # a note
LONGEST_INPUT = 1 << 30  # bytes of a photo on standard input


@dataclass(frozen=True)
class Results:
    """What to save for each photo.

    Attributes:
        kinds: kinds of results, from KINDS.
        looks: settings of the effects.
        max_pixels: larger photos are processed at reduced size.
        format: image format, from FORMATS. Masks are always PNG, and transparent images are PNG or WebP.
        quality: quality of JPEG and WebP, 1 to 100.
        keep_exif: copy the photo's EXIF data to the images, see `exif.read_exif`.
    """

    kinds: tuple[str, ...]
    looks: Looks
    max_pixels: int | None = None
    format: str = "png"
    quality: int = QUALITY
    keep_exif: bool = False


def suffixes(kind: str, photo: Path, picture_format: str, has_background: bool = False) -> set[str]:
    """The suffixes that a photo's result may have, without a dot; two if it depends on the photo's transparency."""
    if kind == "mask" or kind in TEXTS:
        return {KINDS[kind]}
    if picture_format != "jpg" or kind in ("overlay", "palette") or (kind == "alpha" and has_background):
        return {picture_format}
    return {"png"} if kind == "alpha" else {"jpg"} if photo.suffix.lower() in OPAQUE else {"jpg", "png"}


def are_there(name: Path, photo: Path, kinds: Sequence[str], picture_format: str, has_background: bool = False) -> bool:
    """Whether files with the names of all results exist; `name` is their path without ending."""
    return all(
        any(_path_of(name, kind, suffix).is_file() for suffix in suffixes(kind, photo, picture_format, has_background))
        for kind in kinds
    )


def _path_of(name: Path, kind: str, suffix: str) -> Path:
    return name.with_name(f"{name.name}_{kind}.{suffix}")


def describe(name: str, image: np.ndarray, mask: np.ndarray) -> dict:
    """Measure the hair of a photo.

    Args:
        name: file name of the photo.
        image: RGB uint8 (H, W, 3).
        mask: bool (H, W).

    Returns:
        `file`, `width`, `height`, `hair` (the fraction of the photo that is hair, in [0, 1]), `box` (see
        `outlines.box`), `color` (mean, `#rrggbb`) and `color_name`; the last three are None if there is no hair.
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


def draw_photo(kind: str, photo: Photo, probabilities: np.ndarray, looks: Looks) -> np.ndarray:
    """Draw one kind of result, see `effects.draw`; cut-outs and dyed photos keep the photo's transparency."""
    if photo.alpha is None or kind not in KEEP_TRANSPARENCY:
        return draw(kind, photo.pixels, probabilities, looks)
    picture = draw(kind, photo.colors, probabilities, replace(looks, background=None))
    alpha = photo.alpha if picture.shape[2] == 3 else cv2.multiply(picture[..., 3], photo.alpha, scale=1 / 255)
    picture = np.dstack([picture[..., :3], alpha])
    if kind == "recolor" or looks.background is None:
        return picture
    return place_on(picture, looks.background, photo.pixels)


def make_result(
    kind: str, source: str, photo: Photo, probabilities: np.ndarray, results: Results, exif: bytes = b""
) -> tuple[str, bytes]:
    """Make one kind of result.

    Args:
        kind: one of KINDS.
        source: file name of the photo, for the JSON files.
        photo: the photo.
        probabilities: float32 (H, W) in [0, 1].
        results: settings of the effects, and format.
        exif: EXIF data for an image, see `files.encode_picture`.

    Returns:
        The suffix, without a dot, and the content of the file. Raises UserError for an image too large for its format.
    """
    if kind in PICTURES:
        picture = draw_photo(kind, photo, probabilities, results.looks)
        is_jpeg = results.format == "jpg"
        suffix = "png" if picture.ndim == 2 or (is_jpeg and picture.shape[2] == 4) else results.format
        return suffix, encode_picture(picture, f".{suffix}", results.quality, exif)
    mask = probabilities >= results.looks.threshold
    facts = describe(source, photo.pixels, mask) if kind == "json" else coco(source, mask, as_runs=kind == "rle")
    text = json.dumps(facts, ensure_ascii=False) + "\n"
    return KINDS[kind], text.encode(errors="backslashreplace")  # file names may be invalid UTF-8


def save_results(
    name: Path, source: str, photo: Photo, probabilities: np.ndarray, results: Results, exif: bytes = b""
) -> list[Path]:
    """Write each kind of result as `<name>_<kind>.<suffix>`.

    Args:
        name: path without ending.
        source: file name of the photo, for the JSON files.
        photo: the photo.
        probabilities: float32 (H, W) in [0, 1].
        results: what to write.
        exif: EXIF data for the images, see `files.encode_picture`.

    Returns:
        The files. Raises OSError, or UserError for an image too large for its format.
    """
    files = []
    for kind in results.kinds:
        suffix, content = make_result(kind, source, photo, probabilities, results, exif)
        files.append(_path_of(name, kind, suffix))
        write_bytes(files[-1], content)
    return files


def segment_file(path: Path, name: Path, segmenter: HairSegmenter, results: Results, one_large: threading.Lock) -> str:
    """Read a photo, segment it and write its results.

    Args:
        path: the photo, or STANDARD_INPUT.
        name: path of its results without ending.
        segmenter: computes the probabilities.
        results: what to write.
        one_large: a lock that is held while a large photo is processed, so that threads process these one at a time.

    Returns:
        A line to print. Raises OSError or UserError, which name the file.
    """
    with _as_file(path) as file, one_large if is_large(file) else nullcontext():
        photo, exif = _read(path, file, results)
        probabilities = segmenter(photo.pixels)
        files = save_results(name, file.name, photo, probabilities, results, exif)
        return f"{path}: {_share(probabilities, results)} hair -> {' '.join(map(str, files))}"


def segment_to_stream(path: Path, stream: IO[bytes], segmenter: HairSegmenter, results: Results) -> str:
    """Segment a photo and write its one kind of result to a stream. Returns and raises the same as `segment_file`."""
    with _as_file(path) as file:
        photo, exif = _read(path, file, results)
        probabilities = segmenter(photo.pixels)
        try:
            _, content = make_result(results.kinds[0], file.name, photo, probabilities, results, exif)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    stream.write(content)
    stream.flush()
    return f"{path}: {_share(probabilities, results)} hair -> standard output"


def _share(probabilities: np.ndarray, results: Results) -> str:
    return f"{(probabilities >= results.looks.threshold).mean():.1%}"


def _read(path: Path, file: Path, results: Results) -> tuple[Photo, bytes]:
    """Read the photo that the user named `path`, and the EXIF data for its results; notes are printed."""
    photo = open_photo(file, results.max_pixels)
    exif = read_exif(file) if results.keep_exif else b""
    notes = photo.notes if exif is not None else (*photo.notes, NO_EXIF)
    for note in notes:
        print(f"{path}: {note}", file=sys.stderr)
    return photo, exif or b""


@contextmanager
def _as_file(path: Path) -> Iterator[Path]:
    """The file of a path; for STANDARD_INPUT, a temporary file with its content. Errors name the path."""
    if path != STANDARD_INPUT:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stdin"
        with file.open("wb") as copy:
            while block := sys.stdin.buffer.read(1 << 20):
                copy.write(block)
                if copy.tell() > LONGEST_INPUT:
                    raise UserError(f"{path}: more than {LONGEST_INPUT >> 20} MB on standard input")
        try:
            yield file
        except (UserError, OSError) as error:
            raise UserError(str(error).replace(str(file), str(path))) from error

"""From a picture file to its pixels as stored."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from pillow_heif import HeifImage

from hair.damage import ENDS, JPEG_END, JPEG_START, PNG_START, has_all_rows, repaired, without_padding
from hair.headers import (
    HEAD,
    LONG_HEAD,
    MAX_PIXELS,
    LimitError,
    beginning,
    color_numbers,
    jpeg2000_orientation,
    jpeg2000_profile,
    open_header,
    orientation,
    reading,
)

JPEG_SCALES = (1, 2, 4, 8)  # a JPEG can be decoded at 1/scale of its size
MISSING, MISSING_TOLERANCE = 127.5, 2.5  # the grey of a JPEG's missing rows
TRAILERS = (b"MotionPhoto", b"MicroVideo")  # in JPEGs of phones that have a video behind the picture
DAMAGED = "damaged, but all of the picture is there"


@dataclass
class Stored:
    """A picture as its file stores it.

    Attributes:
        size: (width, height).
        mode: L, LA, RGB, RGBA, CMYK or LAB, as Pillow names them.
        rows: gives the rows from one number to another, uint8 or uint16 (rows, W) or (rows, W, channels).
        orientation: EXIF's, 1 to 8.
        profile: ICC profile of its colours.
        numbers: primaries and transfer function (ITU-T H.273), where the file names these instead.
        exif: EXIF data as stored; its orientation is that of the stored picture.
        scale: it was decoded at 1/scale of its size.
        notes: remarks for the user.
    """

    size: tuple[int, int]
    mode: str
    rows: Callable[[int, int], np.ndarray]
    orientation: int = 1
    profile: bytes | None = None
    numbers: tuple[int, int] | None = None
    exif: bytes | None = None
    scale: int = 1
    notes: list[str] = field(default_factory=list)


def decode(path: Path, jpeg_scale: Callable[[int, int], int] | None = None) -> Stored:
    """Decode a picture file; of animations and other sequences the first picture.

    Args:
        path: of the file.
        jpeg_scale: gives, from a JPEG's width and height as stored, the one of JPEG_SCALES that it is decoded at.

    Raises:
        FileNotFoundError: no such file.
        UserError: not a picture, damaged, cut off, or too large.
    """
    with reading(path) as stream:
        notes: list[str] = []
        try:
            picture = open_header(stream)
            if isinstance(picture, HeifImage):
                return _heif(picture)
            notes += _sequence(picture)
            scale = _load(picture, jpeg_scale)
            if not _ends_well(picture, stream):
                notes.append(DAMAGED)
        except (LimitError, MemoryError):
            raise
        except Exception:  # decoders raise many types for damaged files
            mended = _repaired(stream)
            if mended is None:
                raise
            picture = mended
            scale = _load(picture, jpeg_scale)
            notes.append(DAMAGED)
        return _stored(picture, stream, scale, notes)


def _sequence(picture: Image.Image) -> list[str]:
    """A remark where a picture is one of several. An MPO is not: that is one photo in two sizes, or for two eyes."""
    if not getattr(picture, "is_animated", False) or picture.format == "MPO":
        return []
    kind = "has more pages" if picture.format == "TIFF" else "is animated"
    return [f"{kind}; the first picture was read"]


def _load(picture: Image.Image, jpeg_scale: Callable[[int, int], int] | None) -> int:
    """Decode a picture, a JPEG at 1/scale of its size; returns the scale."""
    width, height = picture.size
    if jpeg_scale and picture.format in ("JPEG", "MPO"):
        scale = jpeg_scale(width, height)
        picture.draft(picture.mode, (max(1, width // scale), max(1, height // scale)))
    picture.load()
    return round(width / picture.width) if picture.size != (width, height) else 1


def _ends_well(picture: Image.Image, stream: IO[bytes]) -> bool:
    """Whether a decoded picture's file ends as it should. Raises ValueError where rows are missing after all."""
    end = ENDS.get(picture.format or "", b"")
    stream.seek(-len(end), os.SEEK_END)
    is_end_there = stream.read() == end
    if end != JPEG_END:
        return is_end_there
    if is_end_there:
        # The decoder fills missing rows with grey, and Pillow says nothing about it.
        corner = np.asarray(picture.crop((picture.width - 1, picture.height - 1, *picture.size)))
        is_grey = (np.abs(corner - MISSING) <= MISSING_TOLERANCE).all()
        if is_grey and picture.format != "MPO" and not has_all_rows(beginning(stream), is_quick=True):
            raise ValueError("its last rows are missing")
        return True
    data = beginning(stream)
    body = without_padding(data)
    if len(body) < len(data) and not body.endswith(JPEG_END):  # the zeros may have been taken for the last rows
        Image.open(BytesIO(body), formats=("JPEG",)).load()
    return any(trailer in data[:LONG_HEAD] for trailer in TRAILERS)


def _repaired(stream: IO[bytes]) -> Image.Image | None:
    """A damaged JPEG or PNG, opened from a whole file instead; None where that cannot be, or where rows are missing."""
    if not beginning(stream, HEAD).startswith((JPEG_START, PNG_START)):
        return None
    whole = repaired(beginning(stream), MAX_PIXELS)
    picture = open_header(BytesIO(whole)) if whole else None
    return picture if isinstance(picture, Image.Image) else None


def _stored(picture: Image.Image, stream: IO[bytes], scale: int, notes: list[str]) -> Stored:
    """A picture that Pillow has decoded."""
    mode = _plain_mode(picture)
    stored = Stored(picture.size, mode, partial(_rows, picture, mode), orientation(picture))
    stored.profile, stored.exif = picture.info.get("icc_profile"), picture.info.get("exif")
    stored.scale, stored.notes = scale, notes
    if picture.format in ("PNG", "AVIF"):
        stored.numbers = color_numbers(beginning(stream, LONG_HEAD))
    if picture.format == "PNG" and stored.numbers:  # in a PNG they count more than the profile
        stored.profile = None
    if picture.format == "JPEG2000":
        head = beginning(stream, LONG_HEAD)
        stored.profile, stored.orientation = jpeg2000_profile(head), jpeg2000_orientation(head, stream)
    return stored


def _plain_mode(picture: Image.Image) -> str:
    """The mode of Stored for one of Pillow's. Raises LimitError for pixels that are not of 8 or 16 bits."""
    if picture.mode == "F":
        raise LimitError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if picture.mode == "I":
        levels = np.asarray(picture.getextrema())
        if levels.min() < 0 or levels.max() > 65535:
            raise LimitError("its pixels are numbers of 32 bits; save it with 8 or 16")
    if picture.mode in ("CMYK", "LAB"):
        return picture.mode
    mode = "L" if picture.mode[0] in "1LI" else "RGB"
    return mode + "A" if picture.has_transparency_data else mode


def _rows(picture: Image.Image, mode: str, top: int, bottom: int) -> np.ndarray:
    """Rows of a decoded picture in a mode of Stored."""
    part = picture.crop((0, top, picture.width, bottom))
    if not picture.mode.startswith("I"):
        return np.asarray(part if part.mode == mode else part.convert(mode))
    deep = np.asarray(part).astype(np.uint16)
    if mode == "L":
        return deep
    clear = deep == picture.info["transparency"]
    return np.dstack([deep, np.where(clear, 0, 65535).astype(np.uint16)])


def _heif(picture: HeifImage) -> Stored:
    """Decode a HEIC, which libheif turns upright itself."""
    picture.load()  # its size may change
    stored = Stored(picture.size, picture.mode.replace("a", "A"), partial(_heif_rows, picture))
    nclx = picture.info.get("nclx_profile")
    if nclx:
        stored.numbers = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
    stored.profile, stored.exif = picture.info.get("icc_profile"), picture.info.get("exif")
    if picture.info["pictures"] > 1:
        stored.notes.append("holds several pictures; the main one was read")
    return stored


def _heif_rows(picture: HeifImage, top: int, bottom: int) -> np.ndarray:
    """Rows of a decoded HEIC. They lie in memory that goes with the picture, so no array may outlive it."""
    rows = np.asarray(picture)[top:bottom, : picture.size[0]]
    if not picture.mode.endswith("a"):
        return rows
    opacity = np.maximum(rows[..., -1:], 1).astype(np.float32) / 255  # the colours were multiplied by it
    return np.dstack([(rows[..., :-1] / opacity).clip(0, 255).astype(np.uint8), rows[..., -1]])

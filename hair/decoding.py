"""Decode image files to their stored pixels."""

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
MISSING, MISSING_TOLERANCE = 127.5, 2.5  # the grey with which decoders fill missing rows of a JPEG
TRAILERS = (b"MotionPhoto", b"MicroVideo")  # in JPEGs of phones that have a video appended
DAMAGED = "damaged, but the image is complete"


@dataclass
class Stored:
    """A decoded image, before rotation and colour conversion.

    Attributes:
        size: (width, height).
        mode: Pillow's mode: L, LA, RGB, RGBA, CMYK or LAB.
        rows: function (top, bottom) that returns these rows as uint8 or uint16 (rows, W) or (rows, W, channels).
        orientation: EXIF orientation, 1 to 8.
        profile: ICC profile of the colours.
        numbers: primaries and transfer function (ITU-T H.273), if the file has these instead of a profile.
        exif: EXIF data as stored; its orientation is that of the stored pixels.
        scale: the image was decoded at 1/scale of its size.
        notes: notes for the user.
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
    """Decode an image file; for animations and other sequences, the first image.

    Args:
        path: the file.
        jpeg_scale: function from the stored width and height of a JPEG to the value of JPEG_SCALES to decode it at.

    Raises:
        FileNotFoundError: no such file.
        UserError: not an image, damaged, truncated, or too large.
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
    """A note if a file contains several images. An MPO does not count: it is one photo in two sizes, or stereo."""
    if not getattr(picture, "is_animated", False) or picture.format == "MPO":
        return []
    is_tiff = picture.format == "TIFF"
    return ["has several pages; only the first was read" if is_tiff else "is animated; only the first frame was read"]


def _load(picture: Image.Image, jpeg_scale: Callable[[int, int], int] | None) -> int:
    """Decode an image, a JPEG possibly at 1/scale of its size; returns the scale."""
    width, height = picture.size
    if jpeg_scale and picture.format in ("JPEG", "MPO"):
        scale = jpeg_scale(width, height)
        picture.draft(picture.mode, (max(1, width // scale), max(1, height // scale)))
    picture.load()
    return round(width / picture.width) if picture.size != (width, height) else 1


def _ends_well(picture: Image.Image, stream: IO[bytes]) -> bool:
    """Whether the file of a decoded image has a proper end. Raises ValueError if rows are missing after all."""
    end = ENDS.get(picture.format or "", b"")
    stream.seek(-len(end), os.SEEK_END)
    is_end_there = stream.read() == end
    if end != JPEG_END:
        return is_end_there
    if is_end_there:
        # The decoder fills missing rows with grey, and Pillow does not report it.
        corner = np.asarray(picture.crop((picture.width - 1, picture.height - 1, *picture.size)))
        is_grey = (np.abs(corner - MISSING) <= MISSING_TOLERANCE).all()
        if is_grey and picture.format != "MPO" and not has_all_rows(beginning(stream), is_quick=True):
            raise ValueError("its last rows are missing")
        return True
    data = beginning(stream)
    body = without_padding(data)
    if len(body) < len(data) and not body.endswith(JPEG_END):  # the zeros may have been decoded as the last rows
        Image.open(BytesIO(body), formats=("JPEG",)).load()
    return any(trailer in data[:LONG_HEAD] for trailer in TRAILERS)


def _repaired(stream: IO[bytes]) -> Image.Image | None:
    """A damaged JPEG or PNG, opened from its repaired data; None if it cannot be repaired or rows are missing."""
    if not beginning(stream, HEAD).startswith((JPEG_START, PNG_START)):
        return None
    whole = repaired(beginning(stream), MAX_PIXELS)
    picture = open_header(BytesIO(whole)) if whole else None
    return picture if isinstance(picture, Image.Image) else None


def _stored(picture: Image.Image, stream: IO[bytes], scale: int, notes: list[str]) -> Stored:
    """The Stored of an image that Pillow has decoded."""
    mode = _plain_mode(picture)
    stored = Stored(picture.size, mode, partial(_rows, picture, mode), orientation(picture))
    stored.profile, stored.exif = picture.info.get("icc_profile"), picture.info.get("exif")
    stored.scale, stored.notes = scale, notes
    if picture.format in ("PNG", "AVIF"):
        stored.numbers = color_numbers(beginning(stream, LONG_HEAD))
    if picture.format == "PNG" and stored.numbers:  # in a PNG they take precedence over the profile
        stored.profile = None
    if picture.format == "JPEG2000":
        head = beginning(stream, LONG_HEAD)
        stored.profile, stored.orientation = jpeg2000_profile(head), jpeg2000_orientation(head, stream)
    return stored


def _plain_mode(picture: Image.Image) -> str:
    """The mode of Stored for a Pillow image. Raises LimitError if its pixels do not fit 8 or 16 bits."""
    if picture.mode == "F":
        raise LimitError("it has floating-point pixels; save it with 8 or 16 bits per channel")
    if picture.mode == "I":
        levels = np.asarray(picture.getextrema())
        if levels.min() < 0 or levels.max() > 65535:
            raise LimitError("it has 32 bits per channel; save it with 8 or 16")
    if picture.mode in ("CMYK", "LAB"):
        return picture.mode
    mode = "L" if picture.mode[0] in "1LI" else "RGB"
    return mode + "A" if picture.has_transparency_data else mode


def _rows(picture: Image.Image, mode: str, top: int, bottom: int) -> np.ndarray:
    """Rows of a decoded image in a mode of Stored."""
    part = picture.crop((0, top, picture.width, bottom))
    if not picture.mode.startswith("I"):
        return np.asarray(part if part.mode == mode else part.convert(mode))
    deep = np.asarray(part).astype(np.uint16)
    if mode == "L":
        return deep
    clear = deep == picture.info["transparency"]
    return np.dstack([deep, np.where(clear, 0, 65535).astype(np.uint16)])


def _heif(picture: HeifImage) -> Stored:
    """Decode a HEIC. libheif already rotates it upright."""
    picture.load()  # its size may change
    stored = Stored(picture.size, picture.mode.replace("a", "A"), partial(_heif_rows, picture))
    nclx = picture.info.get("nclx_profile")
    if nclx:
        stored.numbers = int(nclx["color_primaries"]), int(nclx["transfer_characteristics"])
    stored.profile, stored.exif = picture.info.get("icc_profile"), picture.info.get("exif")
    if picture.info["pictures"] > 1:
        stored.notes.append("contains several images; only the main one was read")
    return stored


def _heif_rows(picture: HeifImage, top: int, bottom: int) -> np.ndarray:
    """Rows of a decoded HEIC. The memory belongs to `picture`, so the array must not outlive it."""
    rows = np.asarray(picture)[top:bottom, : picture.size[0]]
    if not picture.mode.endswith("a"):
        return rows
    opacity = np.maximum(rows[..., -1:], 1).astype(np.float32) / 255  # the colours are premultiplied
    return np.dstack([(rows[..., :-1] / opacity).clip(0, 255).astype(np.uint8), rows[..., -1]])

"""EXIF data for results: that of the photo, without location and serial numbers."""

import struct
from pathlib import Path

from PIL import ExifTags, Image

from hair.errors import UserError
from hair.files import EXIF_START
from hair.headers import open_header, reading

Tag = ExifTags.Base
# An allowlist, because camera makers invent fields that contain a location or a serial number. Artist and Copyright
# are meant for people who see the photo. Sizes and thumbnails would be wrong in the results.
KEPT = {Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Software, Tag.DateTime, Tag.Artist, Tag.Copyright}
KEPT_BY_CAMERA = {
    Tag.DateTimeOriginal,
    Tag.DateTimeDigitized,
    Tag.SubsecTime,
    Tag.SubsecTimeOriginal,
    Tag.SubsecTimeDigitized,
    Tag.OffsetTime,
    Tag.OffsetTimeOriginal,
    Tag.OffsetTimeDigitized,
    Tag.ExifVersion,
    Tag.ExposureTime,
    Tag.FNumber,
    Tag.ExposureProgram,
    Tag.ISOSpeedRatings,
    Tag.SensitivityType,
    Tag.RecommendedExposureIndex,
    Tag.ShutterSpeedValue,
    Tag.ApertureValue,
    Tag.BrightnessValue,
    Tag.ExposureBiasValue,
    Tag.MaxApertureValue,
    Tag.SubjectDistance,
    Tag.MeteringMode,
    Tag.LightSource,
    Tag.Flash,
    Tag.FocalLength,
    Tag.FocalLengthIn35mmFilm,
    Tag.SensingMethod,
    Tag.CustomRendered,
    Tag.ExposureMode,
    Tag.WhiteBalance,
    Tag.DigitalZoomRatio,
    Tag.SceneCaptureType,
    Tag.GainControl,
    Tag.Contrast,
    Tag.Saturation,
    Tag.Sharpness,
    Tag.SubjectDistanceRange,
    Tag.LensSpecification,
    Tag.LensMake,
    Tag.LensModel,
}
LONGEST = 2000  # bytes of a value; a JPEG allows 64 KB in total
UPRIGHT, SRGB = 1, 1  # values of Orientation and ColorSpace


def read_exif(path: Path) -> bytes | None:
    """The part of a photo's EXIF data that is copied to results.

    The location, serial numbers, the name of the camera's owner, maker notes, comments of programs, the thumbnail and
    everything else that is not in KEPT and KEPT_BY_CAMERA are left out. The orientation is set to upright and the
    colour space to sRGB, like those of the results.

    Returns:
        EXIF as TIFF, beginning with its byte order; empty if there is none, None if it cannot be read.
    """
    try:
        with reading(path) as stream:
            picture = open_header(stream)
            source = Image.Exif()
            if isinstance(picture, Image.Image):
                source = picture.getexif()
            else:  # HEIC
                source.load(picture.info.get("exif") or b"")
            camera = source.get_ifd(ExifTags.IFD.Exif)
            exif = Image.Exif()
            exif.update({tag: value for tag, value in source.items() if tag in KEPT and _is_short(value)})
            kept = {tag: value for tag, value in camera.items() if tag in KEPT_BY_CAMERA and _is_short(value)}
            if not exif and not kept:
                return b""
            exif[Tag.Orientation] = UPRIGHT
            exif[ExifTags.IFD.Exif] = {**kept, Tag.ColorSpace: SRGB}
            return exif.tobytes().removeprefix(EXIF_START)
    # Pillow raises these for damaged EXIF data, or for values whose type does not match their tag.
    except (UserError, OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, AttributeError, struct.error):
        return None


def _is_short(value: object) -> bool:
    return not isinstance(value, str | bytes | tuple) or len(value) <= LONGEST

"""EXIF of results tells about the picture, not about its owner."""

import struct
from io import BytesIO
from pathlib import Path

import pillow_heif
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from hair.exif import read_exif
from tests.pictures import PHOTO, encoded

Tag = ExifTags.Base
SECRET = "secret-4711"
PLACE = {1: "N", 2: (37.0, 33.0, 58.0), 3: "E", 4: (126.0, 58.0, 41.0), 29: "2026:11:28"}


def full_exif() -> Image.Exif:
    """EXIF as a camera writes it, with much that is nobody's business."""
    exif = Image.Exif()
    exif.update({Tag.Make: "Maker", Tag.Model: "M 1", Tag.Orientation: 6, Tag.DateTime: "2026:11:28 18:00:00"})
    exif.update({Tag.Copyright: "(c) me", Tag.HostComputer: SECRET, Tag.XPAuthor: SECRET.encode("utf-16-le")})
    exif.update({Tag.CameraSerialNumber: SECRET, Tag.XMLPacket: SECRET.encode(), 0xFDE8: SECRET})
    exif[ExifTags.IFD.GPSInfo] = PLACE
    exif[ExifTags.IFD.Exif] = {
        **{Tag.BodySerialNumber: SECRET, Tag.LensSerialNumber: SECRET, Tag.CameraOwnerName: SECRET},
        **{Tag.ImageUniqueID: SECRET, Tag.MakerNote: SECRET.encode(), Tag.UserComment: SECRET.encode()},
        **{Tag.DateTimeOriginal: "2026:11:28 18:00:00", Tag.LensModel: "50 mm", Tag.ISOSpeedRatings: 400},
        **{Tag.ExposureTime: TiffImagePlugin.IFDRational(1, 250), Tag.ExifImageWidth: 60, Tag.ColorSpace: 65535},
    }
    return exif


def loaded(data: bytes | None) -> tuple[dict, dict]:
    assert data is not None
    exif = Image.Exif()
    exif.load(data)
    return dict(exif), dict(exif.get_ifd(ExifTags.IFD.Exif))


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's; hair.photos silences them


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_without_place_serial_numbers_and_owner(tmp_path: Path, kind: str) -> None:
    if kind == "HEIF":
        pillow_heif.from_pillow(Image.fromarray(PHOTO)).save(tmp_path / "me", exif=full_exif().tobytes())
    else:
        (tmp_path / "me").write_bytes(encoded(Image.fromarray(PHOTO), kind, exif=full_exif().tobytes()))
    data = read_exif(tmp_path / "me")
    first, camera = loaded(data)
    expected = {Tag.Make: "Maker", Tag.Model: "M 1", Tag.DateTime: "2026:11:28 18:00:00", Tag.Copyright: "(c) me"}
    assert {tag: first[tag] for tag in expected} == expected
    assert set(first) - set(expected) == {Tag.Orientation, Tag.ExifOffset} and first[Tag.Orientation] == 1
    assert camera.pop(Tag.ExposureTime) == 1 / 250
    assert camera == {
        **{Tag.DateTimeOriginal: "2026:11:28 18:00:00", Tag.LensModel: "50 mm", Tag.ISOSpeedRatings: 400},
        Tag.ColorSpace: 1,
    }
    assert SECRET.encode() not in data and SECRET.encode("utf-16-le") not in data


def test_the_thumbnail_is_left_out(tmp_path: Path) -> None:
    thumbnail = encoded(Image.fromarray(PHOTO), "JPEG")
    first = struct.pack("<HHHI4sI", 1, Tag.Make, 2, 4, b"Mkr", 26)  # one entry, and where the next directory is
    second = struct.pack("<H HHII HHII I", 2, Tag.JpegIFOffset, 4, 1, 56, Tag.JpegIFByteCount, 4, 1, len(thumbnail), 0)
    data = b"Exif\0\0II*\0" + struct.pack("<I", 8) + first + second + thumbnail
    assert data[6 + 56 :] == thumbnail
    (tmp_path / "me.jpg").write_bytes(encoded(Image.fromarray(PHOTO), "JPEG", exif=data))
    kept = read_exif(tmp_path / "me.jpg")
    assert loaded(kept)[0][Tag.Make] == "Mkr"
    assert thumbnail[:20] not in kept and len(kept) < 200


def test_no_exif_and_broken_exif(tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(Image.fromarray(PHOTO), "PNG"))
    assert read_exif(tmp_path / "plain.png") == b""
    whole = full_exif().tobytes()
    for length in range(6, len(whole), 7):
        for data in (whole[:length], whole[:length] + b"\xff" * 40):
            (tmp_path / "broken.jpg").write_bytes(encoded(Image.fromarray(PHOTO), "JPEG", exif=data))
            kept = read_exif(tmp_path / "broken.jpg")
            assert kept is None or SECRET.encode() not in kept


def test_long_values_are_left_out(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.update({Tag.ImageDescription: "x" * 50_000, Tag.Model: "M 1"})
    (tmp_path / "me.png").write_bytes(encoded(Image.fromarray(PHOTO), "PNG", exif=exif))
    first, _ = loaded(read_exif(tmp_path / "me.png"))
    assert Tag.ImageDescription not in first and first[Tag.Model] == "M 1"
    assert Image.open(BytesIO((tmp_path / "me.png").read_bytes())).getexif()[Tag.Model] == "M 1"

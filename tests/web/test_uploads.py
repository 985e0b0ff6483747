"""What visitors upload: photos, and zip files of photos."""

import struct
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.hair import reading_files as drawn
from tests.web.conftest import DEMO, put, segment_batch
from web.uploads import MAX_DIRECTORY, MAX_PIXELS, check_size, read_upload, unpack
from web.visitors import UserMessage


def zipped(path: Path, **photos: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in photos.items():
            archive.writestr(f"{name}.jpg", data)
    return path


def test_several_zips(tmp_path):
    zips = [zipped(tmp_path / f"{name}.zip", same=name.encode(), other=b"") for name in ("one", "two")]
    photos, problems = unpack(zips, tmp_path)
    assert [photo.name for photo in photos] == ["same.jpg", "other.jpg"] * 2
    assert [photo.read_bytes() for photo in photos[::2]] == [b"one", b"two"]
    assert not problems


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_loses_no_good_photo(tmp_path, how):
    for number in range(2):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w", how) as archive:
            archive.writestr("bad.jpg", bytes(range(256)) * 100)
            begin = archive.fp.tell()
            archive.writestr("x" * 300 + ".jpg", b"photo")
            if number:
                archive.writestr("good.jpg", b"photo")
        data = bytearray((tmp_path / f"{number}.zip").read_bytes())
        data[42:begin] = b"\xff" * (begin - 42)
        (tmp_path / f"{number}.zip").write_bytes(data)
    zips = [tmp_path / "0.zip", zipped(tmp_path / "whole.zip", whole=b"photo"), tmp_path / "1.zip"]
    photos, problems = unpack(zips, tmp_path)
    assert [photo.name for photo in photos] == ["whole.jpg", "good.jpg"]
    assert [(one.key, one.facts["name"]) for one in problems] == [
        ("bad_zip", "0.zip"),
        ("unreadable", "bad.jpg"),
        ("unreadable", "x" * 300 + ".jpg"),
    ]


def test_too_many_photos_in_a_zip_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("web.uploads.MAX_PHOTOS", 2)
    for count, told in ((2, []), (3, ["too_many"])):
        path = zipped(tmp_path / f"{count}.zip", **{f"photo{number}": b"" for number in range(count)})
        photos, problems = unpack([path], tmp_path)
        assert len(photos) == 2
        assert [one.key for one in problems] == told


def test_what_is_no_photo_in_a_zip_is_counted(events, tmp_path):
    with zipfile.ZipFile(tmp_path / "phone.zip", "w") as archive:
        for name, kind in (("IMG_0001.HEIC", "HEIF"), ("b.avif", "AVIF"), ("c.JFIF", "JPEG"), ("d.gif", "GIF")):
            archive.writestr(f"holiday/{name}", drawn.encoded(drawn.PHOTO, kind))
        for name in ("clip.MOV", "more/clip.mov", "notes.txt", "inner.zip", "holiday/Thumbs.db", "holiday/.hidden"):
            archive.writestr(name, b"")
        archive.writestr("__MACOSX/holiday/._IMG_0001.HEIC", b"")
    said = segment_batch(events, [put(events, tmp_path / "phone.zip")])
    assert "Photos processed: 4" in said
    assert "Files in the ZIP that are not photos and were skipped: 4 (2 .mov, 1 .txt, 1 .zip)." in said
    assert said.count("alert") == 2  # one line, of a class and a role


def test_remarks_on_photos_of_a_batch_are_told(events, tmp_path):
    (tmp_path / "a.jpg").write_bytes(DEMO.read_bytes()[:-2])
    said = segment_batch(events, [put(events, tmp_path / "a.jpg")])
    assert "Photos processed: 1" in said and "a.jpg: damaged, but the image is complete" in said


def test_a_zip_with_a_long_list_of_files(tmp_path, monkeypatch):
    """zipfile reads the list whole, before anything can be counted."""
    path = zipped(tmp_path / "many.zip", **{f"photo{number}": b"" for number in range(300)})
    size = struct.unpack("<I", path.read_bytes()[-10:-6])[0]
    for most, told in ((size, []), (size - 1, ["bad_zip"])):
        monkeypatch.setattr("web.uploads.MAX_DIRECTORY", most)
        assert [one.key for one in unpack([path], tmp_path)[1]] == told
    with_comment = path.read_bytes()[:-2] + b"\x05\0words"
    monkeypatch.setattr("web.uploads.MAX_DIRECTORY", size)
    (tmp_path / "comment.zip").write_bytes(with_comment)
    assert len(unpack([tmp_path / "comment.zip"], tmp_path)[0]) == 300
    zip64 = path.read_bytes()[:-22] + b"PK\6\7" + bytes(16) + path.read_bytes()[-22:]
    for name, data in (("64.zip", zip64), ("cut.zip", path.read_bytes()[:-30]), ("empty.zip", b"")):
        (tmp_path / name).write_bytes(data)
        assert [one.key for one in unpack([tmp_path / name], tmp_path)[1]] == ["bad_zip"], name
    assert MAX_DIRECTORY < 2**24


def test_a_zip_that_unpacks_to_more_than_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr("web.uploads.MAX_UNPACKED", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("small.jpg", bytes(5_000))
        archive.writestr("large.jpg", bytes(6_000))
    photos, problems = unpack([tmp_path / "bomb.zip"], tmp_path)
    assert [photo.name for photo in photos] == ["small.jpg"]
    assert [one.key for one in problems] == ["too_many"]


# ---------------------------------------------------------------------------------------------------- photos


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [
        (5712, 4284, None),  # a telephone's 24 megapixels
        (8160, 6120, None),  # 50
        (8192, 6144, None),  # 50 of another maker
        (8500, 6000, None),  # the limit
        (8501, 6000, "the photo has 51.1 megapixels; the limit is 51."),
        (16320, 12240, "the photo has 199.8 megapixels; the limit is 51."),
        (40000, 40000, "the photo has 1600 megapixels; the limit is 51."),
    ],
)
@pytest.mark.parametrize("is_damaged", [False, True])
def test_the_limit_of_megapixels_is_true(tmp_path, width, height, said, is_damaged):
    path = tmp_path / "a.png"
    damaged = drawn.chunk(b"pHYs", bytes(9), checksum=1)  # which Pillow refuses, and `decode` would repair
    path.write_bytes(drawn.png_header(width, height) + (damaged if is_damaged else b"") + drawn.chunk(b"IDAT", b""))
    if said is None:
        assert check_size(path) == width * height <= MAX_PIXELS
    else:
        with pytest.raises(UserMessage) as error:
            check_size(path)
        assert error.value.text("en") == f"a.png: {said}"
        assert "51메가픽셀" in error.value.text("ko")


def test_a_file_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr("web.uploads.MAX_BYTES", 1000)
    (tmp_path / "a.jpg").write_bytes(DEMO.read_bytes())
    with pytest.raises(UserMessage, match="big_file"):
        read_upload(tmp_path / "a.jpg")


def test_what_is_said_of_files_that_are_not_read(tmp_path):
    photo = drawn.encoded(drawn.PHOTO, "JPEG")
    files = {
        "text.jpg": (b"text", "unreadable"),
        "empty.jpg": (b"", "unreadable"),
        "drawing.png": (b"<svg/>", "unreadable"),
        "cut.jpg": (photo[: len(photo) // 2], "damaged"),
        "cut.png": (drawn.encoded(drawn.PHOTO, "PNG")[:200], "damaged"),
        "floating.tif": (drawn.encoded(Image.new("F", (9, 9)), "TIFF"), "damaged"),
    }
    for name, (data, key) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserMessage) as error:
            read_upload(tmp_path / name)
        assert (error.value.key, error.value.facts) == (key, {"name": name})
    with pytest.raises(UserMessage, match="unreadable"):
        read_upload(tmp_path / "gone.jpg")

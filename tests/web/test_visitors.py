"""What visitors upload, and what is kept for them."""

import shutil
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.web.conftest import DEMO, VISITOR, Blind, put
from web.page import session_of
from web.visitors import unpack


def zipped(path: Path, **photos: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in photos.items():
            archive.writestr(f"{name}.jpg", data)
    return path


def test_only_uploads_are_deleted(events, tmp_path):
    mine = Path(shutil.copy(DEMO, tmp_path / "mine.jpg"))
    folder = events.inbox / "folder"
    folder.mkdir()
    for path in (mine, events.inbox / ".." / ".." / "mine.jpg", folder, events.inbox):
        events.note_uploads(str(path), VISITOR)
    upload = put(events, DEMO)
    events.note_uploads([str(upload)], VISITOR)
    events.forget(VISITOR)
    assert mine.is_file() and folder.is_dir()
    assert not upload.exists()


def test_the_prediction_of_who_left_while_the_network_ran_is_not_kept(events):
    session = session_of(VISITOR)
    kept = events.predict(session, DEMO, "auto")
    assert events.store.by_token(kept.token) is kept
    events.segmenter = {"auto": Blind(meanwhile=lambda: events.forget(VISITOR))}.get
    late = events.predict(session, ROOT / "demo" / "2.jpg", "auto")
    assert events.store.by_token(late.token) is None


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
    monkeypatch.setattr("web.visitors.MAX_PHOTOS", 2)
    for count, told in ((2, []), (3, ["too_many"])):
        path = zipped(tmp_path / f"{count}.zip", **{f"photo{number}": b"" for number in range(count)})
        photos, problems = unpack([path], tmp_path)
        assert len(photos) == 2
        assert [one.key for one in problems] == told

"""Photos in every form are read right or refused in one line, and found where they lie."""

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hair import UserError, read_photo
from hair.files import encode_picture
from hair.photos import find_inputs, find_photos
from tests.pictures import BAD, FUZZ, GOOD, SEEDS, STARTS, become_nobody, edits, spoiled, write
from tools.make_sample import draw_head


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_formats_and_modes(tmp_path: Path, head: np.ndarray, suffix: str, mode: str) -> None:
    path = tmp_path / f"머리 ü{suffix}"
    picture = Image.fromarray(head).convert(mode)
    try:
        picture.save(path, quality=98, lossless=True)
    except (OSError, ValueError):
        pytest.skip(f"there is no {mode} in {suffix}")
    expected = np.asarray(picture.convert("RGB"))
    assert np.abs(read_photo(path).astype(int) - expected).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits(tmp_path: Path, head: np.ndarray, suffix: str, grey: bool) -> None:
    head = head[..., 1] if grey else head
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), head.astype(np.uint16) * 257 if grey else head[..., ::-1].astype(np.uint16) * 257)
    expected = np.repeat(head[..., None], 3, axis=2) if grey else head
    assert np.abs(read_photo(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    photo = draw_head(np.random.default_rng(0), 96)[0][:, :64]
    # How a camera stores the upright photo, for each value of EXIF's orientation.
    stored = {
        1: photo,
        2: photo[:, ::-1],
        3: photo[::-1, ::-1],
        4: photo[::-1],
        5: photo.transpose(1, 0, 2),
        6: photo.transpose(1, 0, 2)[::-1],
        7: photo.transpose(1, 0, 2)[::-1, ::-1],
        8: photo.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=98)
    read = read_photo(path)
    assert read.shape == photo.shape
    assert np.abs(read.astype(int) - photo).mean() < 6


def test_16_bits_with_transparency_keep_their_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 120 * 257, np.uint16)).save(tmp_path / "deep.png", transparency=7)
    assert np.abs(read_photo(str(tmp_path / "deep.png")).astype(int) - 120).max() <= 1


def test_transparent_becomes_white(tmp_path: Path, head: np.ndarray) -> None:
    Image.fromarray(np.dstack([head, np.zeros(head.shape[:2], np.uint8)])).save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png") == 255).all()


# ---------------------------------------------------------------------------------------------------- bad files


def test_unreadable_photos(tmp_path: Path, head: np.ndarray, capfd: pytest.CaptureFixture) -> None:
    whole = cv2.imencode(".jpg", head)[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("cut.jpg", "empty.jpg", "text.png"):
        with pytest.raises(UserError, match=name):
            read_photo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        read_photo(tmp_path / "none.jpg")
    picture = encode_picture(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes(picture[: len(picture) // 2])
    capfd.readouterr()
    with pytest.raises(UserError, match=r"cut\.png: cannot be read as a photo \(.*truncated"):
        read_photo(tmp_path / "cut.png")
    assert capfd.readouterr().err == "", "libpng would add a line of its own"
    Image.new("RGB", (1_100_000, 1)).save(tmp_path / "long.tif")  # OpenCV raises, where for others it returns nothing
    with pytest.raises(UserError, match=r"long\.tif: cannot be read as a photo"):
        read_photo(tmp_path / "long.tif")


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    (path,) = write(tmp_path, {name: BAD[name]})
    with pytest.raises(UserError) as error:
        read_photo(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    # The header of a PNG of 20,000 × 20,000 pixels, and no pixels: decoding it would fail in another way.
    picture = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + picture[24:29]
    (tmp_path / "huge.png").write_bytes(picture[:12] + header + zlib.crc32(header).to_bytes(4, "big") + picture[33:])
    with pytest.raises(UserError, match="megapixels"):
        read_photo(tmp_path / "huge.png")


def test_a_photo_without_permission_is_named(nobody: Path) -> None:
    (path,) = write(nobody, {"shut.jpg": GOOD["png.jpg"]})
    path.chmod(0)
    become_nobody()
    with pytest.raises(UserError, match=r"shut\.jpg: .*Permission denied"):
        read_photo(path)


def read_or_refuse(path: Path) -> None:
    """Reading gives a photo or an error of one line that names the file."""
    try:
        photo = read_photo(path)
    except (FileNotFoundError, UserError) as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3 and photo.size


@FUZZ
@given(seed=st.sampled_from(SEEDS), changes=edits)
def test_spoiled_pictures(tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.jpg"
    path.write_bytes(spoiled(seed, changes))
    read_or_refuse(path)


@FUZZ
@given(start=st.sampled_from(STARTS), data=st.binary(max_size=200))
def test_random_bytes_are_no_pictures(tmp_path_factory: pytest.TempPathFactory, start: bytes, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.png"
    path.write_bytes(start + data)
    read_or_refuse(path)


# ---------------------------------------------------------------------------------------------------- finding photos


def test_find_photos(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "result").mkdir()
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "result/a_mask.png", ".hidden.jpg"):
        (tmp_path / name).touch()

    def names(path: Path, **options: object) -> list[str]:
        return [photo.relative_to(tmp_path).as_posix() for photo in find_photos([path], **options)]

    results = tmp_path / "result"
    assert names(tmp_path) == ["a.PNG", "b.jpg"]
    assert names(tmp_path, recursive=True, leave_out=results) == ["a.PNG", "b.jpg", "deep/c.webp"]
    assert names(tmp_path / "*.jpg") == ["b.jpg"]
    assert names(tmp_path / "d*") == ["deep/c.webp"]  # as a shell would have it
    assert names(tmp_path / "**" / "*.[pw]*", leave_out=results) == ["deep/c.webp"]
    for explicit in (results, results / "*.png"):
        assert names(explicit, leave_out=results) == ["result/a_mask.png"]
    for above in (tmp_path, tmp_path.parent):  # results beside the photos or further up hide none
        assert len(names(tmp_path / "deep", leave_out=above)) == 1
    with pytest.raises(FileNotFoundError, match="matches"):
        names(tmp_path / "*.bmp")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no photos"):
        names(tmp_path / "empty")


def test_what_is_not_found_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    inputs = [tmp_path / name for name in ("*.bmp", "a.jpg", "*.jpg", "none.jpg")]
    files, missing = find_inputs(inputs, False, tmp_path / "result")
    assert files == [tmp_path / "a.jpg", tmp_path / "none.jpg"]  # a missing file is reported when it is opened
    assert missing == [f"{tmp_path / '*.bmp'}: nothing matches"]

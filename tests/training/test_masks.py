"""Mask files in every form, and whether a picture file is complete: the right answer or one clear line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hair import UserError, read_photo
from tests.pictures import (
    FUZZ,
    GOOD,
    HAIR,
    PHOTO,
    SEEDS,
    SIZE,
    STARTS,
    agreement,
    become_nobody,
    edits,
    spoiled,
    write,
    write_picture,
)
from training.masks import check_picture, read_mask


def test_jpeg_masks_and_masks_of_zero_and_one_are_read(tmp_path: Path) -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 1
    write_picture(tmp_path / "one.png", mask)
    write_picture(tmp_path / "lossy.jpg", mask * 255)
    for name in ("one.png", "lossy.jpg"):
        np.testing.assert_array_equal(read_mask(tmp_path / name, (64, 64)), mask)


def test_transparent_parts_of_a_mask_are_not_hair(tmp_path: Path) -> None:
    mask = np.full((64, 64, 4), 255, np.uint8)  # as painted on a layer of its own
    mask[:, :32, 3] = 0
    write_picture(tmp_path / "layer.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "layer.png", (64, 64)), mask[..., 3] // 255)


def test_an_empty_mask_stays_empty_and_a_mask_of_other_proportions_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "empty.png", np.zeros((32, 32), np.uint8))
    assert not read_mask(tmp_path / "empty.png", (64, 64)).any()
    with pytest.raises(UserError, match=r"empty\.png: the mask is 32×32, but its photo is 64×128"):
        read_mask(tmp_path / "empty.png", (128, 64))


@pytest.mark.parametrize("value", [2, 38, 127])
def test_a_mask_of_class_numbers_is_not_taken_for_bald(tmp_path: Path, value: int) -> None:
    Image.fromarray(HAIR.astype(np.uint8) * value).save(tmp_path / "classes.png")
    with pytest.raises(UserError, match=rf"classes\.png: its brightest pixel is {value}, but hair is above 127"):
        read_mask(tmp_path / "classes.png", SIZE)


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB"])
def test_hair_is_told_by_its_class_number(tmp_path: Path, mode: str) -> None:
    """As LaPa's and CIHP's masks have it; a palette's colours mean nothing."""
    classes = np.where(HAIR, 10, np.arange(SIZE[1]) % 10).astype(np.uint8)
    classes[:3] = 255  # often stands for pixels that nobody has labelled
    picture = Image.fromarray(classes.astype(np.uint16) if mode == "I;16" else classes)
    if mode == "P":
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    (picture.convert("RGB") if mode == "RGB" else picture).save(tmp_path / "classes.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "classes.png", SIZE, (10,)), HAIR)
    np.testing.assert_array_equal(read_mask(tmp_path / "classes.png", SIZE, (10, 3, 11)), HAIR | (classes == 3))
    twice = read_mask(tmp_path / "classes.png", (2 * SIZE[0], 2 * SIZE[1]), (10,))
    assert agreement(twice[::2, ::2] > 0) > 0.9


def test_masks_of_black_and_white_need_no_class_number(tmp_path: Path) -> None:
    for name in ("white.png", "white.jpg"):
        Image.fromarray(HAIR.astype(np.uint8) * 255).save(tmp_path / name)
        assert agreement(read_mask(tmp_path / name, SIZE, (10,)) > 0) > 0.99
    Image.fromarray(PHOTO).save(tmp_path / "colour.png")
    with pytest.raises(UserError, match=r"colour\.png: is in colour"):
        read_mask(tmp_path / "colour.png", SIZE, (10,))


def test_a_jpeg_cut_off_is_found_and_one_with_a_tail_is_fine(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    path = tmp_path / "photo.jpg"
    write_picture(path, noise)
    whole = path.read_bytes()
    path.write_bytes(whole + b"maker's notes")
    assert check_picture(path) == (64, 80)
    path.write_bytes(whole[:-300])
    with pytest.raises(UserError, match=r"photo\.jpg: cannot be read as a photo"):
        check_picture(path)


def test_lying_photos_are_read_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[274] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_photo(tmp_path / "turned.jpg").shape == (40, 20, 3)
    assert check_picture(tmp_path / "turned.jpg") == (40, 20)


def test_masks_and_photos_without_permission_are_named(nobody: Path) -> None:
    write(nobody, {"shut.jpg": GOOD["png.jpg"]})
    (nobody / "shut.jpg").chmod(0)
    become_nobody()
    for read in (check_picture, lambda path: read_mask(path, SIZE)):
        with pytest.raises(UserError, match=r"shut\.jpg: .*Permission denied"):
            read(nobody / "shut.jpg")


# ---------------------------------------------------------------------------------------------------- fuzzed files
# tests/hair/test_photos.py does the same to `read_photo`.


def read_both(path: Path) -> None:
    """Either function gives its own form of result, or an error of one line."""
    for read in (check_picture, lambda path: read_mask(path, SIZE)):
        try:
            result = read(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            continue
        if isinstance(result, tuple):
            assert all(side >= 1 for side in result)
        else:
            assert result.shape == SIZE and result.dtype == np.uint8 and result.max() <= 1


@FUZZ
@given(seed=st.sampled_from(SEEDS), changes=edits)
def test_spoiled_pictures(tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.jpg"
    path.write_bytes(spoiled(seed, changes))
    read_both(path)


@FUZZ
@given(start=st.sampled_from(STARTS), data=st.binary(max_size=200))
def test_random_bytes_are_no_pictures(tmp_path_factory: pytest.TempPathFactory, start: bytes, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.png"
    path.write_bytes(start + data)
    read_both(path)

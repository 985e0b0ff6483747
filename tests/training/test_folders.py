"""Folders of photos and masks: both layouts, their splits, and what is said of those that are not whole."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset import open_data, open_korean, split
from hair.errors import UserError
from tests.pictures import GOOD, HAIR, PHOTO, SIZE, encoded, write, write_picture
from tools.make_sample import make_celeb
from training.folders import open_folder, prepare_celeb
from training.masks import read_mask

# ---------------------------------------------------------------------------------------------------- CelebAMask-HQ


def test_raw_celeb_leaves_out_bald_heads_and_brings_masks_to_the_photo_size(celeb: Path) -> None:
    index = open_folder(celeb)
    assert len(index) == 36
    assert [index.photo(i).name for i in (0, 8, 9)] == ["0.jpg", "8.jpg", "10.jpg"]  # by number, 9 is bald
    mask = index.mask(0, (128, 128))
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) == {0, 1}


def test_prepared_celeb_reads_like_the_raw_download(celeb: Path, tmp_path: Path) -> None:
    outcome = prepare_celeb(celeb, tmp_path)
    assert outcome.to_dict() == {"hair": 36, "no hair, left out": 4}
    raw, prepared = open_folder(celeb), open_folder(tmp_path)
    assert [raw.photo(i).name for i in range(36)] == [prepared.photo(i).name for i in range(36)]
    np.testing.assert_array_equal(raw.mask(5, (128, 128)), prepared.mask(5, (128, 128)))


def test_prepare_celeb_again_changes_nothing_and_can_keep_bald_heads(celeb: Path, tmp_path: Path) -> None:
    prepare_celeb(celeb, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    outcome = prepare_celeb(celeb, tmp_path, keep_hairless=True)
    assert outcome["no hair, empty mask"] == 4
    assert before.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}.items()
    assert not read_mask(tmp_path / "mask" / "9.png", (128, 128)).any()


def test_prepare_celeb_leaves_out_photos_nobody_annotated_and_broken_ones(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=3)
    for part in ("hair", "skin"):
        (tmp_path / "CelebAMask-HQ-mask-anno" / "0" / f"00001_{part}.png").unlink()
    photo = tmp_path / "CelebA-HQ-img" / "2.jpg"
    photo.write_bytes(photo.read_bytes()[:500])
    outcome = prepare_celeb(tmp_path)
    assert outcome.to_dict() == {"hair": 1, "no annotation, left out": 1, "unreadable, left out": 1}
    assert [path.name for path in (tmp_path / "image").iterdir()] == ["0.jpg"]


def test_prepare_celeb_again_mends_what_keep_hairless_left(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=12)
    hair = tmp_path / "CelebAMask-HQ-mask-anno" / "0" / "00003_hair.png"
    whole = hair.read_bytes()
    hair.unlink()
    prepare_celeb(tmp_path, keep_hairless=True)
    hair.write_bytes(whole)
    write_picture(tmp_path / "mask" / "5.png", np.full((64, 64), 255, np.uint8))  # a mask mended by hand is kept
    prepare_celeb(tmp_path)
    assert read_mask(tmp_path / "mask" / "3.png", (128, 128)).any()
    assert read_mask(tmp_path / "mask" / "5.png", (128, 128)).all()
    for folder in ("image", "mask"):
        assert sorted(int(path.stem) for path in (tmp_path / folder).iterdir()) == [*range(9), 10, 11]


def test_prepare_celeb_again_mends_broken_copies(celeb: Path, tmp_path: Path) -> None:
    prepare_celeb(celeb, tmp_path)
    for name in ("image/0.jpg", "mask/1.png"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()  # the download's own is linked
        (tmp_path / name).write_bytes(content[:-20])
    prepare_celeb(celeb, tmp_path)
    for row in range(2):
        open_folder(tmp_path).check(row)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0 1 1.jpg", *(f"{n} {n} {n}.jpg" for n in range(40))], "listed twice"),
        (["0  ", "1 1 1.jpg"], "list every photo"),
    ],
)
def test_a_mapping_file_that_is_not_whole(celeb: Path, tmp_path: Path, lines: list[str], message: str) -> None:
    prepare_celeb(celeb, tmp_path)
    mapping = tmp_path / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text("\n".join(["idx orig_idx orig_file", *lines]))
    with pytest.raises(UserError, match=message):
        open_folder(tmp_path).split(0, 3)


@pytest.mark.parametrize("photos", [0, 3])
def test_prepare_celeb_with_nothing_to_prepare_is_an_error(tmp_path: Path, photos: int) -> None:
    make_celeb(tmp_path, photos=photos)
    for path in (tmp_path / "CelebAMask-HQ-mask-anno").rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="3 no annotation" if photos else "no photos"):
        prepare_celeb(tmp_path)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("text", ["", "idx orig_idx\n", "머리", "a b\n1 2\n", "idx orig_idx\n0 many\n1 2\n2 3\n"])
def test_a_broken_mapping_file_is_named(tmp_path: Path, text: str) -> None:
    make_celeb(tmp_path, photos=3)
    mapping = tmp_path / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text(text)
    with pytest.raises(UserError) as error:
        open_folder(tmp_path).split(0, 2)
    assert str(error.value).startswith(f"{mapping}: ")


def test_stray_files_among_the_annotations(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=3)
    write(tmp_path / "CelebAMask-HQ-mask-anno" / "0", {"preview.png": b"", "notes.txt": b""})
    assert len(open_folder(tmp_path)) == 3


# ---------------------------------------------------------------------------------------------------- image/ and mask/


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "mask" / "3.png").unlink(), r"image/3\.png: has no mask"),
        (lambda root: (root / "image" / "3.png").unlink(), r"mask/3\.png: has no photo"),
        (lambda root: [path.unlink() for path in root.rglob("*.png")], "no photos in it"),
        (lambda root: (root / "mask").rename(root / "masks"), "has neither image/ and mask/ nor labels in it"),
        (lambda root: write_picture(root / "image" / "3.jpg", np.zeros((48, 64, 3), np.uint8)), "has the same name"),
    ],
)
def test_folders_that_cannot_be_read_are_named(pairs: Path, spoil: Callable[[Path], object], message: str) -> None:
    spoil(pairs)
    with pytest.raises(UserError, match=message):
        open_folder(pairs)


def test_missing_and_empty_folders_say_how_to_get_the_data(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        for opener in (open_folder, open_korean):
            with pytest.raises(UserError, match=r"data/README\.md"):
                opener(folder)


# ---------------------------------------------------------------------------------------------------- other downloads


def test_figaro_is_read_as_it_is_downloaded(tmp_path: Path) -> None:
    for part, first, count in (("Training", 1, 6), ("Testing", 121, 2)):
        for number in range(first, first + count):
            write(tmp_path / "Original" / part, {f"Frame{number:05d}-org.jpg": GOOD["머리 사진 1.jpg"]})
            write(tmp_path / "GT" / part, {f"Frame{number:05d}-gt.pbm": encoded(Image.fromarray(HAIR), "PPM")})
    index = open_data(tmp_path)
    assert index.photo(0) == tmp_path / "Original/Training/Frame00001-org.jpg"
    assert index.photo(7).name == "Frame00122-org.jpg"
    np.testing.assert_array_equal(index.mask(7, SIZE), HAIR)
    for row in range(8):
        index.check(row)
    folds = [index.split(fold, 3) for fold in range(3)]
    assert sorted(row for parts in folds for row in parts["valid"]) == list(range(6)), "of the training part alone"
    assert all(parts["test"].tolist() == [6, 7] for parts in folds)


@pytest.mark.parametrize(
    ("photos", "masks", "parts"),
    [
        ("{}/images", "{}/labels", ("train", "val", "test")),  # LaPa
        ("{}/Images", "{}/Category_ids", ("Training", "Validation", "Testing")),  # CIHP
    ],
)
def test_parsing_data_sets_are_read_as_they_are_downloaded(
    tmp_path: Path, photos: str, masks: str, parts: tuple[str, ...]
) -> None:
    classes = np.where(HAIR, 10, 1).astype(np.uint8)
    for number, part in enumerate(parts):
        write(tmp_path / photos.format(part), {f"{number}.jpg": encoded(Image.fromarray(PHOTO), "JPEG")})
        if masks != "{}/Category_ids" or number < 2:  # nobody may see the labels of CIHP's test part
            write(tmp_path / masks.format(part), {f"{number}.png": encoded(Image.fromarray(classes), "PNG")})
    index = open_data(tmp_path, None, ["10", "hair"])
    np.testing.assert_array_equal(index.mask(0, SIZE), HAIR)
    found = index.split(0, 5)
    assert found["train"].tolist() == [0] and found["valid"].tolist() == [1] and len(found.get("test", [2])) == 1
    with pytest.raises(UserError, match=r"0\.png: its brightest pixel is 10, .* give the class number of hair"):
        open_data(tmp_path).mask(0, SIZE)


# ---------------------------------------------------------------------------------------------------- splits


def test_folds_are_apart_and_cover_everything(pairs: Path) -> None:
    index = open_folder(pairs)
    folds = [index.split(fold, 5) for fold in range(5)]
    for parts in folds:
        assert not set(parts["train"]) & set(parts["valid"])
        assert len(parts["train"]) == 8
    assert sorted(np.concatenate([parts["valid"] for parts in folds])) == list(range(10))


def test_celeb_follows_the_official_partition_where_the_mapping_is_there(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=9)
    lines = ["idx orig_idx orig_file"]
    # The borders of CelebA's parts: the last of one and the first of the next.
    originals = [5, 162_770, 162_771, 182_637, 182_638, 202_598, 1, 2, 3]
    lines += [f"{number} {original} {original + 1:06d}.jpg" for number, original in enumerate(originals)]
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines))
    parts = open_folder(tmp_path).split(fold=0, n_folds=5)
    assert {name: rows.tolist() for name, rows in parts.items()} == {
        "train": [0, 1, 6, 7, 8],
        "valid": [2, 3],
        "test": [4, 5],
    }
    (tmp_path / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(line for line in lines if "2637" not in line))
    for path in (tmp_path / "CelebAMask-HQ-mask-anno" / "0").glob("0000[23]_*"):
        path.unlink()
    with pytest.raises(UserError, match="5 photos to train on and 0 to validate on"):
        split([open_folder(tmp_path)], fold=0, n_folds=5)

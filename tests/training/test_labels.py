"""Folders of labels as data sets: what this project writes comes back, photos are found, classes are chosen."""

import json
from pathlib import Path

import numpy as np
import pytest

from dataset import PhotoSet, open_data, split
from hair.errors import UserError
from hair.outlines import coco
from tests.pictures import GOOD, HAIR, SIZE, process, write
from training.labels import open_labels
from training.masks import read_mask

PHOTO = GOOD["머리 사진 1.jpg"]


@pytest.mark.parametrize("kind", ["contour", "rle"])
def test_what_inference_writes_comes_back_as_the_same_mask(tmp_path: Path, kind: str) -> None:
    files = write(tmp_path, {"a.jpg": PHOTO, "b.png": GOOD["alpha.png"], "머리.jpg": GOOD["turned 6 RGB.jpg"]})
    assert not process(files, tmp_path, (kind, "json", "mask"))
    index = open_data(tmp_path)
    assert sorted(index.photo(row).name for row in range(len(index))) == ["a.jpg", "b.png", "머리.jpg"]
    for row in range(3):
        index.check(row)
        _, mask = PhotoSet([index], [np.array([row])]).load(0)
        saved = index.photo(row).with_name(f"{index.photo(row).stem}_mask.png")
        np.testing.assert_array_equal(mask, read_mask(saved, SIZE))


def coco_folder(root: Path, photos: list[str], names: list[str] | None = None) -> Path:
    """Photos below a folder, and a COCO file that gives them these names."""
    for number, photo in enumerate(photos):
        write((root / photo).parent, {Path(photo).name: PHOTO})
        content = coco((names or photos)[number], HAIR)
        write(root / "annotations", {f"instances_{number}.json": json.dumps(content).encode()})
    return root


@pytest.mark.parametrize("name", ["c/1.jpg", "1.jpg", "c\\1.jpg", "/home/me/b/c/1.jpg", "../b/c/1.jpg"])
def test_photos_are_found_by_as_much_of_their_path_as_is_true(tmp_path: Path, name: str) -> None:
    root = coco_folder(tmp_path, ["b/c/1.jpg", "b/d/2.jpg"], [name, "2.jpg"])
    assert open_labels(root).photo(0) == tmp_path / "b/c/1.jpg"


def test_two_photos_that_a_name_may_mean_are_named(tmp_path: Path) -> None:
    root = coco_folder(tmp_path, ["b/1.jpg", "c/1.jpg"], ["1.jpg", "c/1.jpg"])
    with pytest.raises(UserError, match=r"instances_0\.json: 1\.jpg may be .*b/1\.jpg or .*c/1\.jpg; remove or rename"):
        open_labels(root)


def test_one_class_needs_no_name_and_several_do(tmp_path: Path) -> None:
    content = coco("a.jpg", HAIR) | {"categories": [{"id": 1, "name": "strand"}]}
    write(tmp_path, {"a.jpg": PHOTO, "a.json": json.dumps(content).encode()})
    np.testing.assert_array_equal(open_labels(tmp_path).mask(0, SIZE), HAIR)
    with pytest.raises(
        UserError, match=r"has no --hair_label fringe; choose with --hair_label from its classes: 1 strand"
    ):
        open_labels(tmp_path, ["fringe"])


def test_labels_of_a_photo_of_another_shape_are_refused(tmp_path: Path) -> None:
    content = coco("a.jpg", HAIR)
    content["images"][0] |= {"width": SIZE[0], "height": SIZE[1]}
    write(tmp_path, {"a.jpg": PHOTO, "a.json": json.dumps(content).encode()})
    with pytest.raises(UserError, match=r"a\.json, a\.jpg: the mask is 60×40, but its photo is 40×60"):
        open_labels(tmp_path).check(0)


def test_folds_are_those_of_the_photos_in_order(tmp_path: Path) -> None:
    index = open_data(coco_folder(tmp_path, [f"{number}.jpg" for number in range(12)]))
    assert [index.photo(row).stem for row in range(12)] == [str(number) for number in range(12)]
    train, valid = split([index], 1, 4)
    assert len(train) == 9 and len(valid) == 3
    assert not {train.path(i) for i in range(9)} & {valid.path(i) for i in range(3)}


def test_a_folder_without_labels_and_a_file_are_explained(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": PHOTO, "args.json": b'{"fold": 0}', "list.json": b"[1, 2]"})
    assert open_labels(tmp_path) is None
    with pytest.raises(UserError, match=r"has neither image/ and mask/ nor labels in it; docs/data\.md"):
        open_data(tmp_path)
    with pytest.raises(UserError, match=r"args\.json: is a file; --data_dir needs the folder"):
        open_data(tmp_path / "args.json")

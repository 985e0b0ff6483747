"""What is saved of photos in every form: right masks and facts, or one line for each that cannot be read."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hair.files import result_names
from hair.photos import find_photos
from hair.results import KINDS, PICTURES, describe
from tests.pictures import BAD, GOOD, SIZE, Bright, agreement, become_nobody, process, small_disk, write


def test_photos_in_every_form_give_right_masks(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    files = write(tmp_path / "photos", GOOD)
    assert sorted(find_photos([tmp_path / "photos"])) == sorted(files)
    out = tmp_path / "out"
    out.mkdir()
    sys.stdout.reconfigure(errors="backslashreplace")  # hair.errors.run does
    assert process(files, out) == []
    names = result_names(files, out, ["_mask.png", "_json.json"])
    masks = [np.asarray(Image.open(f"{name}_mask.png")) > 0 for name in names]
    wrong = {file.name: mask.shape for file, mask in zip(files, masks, strict=True) if agreement(mask) < 0.8}
    assert wrong == {}
    facts = [json.loads(Path(f"{name}_json.json").read_text()) for name in names]
    assert [fact["file"] for fact in facts] == list(GOOD)
    assert {(fact["height"], fact["width"]) for fact in facts} == {SIZE}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (2, 900), (31, 33)])
def test_odd_shapes_keep_their_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 10, np.uint8)
    np.moveaxis(photo, int(np.argmax(shape)), 0)[: (max(shape) + 1) // 2] = 250
    Image.fromarray(photo).save(tmp_path / "odd.png")
    assert process([tmp_path / "odd.png"], tmp_path, tuple(KINDS), Bright(refine=True)) == []
    for kind in PICTURES:
        assert np.asarray(Image.open(tmp_path / f"odd_{kind}.png")).shape[:2] == shape
    mask = np.asarray(Image.open(tmp_path / "odd_mask.png")) > 0
    assert (mask == (photo[..., 0] > 127)).mean() > 0.9


def test_bad_files_are_a_line_each_and_leave_nothing(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    folder = tmp_path / "photos"
    files = write(folder, BAD)
    (folder / "loop.jpg").symlink_to("pool.jpg")
    (folder / "pool.jpg").symlink_to("loop.jpg")
    (folder / "dangling.jpg").symlink_to("gone.jpg")
    (folder / "round").symlink_to(folder)
    (folder / "folder.jpg").mkdir()
    files += [folder / name for name in ("loop.jpg", "pool.jpg", "dangling.jpg")]
    out = folder / "out"
    out.mkdir()
    assert sorted(find_photos([folder], recursive=True, leave_out=out)) == sorted(files)
    failures = process(files, out)
    named = [failure for file, failure in zip(files, failures, strict=True) if failure.startswith(f"{file}: ")]
    assert named == failures
    assert not [failure for failure in failures if len(failure.splitlines()) != 1]
    assert list(out.iterdir()) == []
    assert capfd.readouterr() == ("", ""), "neither OpenCV nor libpng adds lines of its own"


def test_files_and_folders_without_permission(nobody: Path) -> None:
    write(nobody, {"shut.jpg": GOOD["png.jpg"], "open.jpg": GOOD["png.jpg"]})
    (nobody / "locked").mkdir()
    (nobody / "shut.jpg").chmod(0)
    (nobody / "locked").chmod(0o555)
    become_nobody()
    failures = process([nobody / "shut.jpg", nobody / "open.jpg"], nobody / "locked")
    assert failures[0] == f"{nobody / 'shut.jpg'}: cannot be read as a photo (Permission denied)"
    assert failures[1].startswith(f"{nobody / 'open.jpg'}: ") and "Permission denied" in failures[1]


def test_full_disk_names_the_photo_and_leaves_no_part(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "me.png")
    out = tmp_path / "out"
    out.mkdir()
    with small_disk(8000):
        (failure,) = process([tmp_path / "me.png"], out, ("overlay",))
    assert str(tmp_path / "me.png") in failure and str(out) in failure
    assert list(out.iterdir()) == []


def test_description(head: np.ndarray) -> None:
    mask = np.zeros(head.shape[:2], bool)
    nothing = describe("a.jpg", head, mask)
    assert nothing["box"] is nothing["color"] is nothing["color_name"] is None and nothing["hair"] == 0
    head[20:40, 10:60] = (20, 18, 17)
    mask[20:40, 10:60] = True
    facts = describe("a.jpg", head, mask)
    assert facts["box"] == [10, 20, 50, 20]
    assert facts["color"] == "#141211" and facts["color_name"] == "black"
    assert facts["hair"] == pytest.approx(1000 / 96**2, abs=1e-4)


def test_every_kind_is_a_file_of_its_own_form(tmp_path: Path, head: np.ndarray) -> None:
    Image.fromarray(head).save(tmp_path / "me.png")
    assert process([tmp_path / "me.png"], tmp_path, tuple(KINDS)) == []
    forms = {"overlay": "RGB", "mask": "L", "alpha": "RGBA", "recolor": "RGB"}
    assert {kind: Image.open(tmp_path / f"me_{kind}.png").mode for kind in PICTURES} == forms
    assert json.loads((tmp_path / "me_contour.json").read_text())["images"][0]["file_name"] == "me.png"
    assert json.loads((tmp_path / "me_json.json").read_text())["width"] == 96
    mask = cv2.imread(str(tmp_path / "me_mask.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {0, 255}

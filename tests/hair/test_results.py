"""What is saved of photos in every form: right masks and facts, or one line for each that cannot be read."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hair.files import result_names
from hair.opacity import hair_opacity
from hair.photos import find_photos, open_photo
from hair.results import (
    ENDINGS,
    FORMATS,
    KINDS,
    PICTURES,
    TEXTS,
    Results,
    are_there,
    describe,
    make_result,
    suffixes,
)
from tests.pictures import (
    BAD,
    GOOD,
    LOOKS,
    SIZE,
    Bright,
    agreement,
    become_nobody,
    encoded,
    process,
    small_disk,
    turned,
    write,
)


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
    remarks = [line for line in capfd.readouterr().err.splitlines() if "animated" not in line]
    assert remarks == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 10_000), (10_000, 1), (2, 900), (31, 33)])
def test_odd_shapes_keep_their_shape(tmp_path: Path, shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 10, np.uint8)
    np.moveaxis(photo, int(np.argmax(shape)), 0)[: (max(shape) + 1) // 2] = 250
    Image.fromarray(photo).save(tmp_path / "odd.png")
    assert process([tmp_path / "odd.png"], tmp_path, tuple(KINDS), Bright(refine=True)) == []
    for kind in set(PICTURES) - {"palette"}:
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
    forms = {"overlay": "RGB", "mask": "L", "alpha": "RGBA", "recolor": "RGB", "palette": "RGB"}
    assert {kind: Image.open(tmp_path / f"me_{kind}.png").mode for kind in PICTURES} == forms
    assert json.loads((tmp_path / "me_contour.json").read_text())["images"][0]["file_name"] == "me.png"
    assert json.loads((tmp_path / "me_json.json").read_text())["width"] == 96
    mask = cv2.imread(str(tmp_path / "me_mask.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(mask)) == {0, 255}


FORMS = {  # by --format: the file name suffix and Pillow's format of each kind of picture
    "png": dict.fromkeys(PICTURES, ("png", "PNG")),
    "jpg": {**dict.fromkeys(PICTURES, ("jpg", "JPEG")), "mask": ("png", "PNG"), "alpha": ("png", "PNG")},
    "webp": {**dict.fromkeys(PICTURES, ("webp", "WEBP")), "mask": ("png", "PNG")},
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_pictures(tmp_path: Path, head: np.ndarray, name: str) -> None:
    Image.fromarray(head).save(tmp_path / "me.png")
    assert process([tmp_path / "me.png"], tmp_path / "out", tuple(KINDS), format=name) == []
    suffixes = {kind: suffix for kind, (suffix, _) in FORMS[name].items()} | dict.fromkeys(TEXTS, "json")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"me_{kind}.{suffix}" for kind, suffix in suffixes.items()}
    assert {ending for ending in ENDINGS if f"me{ending}" in written} == {file[2:] for file in written}
    for kind, (suffix, form) in FORMS[name].items():
        picture = Image.open(tmp_path / "out" / f"me_{kind}.{suffix}")
        mode = {"mask": "L", "alpha": "RGBA"}.get(kind, "RGB")
        assert (picture.format, picture.mode) == (form, mode)
        assert picture.size == (96, 96) or kind == "palette"
    assert set(np.unique(np.asarray(Image.open(tmp_path / "out" / "me_mask.png")))) == {0, 255}
    assert are_there(tmp_path / "out" / "me", tmp_path / "me.png", tuple(KINDS), name)


def test_transparency_stays_png_beside_jpegs(tmp_path: Path) -> None:
    write(tmp_path, {"me.png": GOOD["alpha.png"]})
    kinds = ("overlay", "recolor", "alpha")
    assert process([tmp_path / "me.png"], tmp_path / "out", kinds, format="jpg") == []
    written = {path.name: Image.open(path).mode for path in (tmp_path / "out").iterdir()}
    assert written == {"me_overlay.jpg": "RGB", "me_recolor.png": "RGBA", "me_alpha.png": "RGBA"}
    assert are_there(tmp_path / "out" / "me", tmp_path / "me.png", kinds, "jpg")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("source", ["alpha.png", "png.jpg"])
def test_cut_outs_before_a_background_have_no_transparency(tmp_path: Path, name: str, source: str) -> None:
    """Also where the photo has it: the background is seen through both."""
    write(tmp_path, {"me.png": GOOD[source]})
    photo = open_photo(tmp_path / "me.png")
    probabilities = Bright()(photo.pixels)
    for background in ((9, 99, 9), "blur"):
        looks = replace(LOOKS, background=background)
        suffix, data = make_result("alpha", "me.png", photo, probabilities, Results(("alpha",), looks, format=name))
        assert suffix == name and suffixes("alpha", tmp_path / "me.png", name, has_background=True) == {name}
        picture = np.asarray(Image.open(io.BytesIO(data)))
        assert picture.shape == photo.pixels.shape
        if background != "blur" and name == "png":
            assert (picture[hair_opacity(photo.colors, probabilities, 0.5) == 0] == background).all()
            if photo.alpha is not None:
                assert (picture[photo.alpha == 0] == background).all()
    _, data = make_result("recolor", "me.png", photo, probabilities, Results(("recolor",), looks))
    assert np.asarray(Image.open(io.BytesIO(data))).shape[2] == (3 if photo.alpha is None else 4)


def test_quality(tmp_path: Path, head: np.ndarray) -> None:
    Image.fromarray(head).save(tmp_path / "me.png")
    sizes = {}
    for quality in (20, 92):
        for name in ("jpg", "webp"):
            out = tmp_path / str(quality)
            assert process([tmp_path / "me.png"], out, ("overlay",), format=name, quality=quality) == []
            sizes[name, quality] = (out / f"me_overlay.{name}").stat().st_size
    assert sizes["jpg", 20] < sizes["jpg", 92] and sizes["webp", 20] < sizes["webp", 92]


def test_whether_results_are_there_goes_by_their_names(tmp_path: Path) -> None:
    photo, name = tmp_path / "me.png", tmp_path / "out" / "me"
    write(tmp_path / "out", {"me_overlay.png": b"", "me_mask.png": b"", "me_recolor.png": b"", "me_json.json": b""})
    assert are_there(name, photo, ("overlay", "mask", "recolor", "json"), "png")
    assert not are_there(name, photo, ("overlay", "alpha"), "png")
    assert not are_there(name, photo, ("overlay",), "jpg") and not are_there(name, photo, ("overlay",), "webp")
    assert are_there(name, photo, ("recolor",), "jpg"), "a photo with transparency stays PNG"
    assert not are_there(name, photo.with_suffix(".jpg"), ("recolor",), "jpg")
    (tmp_path / "out" / "me_alpha.png").mkdir()
    assert not are_there(name, photo, ("alpha",), "png"), "a folder is no result"


@pytest.mark.parametrize("name", FORMATS)
def test_exif_is_kept_on_request(tmp_path: Path, name: str) -> None:
    stored, exif = turned(6)
    exif.update({271: "Maker", 34853: {1: "N"}})
    (tmp_path / "me.jpg").write_bytes(encoded(stored, "JPEG", exif=exif))
    kinds = ("overlay", "mask", "alpha", "recolor")
    assert process([tmp_path / "me.jpg"], tmp_path / "kept", kinds, format=name, keep_exif=True) == []
    assert process([tmp_path / "me.jpg"], tmp_path / "none", kinds, format=name) == []
    for file in (tmp_path / "kept").iterdir():
        picture = Image.open(file)
        found = picture.getexif()
        assert (found[271], found[274]) == ("Maker", 1) and 34853 not in found
        assert picture.size == SIZE[::-1], "upright"
        assert not Image.open(tmp_path / "none" / file.name).getexif()
        assert np.array_equal(np.asarray(picture), np.asarray(Image.open(tmp_path / "none" / file.name)))


def test_broken_exif_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path, {"me.png": GOOD["png.jpg"]})
    monkeypatch.setattr("hair.results.read_exif", lambda path: None)
    assert process([tmp_path / "me.png"], tmp_path, ("overlay",), keep_exif=True) == []
    assert capsys.readouterr().err == f"{tmp_path / 'me.png'}: its EXIF cannot be read and is left out\n"
    assert (tmp_path / "me_overlay.png").is_file()


def test_run_lengths_are_a_kind(tmp_path: Path) -> None:
    write(tmp_path, {"me.png": GOOD["png.jpg"]})
    assert process([tmp_path / "me.png"], tmp_path, ("rle", "mask")) == []
    (annotation,) = json.loads((tmp_path / "me_rle.json").read_text())["annotations"]
    mask = np.asarray(Image.open(tmp_path / "me_mask.png")) > 0
    runs = annotation["segmentation"]
    values = np.arange(len(runs["counts"])) % 2
    assert np.array_equal(np.repeat(values, runs["counts"]).reshape(SIZE[::-1]).T, mask)


def test_a_photo_too_large_for_webp_is_one_line(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1, 16_384, 3), np.uint8)).save(tmp_path / "me.png")
    (failure,) = process([tmp_path / "me.png"], tmp_path, ("overlay",), format="webp")
    assert failure.startswith(f"{tmp_path / 'me.png'}: too large for .webp")

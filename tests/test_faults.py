"""Damaged and odd files through inference, evaluation and both indexes: a right mask or one clear line, no trace."""

import json
import sys
import threading
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from faults import (
    ARGS,
    BAD,
    FUZZ,
    GOOD,
    HAIR,
    OUTLINE,
    SIZE,
    Bright,
    agreement,
    become_nobody,
    encoded,
    one_line,
    small_disk,
    turned,
    write,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from make_sample import make_celeb
from PIL import Image

import dataset
import evaluate
import geometry
import inference
import korean as room
import pictures
import render
import utils
from dataset import PhotoSet
from utils import UserError

# ---------------------------------------------------------------------------------------------------- inference


def test_photos_in_every_form_give_right_masks(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    files = write(tmp_path / "photos", GOOD)
    found = list(inference.find_photos([tmp_path / "photos"]))
    assert sorted(found) == sorted(files)
    args = Namespace(**vars(ARGS) | {"output_dir": tmp_path / "out"})
    args.output_dir.mkdir()
    sys.stdout.reconfigure(errors="backslashreplace")  # main does
    assert inference.process(files, Bright(), args) == []
    names = inference.result_names(files, args.output_dir, ["_mask.png", "_json.json"])
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
    args = Namespace(**vars(ARGS) | {"output_dir": tmp_path, "save": list(inference.KINDS)})
    assert inference.process([tmp_path / "odd.png"], Bright(refine=True), args) == []
    for kind in ("overlay", "mask", "alpha", "recolor"):
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
    assert sorted(inference.find_photos([folder], recursive=True, leave_out=out)) == sorted(files)
    failures = inference.process(files, Bright(), Namespace(**vars(ARGS) | {"output_dir": out}))
    told = [failure for file, failure in zip(files, failures, strict=True) if failure.startswith(f"{file}: ")]
    assert told == failures
    assert not [failure for failure in failures if len(failure.splitlines()) != 1]
    assert list(out.iterdir()) == []
    assert capfd.readouterr() == ("", ""), "neither OpenCV nor libpng adds lines of its own"


def test_main_is_one_line_for_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").symlink_to("a")
    monkeypatch.setattr(inference, "HairSegmenter", lambda *_, **__: Bright())
    monkeypatch.chdir(tmp_path)
    for flags in (["--input", "a"], ["--input", "a/b.jpg"], ["--input", "a", "--output_dir", "a"]):
        monkeypatch.setattr(sys, "argv", ["inference.py", *flags])
        with pytest.raises(SystemExit) as stop:
            inference.main()
        one_line(stop, "a")


def test_files_and_folders_without_permission(nobody: Path) -> None:
    write(nobody, {"shut.jpg": GOOD["png.jpg"], "open.jpg": GOOD["png.jpg"]})
    (nobody / "locked").mkdir()
    (nobody / "shut.jpg").chmod(0)
    (nobody / "locked").chmod(0o555)
    become_nobody()
    args = Namespace(**vars(ARGS) | {"output_dir": nobody / "locked"})
    failures = inference.process([nobody / "shut.jpg", nobody / "open.jpg"], Bright(), args)
    assert failures[0] == f"{nobody / 'shut.jpg'}: cannot be read as a photo (Permission denied)"
    assert failures[1].startswith(f"{nobody / 'open.jpg'}: ") and "Permission denied" in failures[1]
    for read in (pictures.read_image, pictures.check_picture, lambda path: pictures.read_mask(path, SIZE)):
        with pytest.raises(UserError, match=r"shut\.jpg: .*Permission denied"):
            read(nobody / "shut.jpg")
    with pytest.raises(SystemExit) as stop:
        utils.run(lambda: utils.write_json(nobody / "locked" / "scores.json", {}))
    one_line(stop, "locked", "Permission denied")


def test_full_disk_names_the_photo_and_leaves_no_part(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "me.png")
    args = Namespace(**vars(ARGS) | {"output_dir": tmp_path / "out", "save": ["overlay"]})
    args.output_dir.mkdir()
    with small_disk(8000):
        (failure,) = inference.process([tmp_path / "me.png"], Bright(), args)
    assert str(tmp_path / "me.png") in failure and str(args.output_dir) in failure
    assert list(args.output_dir.iterdir()) == []


def test_two_that_write_the_same_result_do_not_meet(tmp_path: Path) -> None:
    """As two runs of inference.py on the same photos do."""
    errors, data = [], [bytes([i]) * 50_000 for i in range(4)]

    def write_often(mine: bytes) -> None:
        try:
            for _ in range(60):
                render.write_whole(tmp_path / "mask.png", mine)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write_often, args=(mine,)) for mine in data]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and (tmp_path / "mask.png").read_bytes() in data
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


# ---------------------------------------------------------------------------------------------------- evaluation


def mask_files() -> dict[str, bytes]:
    """The mask in many forms, by file name."""
    mask = Image.fromarray(np.where(HAIR, 255, 0).astype(np.uint8))
    files = {
        "palette.png": encoded(mask.convert("P"), "PNG"),
        "bilevel.png": encoded(mask.convert("1", dither=0), "PNG"),
        "deep.png": encoded(Image.fromarray(HAIR.astype(np.uint16) * 65_535), "PNG"),
        "one of 16 bits.png": encoded(Image.fromarray(HAIR.astype(np.uint16)), "PNG"),
        "ones.png": encoded(Image.fromarray(HAIR.astype(np.uint8)), "PNG"),
        "lossy 머리.jpg": encoded(mask, "JPEG", quality=80),
        "half.webp": encoded(mask.resize((20, 30)), "WEBP", lossless=True),
        "colour.bmp": encoded(mask.convert("RGB"), "BMP"),
        "moving.png": encoded(mask, "PNG", save_all=True, append_images=[mask.transpose(0)]),
    }
    for orientation in range(1, 9):
        stored, exif = turned(orientation)
        bright = stored.convert("L").point(lambda value: 255 * (value > 127))
        files[f"turned {orientation}.tif"] = encoded(bright, "TIFF", exif=exif)
    return files


def rows_of(files: dict[str, bytes], root: Path) -> None:
    """The Korean layout: one CSV row, with the same polygon, for each photo."""
    home = root / "dataset"
    write(home / "partition1", files)
    polygon = str([[{"x": x, "y": y} for x, y in OUTLINE]])
    rows = [
        {"path": f"/main/dataset/partition1/{name}", "source": f"P{i}", "polygon1": polygon, "height": 60, "width": 40}
        for i, name in enumerate(files)
    ]
    pd.DataFrame(rows).to_csv(home / "dataindex_00.csv", index=False)


@pytest.mark.parametrize("layout", ["folder", "korean"])
def test_evaluation_finds_the_hair_of_every_form(tmp_path: Path, layout: str) -> None:
    files = {f"{i} {name}": data for i, (name, data) in enumerate(GOOD.items()) if name.isprintable()}
    if layout == "korean":
        rows_of(files, tmp_path)
    else:
        write(tmp_path / "image", files)
        masks = list(mask_files().items())  # each of its own form, in turn
        for i, name in enumerate(files):
            kind, data = masks[i % len(masks)]
            write(tmp_path / "mask", {Path(name).stem + Path(kind).suffix: data})
    photos = PhotoSet([dataset.open_data(tmp_path)], [np.arange(len(files))])
    photos.check()
    rows = evaluate.score_photos(Bright(), photos, 0.5)
    assert len(rows) == len(files)
    assert {Path(row.path).name: row.dice for row in rows.itertuples() if row.dice < 0.9} == {}


@pytest.mark.parametrize("kind", ["photo", "mask", "korean"])
def test_each_bad_file_is_named_before_it_is_scored(tmp_path: Path, kind: str) -> None:
    files = {f"{i} {name}": data for i, (name, data) in enumerate(BAD.items())}
    if kind == "korean":
        rows_of(files, tmp_path)
        index = dataset.open_data(tmp_path)
    else:
        good = {Path(name).stem + ".png": GOOD["png.jpg"] for name in files}
        write(tmp_path / "image", files if kind == "photo" else good)
        write(tmp_path / "mask", good if kind == "photo" else files)
        index = dataset.open_data(tmp_path)
    assert len(index) == len(files)
    for row in range(len(index)):
        path = index.root / index.masks[row] if kind == "mask" else index.photo(row)
        with pytest.raises(UserError) as error:
            PhotoSet([index], [np.array([row])]).check()
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
        if kind != "mask" or path.suffix != ".jpg":  # OpenCV fills what is missing of a JPEG; the check has told
            with pytest.raises(UserError) as error:
                PhotoSet([index], [np.array([row])]).load(0)
            assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("value", [2, 38, 127])
def test_a_mask_of_class_numbers_is_not_taken_for_bald(tmp_path: Path, value: int) -> None:
    Image.fromarray(HAIR.astype(np.uint8) * value).save(tmp_path / "classes.png")
    with pytest.raises(UserError, match=rf"classes\.png: its brightest pixel is {value}, but hair is above 127"):
        pictures.read_mask(tmp_path / "classes.png", SIZE)


def test_evaluate_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(evaluate, "HairSegmenter", lambda *_: Bright())
    monkeypatch.chdir(tmp_path)
    long = np.zeros((1, 2000), np.uint8)
    long[:, 600:] = 255
    for name, mask in {"a": long, "b": long.T, "c": long[:, :1], "머리 d": HAIR.astype(np.uint8) * 255}.items():
        for folder in ("image", "mask"):
            write(tmp_path / "data" / folder, {f"{name}.png": encoded(Image.fromarray(mask), "PNG")})
    flags = ["--data_dir", "data", "--split", "all", "--worst", "4", "--json", "scores.json"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *flags])
    utils.run(evaluate.main)
    assert json.loads(Path("scores.json").read_text())["dice"] > 0.95
    (sheet,) = Path("result").iterdir()
    assert np.asarray(Image.open(sheet)).shape == (280, 1024, 3)
    before = sheet.read_bytes()

    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    write(tmp_path / "data" / "image", {"머리 d.png": encoded(Image.fromarray(noise), "PNG")})
    with small_disk(4000), pytest.raises(SystemExit) as stop:
        utils.run(evaluate.main)
    one_line(stop, sheet.name)
    assert sheet.read_bytes() == before and len(list(Path("result").iterdir())) == 1

    capsys.readouterr()
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    (tmp_path / "data" / "image" / "b.png").write_bytes(jpeg[: len(jpeg) // 2])
    with pytest.raises(SystemExit) as stop:
        utils.run(evaluate.main)
    one_line(stop, Path("data/image/b.png"))
    assert "dice" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--by", "length"], "has no labels"),
        (["--data_dir", "data", "nowhere"], "nowhere: no such folder"),
        (["--filter", "age > 30"], "data: has no labels for --filter"),
        (["--split", "valid"], "give --fold"),
    ],
)
def test_evaluate_finds_what_is_wrong_before_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], told: str
) -> None:
    monkeypatch.setattr(evaluate, "HairSegmenter", lambda *_: Bright())
    monkeypatch.setattr(evaluate, "score_photos", lambda *_: pytest.fail("scored"))
    monkeypatch.chdir(tmp_path)
    for folder in ("image", "mask"):
        write(tmp_path / "data" / folder, {f"{number}.png": GOOD["png.jpg"] for number in range(5)})
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--data_dir", "data", "--split", "all", *flags])
    with pytest.raises(SystemExit) as stop:
        utils.run(evaluate.main)
    one_line(stop, told)


def test_evaluate_scores_the_fold_held_out_or_the_part_asked_for(celeb: Path, korean: Path) -> None:
    segmenter = Bright()
    index = dataset.open_data(celeb)
    segmenter.facts |= {"fold": 3, "n_folds": 4}
    chosen = evaluate.choose_photos(celeb, segmenter, "valid", None)
    np.testing.assert_array_equal(chosen.row, index.split(3, 4)["valid"])
    part = evaluate.choose_photos(korean, segmenter, "all", None, "sex == '여'")
    assert 0 < len(part) < len(dataset.open_data(korean)) and set(part.labels("sex")) == {"여"}


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/set", "b/set", "c", "run/model.onnx")]
    paths[3].parent.mkdir()
    paths[3].touch()
    assert evaluate.tell_apart(paths) == [str(paths[0]), str(paths[1]), "c", "run/model.onnx"]


@pytest.mark.parametrize("text", ["", "idx orig_idx\n", "머리", "a b\n1 2\n", "idx orig_idx\n0 many\n1 2\n2 3\n"])
def test_a_broken_mapping_file_is_named(tmp_path: Path, text: str) -> None:
    make_celeb(tmp_path, photos=3)
    mapping = tmp_path / "CelebA-HQ-to-CelebA-mapping.txt"
    mapping.write_text(text)
    with pytest.raises(UserError) as error:
        dataset.open_folder(tmp_path).split(0, 2)
    assert str(error.value).startswith(f"{mapping}: ")


def test_stray_files_among_the_annotations(tmp_path: Path) -> None:
    make_celeb(tmp_path, photos=3)
    write(tmp_path / "CelebAMask-HQ-mask-anno" / "0", {"preview.png": b"", "notes.txt": b""})
    assert len(dataset.open_folder(tmp_path)) == 3


# ---------------------------------------------------------------------------------------------------- fuzzed pictures

SEEDS = [GOOD[name] for name in ("머리 사진 1.jpg", "progressive.jpg", "png.jpg", "alpha.png", "palette clear.png")]
SEEDS += [GOOD[name] for name in ("moving.webp", "turned 6 RGBA.tiff", "moving.png", "moving gif.jpg", "windows.bmp")]
edits = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6)


def spoiled(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for kind, place, piece in changes:
        place %= len(data) + 1
        put = {0: piece, 1: piece, 2: b"", 3: b""}[kind]
        data = data[:place] + put + (data[place:] if kind == 1 else data[place + len(piece) :] if kind < 3 else b"")
    return data


def read_all(path: Path) -> None:
    """Every reader gives its own form of result, or its own kind of one-line error."""
    for read, kinds in {
        inference.read_photo: (FileNotFoundError, ValueError),
        pictures.read_image: UserError,
        pictures.check_picture: UserError,
        lambda path: pictures.read_mask(path, SIZE): UserError,
    }.items():
        try:
            result = read(path)
        except kinds as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            continue
        if isinstance(result, tuple):
            assert all(side >= 1 for side in result)
        elif result.ndim == 2:
            assert result.shape == SIZE and result.dtype == np.uint8 and result.max() <= 1
        else:
            assert result.dtype == np.uint8 and result.shape[2] == 3 and result.size


@FUZZ
@given(seed=st.sampled_from(SEEDS), changes=edits)
def test_spoiled_pictures(tmp_path_factory: pytest.TempPathFactory, seed: bytes, changes: list) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.jpg"
    path.write_bytes(spoiled(seed, changes))
    read_all(path)


@FUZZ
@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"]), data=st.binary(max_size=200)
)
def test_random_bytes_are_no_pictures(tmp_path_factory: pytest.TempPathFactory, start: bytes, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.png"
    path.write_bytes(start + data)
    read_all(path)


@FUZZ
@given(height=st.integers(1, 400), width=st.integers(1, 400), size=st.sampled_from([32, 64, 96]))
def test_there_and_back_keeps_the_shape(height: int, width: int, size: int) -> None:
    photo = np.full((height, width, 3), 255, np.uint8)
    square = geometry.preprocess(photo, size, (0, 0, 0), (1, 1, 1))
    assert square.shape == (3, size, size) and square.dtype == np.float32
    back = geometry.restore(square[0], photo.shape)
    assert back.shape == (height, width) and back.dtype == np.float32
    np.testing.assert_allclose(back, 1, atol=1e-6)  # nothing of the square's margin comes in
    wild = geometry.restore(np.tile(np.float32([-5, 5]), (size, size // 2)), photo.shape)
    assert wild.min() >= 0 and wild.max() <= 1


@settings(FUZZ, max_examples=25)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 99), tta=st.booleans())
def test_any_photo_gets_probabilities_of_its_shape(height: int, width: int, seed: int, tta: bool) -> None:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)  # spots: closer looks happen
    photo = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    found = Bright(tta=tta, refine=tta)(photo)
    assert found.shape == (height, width) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1


# ---------------------------------------------------------------------------------------------------- polygons

coordinates = st.floats(-1e4, 1e4, width=32) | st.integers(-(10**6), 10**6) | st.floats(-(2**-10), 2**-10, width=32)
curves = st.lists(st.lists(st.tuples(coordinates, coordinates), max_size=6), max_size=4)


def as_text(points: list, order: str = "xy") -> str:
    named = [[dict(zip("xy", point, strict=True)) for point in curve] for curve in points]
    return str([[{name: point[name] for name in order} for point in curve] for curve in named])


@FUZZ
@given(points=curves, order=st.sampled_from(["xy", "yx"]))
def test_polygons_are_read_as_written(points: list, order: str) -> None:
    read = room.parse_polygon(as_text(points, order))
    written = [np.float32(curve) for curve in points if curve]
    assert len(read) == len(written)
    for one, other in zip(read, written, strict=True):
        np.testing.assert_array_equal(one, other)


@FUZZ
@given(points=curves, changes=edits, junk=st.text("[{'xy': 0123456789.,e-+nan}]", max_size=30), only=st.booleans())
def test_spoiled_polygons_are_curves_or_unusable(points: list, changes: list, junk: str, only: bool) -> None:
    text = junk if only else spoiled(as_text(points).encode(), changes).decode(errors="replace") + junk[:2]
    read, reason = room._usable("a.jpg", text, 60, 40)
    if reason is None:
        assert read and all(curve.shape[0] >= 3 and curve.shape[1] == 2 for curve in read)
        assert all(curve.dtype == np.float32 and np.isfinite(curve).all() for curve in read)
        assert pictures.rasterise(read, SIZE).max() <= 1
    else:
        assert reason in ("no polygon", "polygon cut off", "not a number", "fewer than three points")


@pytest.mark.parametrize("length", range(1, 8))
def test_a_polygon_cut_off_is_not_a_shorter_one(length: int) -> None:
    """As spreadsheets do after 32,767 characters: the last number would lose digits unseen."""
    text = as_text([[(1, 1), (300, 1), (300, 400), (1, 425)]])
    assert room._usable("a.jpg", text, 60, 40)[1] is None
    assert room._usable("a.jpg", text[:-length], 60, 40) == ([], "polygon cut off")


def test_x_and_y_that_change_places_are_refused() -> None:
    with pytest.raises(ValueError):
        room.parse_polygon("[[{'x': 1, 'y': 2}, {'y': 3, 'x': 4}, {'x': 5, 'y': 6}]]")


def test_points_at_the_end_of_the_number_range_stay_finite(tmp_path: Path) -> None:
    rows_of({"a.png": GOOD["png.jpg"]}, tmp_path)
    file = tmp_path / "dataset" / "dataindex_00.csv"
    far = as_text([[(-3e38, -3e38), (3e38, -3e38), (3e38, 3e38), (-3e38, 3e38)]])
    pd.read_csv(file).assign(polygon1=far).to_csv(file, index=False)
    index = room.open_korean(tmp_path)
    with np.errstate(all="raise"):
        assert index.mask(0, (600, 400)).all()

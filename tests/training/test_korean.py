"""The Korean data: polygons, splits, bad rows, bad files, and an index that workers share."""

import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from dataset import HairDataset, PhotoSet
from hair.errors import UserError, run
from hair.outlines import rasterise
from tests import scripts
from tests.pictures import FUZZ, GOOD, SIZE, edits, one_line, small_disk, spoiled, write_korean
from tools.make_sample import draw_head
from training import korean as room
from training.augment import eval_transform
from training.korean import open_korean, parse_polygon

SQUARE = [(1, 1), (3, 1), (3, 3), (1, 3)]


def text(*curves: list[tuple]) -> str:
    """Curves as the CSV files write them."""
    return str([[{"x": x, "y": y} for x, y in curve] for curve in curves])


@pytest.fixture
def copy(korean: Path, tmp_path: Path) -> Path:
    """The drawn data set without an index, to spoil."""
    return Path(shutil.copytree(korean, tmp_path / "korean", ignore=shutil.ignore_patterns("hair_index")))


def change(root: Path, row: int, **values: object) -> None:
    """Overwrite fields of a row of the first CSV file."""
    file = root / "dataset" / "dataindex_00.csv"
    frame = pd.read_csv(file, dtype=str, keep_default_na=False)
    for name, value in values.items():
        frame.loc[row, name] = str(value)
    frame.to_csv(file, index=False)


def indexes(root: Path) -> list[str]:
    """Everything in the index's folder, also what a broken build would leave behind."""
    return sorted(path.name for path in (root / "dataset" / "hair_index").iterdir())


# ---------------------------------------------------------------------------------------------------- polygons


def test_parse_polygon_keeps_every_kind_of_number():
    (curve,) = parse_polygon("[[{'x': -1.5, 'y': 2}, {'x': 1e-05, 'y': 600.25}, {'x': 0, 'y': -0.0}]]")
    assert curve.dtype == np.float32
    np.testing.assert_array_equal(curve, np.float32([[-1.5, 2], [1e-05, 600.25], [0, 0]]))


def test_parse_polygon_keeps_curves_apart_and_the_order_of_x_and_y():
    one, two = parse_polygon("[[{'x': 1, 'y': 2}, {'x': 3, 'y': 4}], [], [{'y': 5, 'x': 6}]]")
    assert one.tolist() == [[1, 2], [3, 4]] and two.tolist() == [[6, 5]]


@pytest.mark.parametrize("point", ["{'x': nan, 'y': 1}", "{'x': None, 'y': 1}", "{'x': 1}", "{'x': 1e99, 'y': 1}"])
def test_parse_polygon_refuses_what_is_no_number(point):
    with pytest.raises(ValueError), np.errstate(over="ignore"):
        parse_polygon(f"[[{{'x': 1, 'y': 1}}, {point}]]")


coordinates = st.floats(-1e4, 1e4, width=32) | st.integers(-(10**6), 10**6) | st.floats(-(2**-10), 2**-10, width=32)
curves = st.lists(st.lists(st.tuples(coordinates, coordinates), max_size=6), max_size=4)


def as_text(points: list, order: str = "xy") -> str:
    named = [[dict(zip("xy", point, strict=True)) for point in curve] for curve in points]
    return str([[{name: point[name] for name in order} for point in curve] for curve in named])


@FUZZ
@given(points=curves, order=st.sampled_from(["xy", "yx"]))
def test_polygons_are_read_as_written(points: list, order: str) -> None:
    read = parse_polygon(as_text(points, order))
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
        assert rasterise(read, SIZE).max() <= 1
    else:
        assert reason in ("no polygon", "truncated polygon", "not a number", "fewer than three points")


@pytest.mark.parametrize("length", range(1, 8))
def test_a_polygon_cut_off_is_not_a_shorter_one(length: int) -> None:
    """As spreadsheets do after 32,767 characters: the last number would lose digits unseen."""
    text = as_text([[(1, 1), (300, 1), (300, 400), (1, 425)]])
    assert room._usable("a.jpg", text, 60, 40)[1] is None
    assert room._usable("a.jpg", text[:-length], 60, 40) == ([], "truncated polygon")


def test_x_and_y_that_change_places_are_refused() -> None:
    with pytest.raises(ValueError):
        parse_polygon("[[{'x': 1, 'y': 2}, {'y': 3, 'x': 4}, {'x': 5, 'y': 6}]]")


# ---------------------------------------------------------------------------------------------------- the index


def test_masks_are_those_that_were_drawn(korean):
    """Both forms of `path` lead to their photo, and the polygon to the drawn hair without the face."""
    index = open_korean(korean)
    assert len(index) == 36 and open_korean(korean / "dataset").folder == index.folder
    rng, drawn = np.random.default_rng(0), {}
    for part in (1, 2):  # in the order in which make_korean draws
        for person in range(part - 1, 12, 2):
            for photo in range(3):
                drawn[f"AP{person:06d}-{photo:03d}"] = draw_head(rng, 128)[2] > 0
    for row in range(len(index)):
        index.check(row)
        mask, expected = index.mask(row, (128, 128)), drawn[index.photo(row).stem]
        assert (mask & expected).sum() / (mask | expected).sum() > 0.9
    big = index.mask(0, (256, 256))
    assert big.shape == (256, 256) and abs(big.mean() - index.mask(0, (128, 128)).mean()) < 0.01


def test_points_at_the_end_of_the_number_range_stay_finite(tmp_path: Path) -> None:
    write_korean(tmp_path, {"a.png": GOOD["png.jpg"]})
    file = tmp_path / "dataset" / "dataindex_00.csv"
    far = as_text([[(-3e38, -3e38), (3e38, -3e38), (3e38, 3e38), (-3e38, 3e38)]])
    pd.read_csv(file).assign(polygon1=far).to_csv(file, index=False)
    index = open_korean(tmp_path)
    with np.errstate(all="raise"):
        assert index.mask(0, (600, 400)).all()


def test_a_path_with_images_finds_a_photo_in_images_and_without(copy):
    folder = copy / "dataset" / "partition1"
    (folder / "images").mkdir()
    for photo in list(folder.glob("*-000.jpg")):  # their rows have no `images/`
        photo.rename(folder / "images" / photo.name)
    index = open_korean(copy)
    assert len(index) == 36 and all(index.photo(row).is_file() for row in range(36))


def test_partitions_may_be_links_to_another_disk(copy, tmp_path):
    home = copy / "dataset"
    before = len(open_korean(copy))
    shutil.move(home / "partition1", tmp_path / "elsewhere")
    (home / "partition1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(home)
    index = open_korean(copy)
    assert len(index) == before
    assert all(index.photo(i).is_file() for i in range(before))


def test_index_is_kept_and_follows_csv_files_and_photos(copy):
    first = open_korean(copy)
    built = (first.folder / "points.f32").stat().st_mtime_ns
    assert (open_korean(copy).folder / "points.f32").stat().st_mtime_ns == built
    change(copy, 0, polygon1=text(SQUARE))
    second = open_korean(copy)
    assert indexes(copy) == sorted([first.folder.name, second.folder.name])
    assert len(first.labels()) == 36, "a training that began before goes on with its own index"
    old = time.time() - room.KEPT - 1
    os.utime(first.folder, (old, old))
    np.testing.assert_array_equal(second.polygon(0)[0], np.float32(SQUARE))
    second.photo(0).rename(copy / "gone.jpg")
    assert len(open_korean(copy)) == 35
    assert first.folder.name not in indexes(copy)


def test_index_of_another_version_is_left_alone(copy, monkeypatch):
    monkeypatch.setattr(room, "INDEX_VERSION", room.INDEX_VERSION - 1)
    older = open_korean(copy).folder
    monkeypatch.undo()
    newer = open_korean(copy).folder
    assert indexes(copy) == sorted([older.name, newer.name]) and older != newer


def test_read_only_data_folder_falls_back_to_the_cache(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(room.os, "access", lambda path, mode: False)  # root may write anywhere
    index = open_korean(copy)
    assert index.folder.is_relative_to(tmp_path / "cache") and not (copy / "dataset" / "hair_index").exists()
    assert open_korean(copy).folder == index.folder


def test_damaged_index_is_named(copy):
    folder = open_korean(copy).folder
    content = (folder / "points.f32").read_bytes()
    (folder / "points.f32").write_bytes(content[: len(content) // 2 // 8 * 8])
    with pytest.raises(UserError, match=rf"{folder.name}: the index is damaged .* remove this folder"):
        open_korean(copy)
    (folder / "points.f32").write_bytes(content)
    labels = (folder / "labels.csv").read_bytes()
    for cut in (labels.rindex(b"\n", 0, len(labels) // 2), labels.index("장".encode()) + 1):  # a row's end; a letter
        (folder / "labels.csv").write_bytes(labels[:cut])
        with pytest.raises(UserError, match="the index is damaged"):
            open_korean(copy).split(0, 3)
    sizes = np.load(folder / "sizes.npy")
    np.save(folder / "sizes.npy", sizes[:-1])
    with pytest.raises(UserError, match="the index is damaged"):
        open_korean(copy)
    np.save(folder / "sizes.npy", sizes)
    (folder / "unusable.json").write_text("[]")
    with pytest.raises(UserError, match="the index is damaged"):
        open_korean(copy)


def test_an_index_folder_of_somebody_else_or_no_home(copy, tmp_path, monkeypatch):
    (copy / "dataset" / "hair_index").mkdir()
    monkeypatch.setattr(room.os, "access", lambda path, mode: Path(path).name != "hair_index")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert open_korean(copy).folder.is_relative_to(tmp_path / "cache")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # unset, says its specification
    monkeypatch.setattr(Path, "home", lambda: pytest.fail("not every user has one"))
    assert open_korean(copy).folder.is_relative_to(copy)


def test_spawned_workers_map_the_index_instead_of_copying_it(korean):
    index = open_korean(korean)
    assert len(pickle.dumps(index)) < 1000
    copied = pickle.loads(pickle.dumps(index))
    assert all(isinstance(getattr(copied, name), np.memmap) for name in ("paths", "sizes", "rows", "curves", "points"))
    photos = PhotoSet([index], [np.arange(4)])
    dataset = HairDataset(photos, eval_transform(64))
    loader = DataLoader(dataset, 4, num_workers=1, multiprocessing_context="spawn")
    images, masks, numbers = next(iter(loader))
    assert images.shape == (4, 3, 64, 64) and masks.sum() > 0 and numbers.tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------------------------------------------- splits


def grouped(copy: Path) -> pd.DataFrame:
    """Give the drawn data set 60 people of two sexes and two lengths; returns the index's labels."""
    rows = []
    for person in range(60):
        for photo in range(1 + person % 3):
            rows.append({"path": f"/main/dataset/partition1/AP{2 * (person % 6):06d}-{photo:03d}.jpg"})
            rows[-1] |= {"source": f"P{person}", "polygon1": text(SQUARE), "height": 128, "width": 128}
            rows[-1] |= {"sex": "여남"[person % 2], "length": ("장발", "단발")[person // 2 % 2], "age": person}
    (copy / "dataset" / "dataindex_01.csv").unlink()
    pd.DataFrame(rows).to_csv(copy / "dataset" / "dataindex_00.csv", index=False)
    return open_korean(copy).labels()


def test_folds_keep_people_whole_and_styles_balanced(copy):
    labels = grouped(copy)
    index, seen = open_korean(copy), []
    for fold in range(5):
        rows = index.split(fold, 5)
        people = {side: set(labels["source"][rows[side]]) for side in rows}
        assert not people["train"] & people["valid"]
        assert len(rows["train"]) + len(rows["valid"]) == len(index)
        for name in ("sex", "length"):
            shares = [labels[name][rows[side]].value_counts(normalize=True) for side in ("train", "valid")]
            assert (shares[0] - shares[1]).abs().max() < 0.12
        seen.extend(rows["valid"].tolist())
    assert sorted(seen) == list(range(len(index)))


def test_no_person_is_on_both_sides_of_a_korean_split(korean: Path) -> None:
    index = open_korean(korean)
    source = index.labels()["source"].to_numpy()
    for fold in range(3):
        parts = index.split(fold, 3)
        assert not set(source[parts["train"]]) & set(source[parts["valid"]])
        assert len(parts["train"]) + len(parts["valid"]) == len(index) == 36


def test_filter_narrows_both_sides_of_the_same_folds(copy):
    labels = grouped(copy)
    everyone = open_korean(copy).split(1, 5)
    chosen = open_korean(copy, "length == '장발' and age < 40").split(1, 5)
    keep = ((labels["length"] == "장발") & (labels["age"] < 40)).to_numpy()
    for side in ("train", "valid"):
        np.testing.assert_array_equal(chosen[side], everyone[side][keep[everyone[side]]])


@pytest.mark.parametrize(
    "query, message",
    [
        ("lenght == '장발'", "columns are source, sex"),
        ("length ==", "columns are"),
        ("(length == '장발'", "columns are"),
        ("age + 1", "is not a condition"),
        ("age > 1000", "leaves 0 photos"),
        ("1/0 > 2", "division by zero"),
        ("age[1:3] > 1", "is not a condition"),
    ],
)
def test_wrong_filter_is_one_clear_line(korean, query, message):
    with pytest.raises(UserError, match=message) as error:
        open_korean(korean, query).split(0, 3)
    assert "\n" not in str(error.value)


def test_train_korean_takes_filter_and_strict(copy, tmp_path):
    change(copy, 0, polygon1="")
    for flags, message in (
        (["--strict"], "no polygon 1"),
        (["--filter", "age > 1000"], 'error: --filter "age > 1000" leaves 0'),
    ):
        assert scripts.run(tmp_path, "--data_dir", copy, *flags, script="train_korean") == 1
        last = (tmp_path / "out.txt").read_text().splitlines()[-1]
        assert last.startswith("error: ") and message in last


# ---------------------------------------------------------------------------------------------------- bad rows


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"path": "/main/dataset/partition1/AP999999-000.jpg"}, "no file"),
        ({"path": ""}, "no file"),
        ({"polygon1": ""}, "no polygon"),
        ({"polygon1": "[]"}, "no polygon"),
        ({"polygon1": "[[]]"}, "no polygon"),
        ({"polygon1": text(SQUARE[:2])}, "fewer than three points"),
        ({"polygon1": "[[{'x': nan, 'y': 1}, {'x': 2, 'y': 2}, {'x': 3, 'y': 1}]]"}, "not a number"),
        ({"height": "tall"}, "not a number"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_and_listed(copy, capsys, values, reason):
    path = values.get("path", "/main/dataset/partition1/AP000000-000.jpg")
    change(copy, 0, **values)
    index = open_korean(copy)
    assert len(index) == 35 and index.unusable == {reason: 1}
    assert f"1 of 36 rows cannot be used ({reason} 1)" in capsys.readouterr().out
    listed = pd.read_csv(index.folder / "unusable.csv", keep_default_na=False).to_dict("records")
    assert listed == [{"file": "dataindex_00.csv", "row": 1, "path": path, "reason": reason}]
    with pytest.raises(UserError, match="--strict"):  # also where the index is there already
        open_korean(copy, strict=True)


def test_a_frame_of_other_proportions_is_reported_in_whole_pixels(copy):
    change(copy, 0, height=64)
    with pytest.raises(
        UserError, match=r"jpg: the photo is 128×128, but its label was drawn on 128×64; fix or remove its row"
    ):
        open_korean(copy).check(0)


def test_a_short_curve_beside_a_whole_one_is_dropped(copy):
    change(copy, 0, polygon1=text(SQUARE, SQUARE[:2]))
    index = open_korean(copy, strict=True)
    assert len(index) == 36 and len(index.polygon(0)) == 1


def test_more_than_a_tenth_is_an_error_with_a_list(copy):
    for row in range(4):
        change(copy, row, polygon1="")
    with pytest.raises(UserError, match=r"4 of 36 rows cannot be used \(no polygon 4\).*more than a tenth") as error:
        open_korean(copy)
    listed = Path(str(error.value).split("listed in ")[1].split(";")[0])
    assert len(pd.read_csv(listed)) == 4


def test_no_usable_row_at_all(copy):
    for photo in (copy / "dataset").glob("*/*.jpg"):
        photo.unlink()
    with pytest.raises(UserError, match=r"no row can be used; the first is dataindex_00\.csv row 1: no file"):
        open_korean(copy)


# ---------------------------------------------------------------------------------------------------- bad files


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-2000])  # inside a polygon


def cut_between_fields(file: Path) -> None:
    file.write_bytes(file.read_bytes().rstrip().rpartition(b",")[0])


def recode(file: Path) -> None:
    file.write_bytes(file.read_text(encoding="utf-8").encode("cp949"))


def drop_column(file: Path) -> None:
    pd.read_csv(file).drop(columns="polygon1").to_csv(file, index=False)


def empty(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize(
    "spoil, message",
    [
        (cut, "truncated; download it again"),
        (cut_between_fields, "ends in the middle of a row; download it again"),
        (recode, "is not UTF-8 text"),
        (drop_column, "the column polygon1 is missing"),
        (empty, "download it again"),
    ],
)
def test_bad_csv_is_one_clear_line_and_the_index_stays(copy, spoil, message):
    before = open_korean(copy).folder
    content = (before / "points.f32").read_bytes()
    file = copy / "dataset" / "dataindex_01.csv"
    spoil(file)
    with pytest.raises(UserError) as error:
        open_korean(copy)
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)
    assert "\n" not in str(error.value)
    assert indexes(copy) == [before.name] and (before / "points.f32").read_bytes() == content


def test_last_row_without_line_end_is_whole(copy):
    file = copy / "dataset" / "dataindex_01.csv"
    file.write_bytes(file.read_bytes().rstrip())
    assert len(open_korean(copy)) == 36


def test_full_disk_is_one_clear_line_and_the_index_stays(copy):
    before = open_korean(copy).folder
    change(copy, 0, polygon1=text(SQUARE))
    with small_disk(5000), pytest.raises(SystemExit) as stop:
        run(lambda: open_korean(copy))
    one_line(stop, before.parent, "the index could not be written")
    assert indexes(copy) == [before.name]


def test_no_csv_files_names_the_readme(tmp_path):
    with pytest.raises(UserError, match=r"no dataindex_\*\.csv; data/README.md"):
        open_korean(tmp_path)

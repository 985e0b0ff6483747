"""Every photo and mask is scored right or named before it is, and scores of hours are not lost."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import evaluate
from dataset import PhotoSet, open_data
from hair.errors import UserError, run
from tests.pictures import BAD, GOOD, HAIR, SIZE, Bright, encoded, one_line, small_disk, turned, write, write_korean
from training import scoring


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


@pytest.mark.parametrize("layout", ["folder", "korean"])
def test_evaluation_finds_the_hair_of_every_form(tmp_path: Path, layout: str) -> None:
    files = {f"{i} {name}": data for i, (name, data) in enumerate(GOOD.items()) if name.isprintable()}
    if layout == "korean":
        write_korean(tmp_path, files)
    else:
        write(tmp_path / "image", files)
        masks = list(mask_files().items())  # each of its own form, in turn
        for i, name in enumerate(files):
            kind, data = masks[i % len(masks)]
            write(tmp_path / "mask", {Path(name).stem + Path(kind).suffix: data})
    photos = PhotoSet([open_data(tmp_path)], [np.arange(len(files))])
    photos.check()
    rows = scoring.score_photos(Bright(), photos, 0.5)
    assert len(rows) == len(files)
    assert {Path(row.path).name: row.dice for row in rows.itertuples() if row.dice < 0.9} == {}


@pytest.mark.parametrize("kind", ["photo", "mask", "korean"])
def test_each_bad_file_is_named_before_it_is_scored(tmp_path: Path, kind: str) -> None:
    files = {f"{i} {name}": data for i, (name, data) in enumerate(BAD.items())}
    if kind == "korean":
        write_korean(tmp_path, files)
        index = open_data(tmp_path)
    else:
        good = {Path(name).stem + ".png": GOOD["png.jpg"] for name in files}
        write(tmp_path / "image", files if kind == "photo" else good)
        write(tmp_path / "mask", good if kind == "photo" else files)
        index = open_data(tmp_path)
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


def test_evaluate_scores_the_fold_held_out_or_the_part_asked_for(celeb: Path, korean: Path) -> None:
    segmenter = Bright()
    index = open_data(celeb)
    segmenter.facts |= {"fold": 3, "n_folds": 4}
    chosen = scoring.choose_photos(celeb, segmenter)
    np.testing.assert_array_equal(chosen.row, index.split(3, 4)["valid"])
    part = scoring.choose_photos(korean, segmenter, scoring.Selection("all", query="sex == '여'"))
    assert 0 < len(part) < len(open_data(korean)) and set(part.labels("sex")) == {"여"}


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a/set", "b/set", "c", "run/model.onnx")]
    paths[3].parent.mkdir()
    paths[3].touch()
    assert scoring.distinct_names(paths) == [str(paths[0]), str(paths[1]), "c", "run/model.onnx"]


# ---------------------------------------------------------------------------------------------------- evaluate.py


def test_evaluate_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("hair.cli.HairSegmenter", lambda **_: Bright())
    monkeypatch.chdir(tmp_path)
    long = np.zeros((1, 2000), np.uint8)
    long[:, 600:] = 255
    for name, mask in {"a": long, "b": long.T, "c": long[:, :1], "머리 d": HAIR.astype(np.uint8) * 255}.items():
        for folder in ("image", "mask"):
            write(tmp_path / "data" / folder, {f"{name}.png": encoded(Image.fromarray(mask), "PNG")})
    flags = ["--data_dir", "data", "--split", "all", "--worst", "4", "--json", "scores.json"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *flags])
    run(evaluate.main)
    assert json.loads(Path("scores.json").read_text())["dice"] > 0.95
    (sheet,) = Path("result").iterdir()
    assert np.asarray(Image.open(sheet)).shape == (280, 1024, 3)
    before = sheet.read_bytes()

    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    write(tmp_path / "data" / "image", {"머리 d.png": encoded(Image.fromarray(noise), "PNG")})
    with small_disk(4000), pytest.raises(SystemExit) as stop:
        run(evaluate.main)
    one_line(stop, sheet.name)
    assert sheet.read_bytes() == before and len(list(Path("result").iterdir())) == 1

    capsys.readouterr()
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    (tmp_path / "data" / "image" / "b.png").write_bytes(jpeg[: len(jpeg) // 2])
    with pytest.raises(SystemExit) as stop:
        run(evaluate.main)
    one_line(stop, Path("data/image/b.png"))
    assert "dice" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--by", "length"], "has no labels"),
        (["--data_dir", "data", "nowhere"], "nowhere: no such folder"),
        (["--filter", "age > 30"], "data: has no labels for --filter"),
        (["--split", "valid"], "give --fold"),
    ],
)
def test_evaluate_finds_what_is_wrong_before_it_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], message: str
) -> None:
    monkeypatch.setattr("hair.cli.HairSegmenter", lambda **_: Bright())
    monkeypatch.setattr(scoring, "score_photos", lambda *_: pytest.fail("scored"))
    monkeypatch.chdir(tmp_path)
    for folder in ("image", "mask"):
        write(tmp_path / "data" / folder, {f"{number}.png": GOOD["png.jpg"] for number in range(5)})
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "--data_dir", "data", "--split", "all", *flags])
    with pytest.raises(SystemExit) as stop:
        run(evaluate.main)
    one_line(stop, message)


class PixelBrightness:
    """Takes bright pixels for hair."""

    facts: dict = {}  # noqa: RUF012
    threshold, img_size = 0.5, 32

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return image[..., 0] / np.float32(255)


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run evaluate.py in a folder with a data set of four photos, `data`; returns the photos scored by then."""
    count: list[int] = []
    score = scoring.score_photos
    monkeypatch.setattr("hair.cli.HairSegmenter", lambda **_: PixelBrightness())
    monkeypatch.setattr(scoring, "score_photos", lambda *given: count.append(1) or score(*given))
    monkeypatch.chdir(tmp_path)
    for folder in ("image", "mask"):
        Path("data", folder).mkdir(parents=True)
        for number in range(4):
            picture = np.zeros((40, 40), np.uint8)
            picture[: 10 * number] = 255
            Image.fromarray(picture).save(Path("data", folder, f"{number}.png"))

    def evaluated(*flags: str) -> list[int]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--data_dir", "data", *flags])
        run(evaluate.main)
        return count

    evaluated.count = count
    return evaluated


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--worst", "1", "--output_dir", "file"], "file: no results"),
        (["--json", "file/scores.json"], "file: no results"),
        (["--json", "data"], "data: is a folder"),
        (["--threshold", "0"], "--threshold 0.0 is not between 0 and 1"),
        (["--threshold", "nan"], "--threshold nan is not between 0 and 1"),
        (["--fold", "1"], "--fold 1 goes with --split valid or test"),
        (["--split", "valid", "--fold", "5"], "--fold 5 is out of range"),
    ],
)
def test_mistakes_are_found_before_anything_is_scored(scored, flags: list[str], message: str) -> None:
    Path("file").touch()
    with pytest.raises(SystemExit) as stop:
        scored("--split", "all", *flags)
    one_line(stop, message)
    assert not scored.count


def test_the_table_is_there_before_the_sheets(
    scored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(path: Path, _: np.ndarray) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(evaluate, "write_png", full)
    with pytest.raises(SystemExit) as stop:
        scored("--split", "all", "--worst", "1", "--json", "new/scores.json")
    one_line(stop, Path("result", "worst_"))
    assert "| 4 | 1.0000 |" in capsys.readouterr().out and Path("new", "scores.json").is_file()


def test_the_same_photos_twice_make_two_sheets(scored) -> None:
    scored("data", "--split", "all", "--worst", "1")
    assert len(list(Path("result").iterdir())) == 2


def test_photos_without_the_label_are_a_group(
    scored, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    labels = pd.Series(["long", None, "long", np.nan])
    monkeypatch.setattr(PhotoSet, "labels", lambda *_: labels)
    scored("--split", "all", "--by", "length")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["data (all)", "length = long", "length = (no label)"]
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["4", "2", "2"]


def test_the_help_names_exported_files() -> None:
    assert "exported files" in " ".join(evaluate.build_parser().format_help().split())

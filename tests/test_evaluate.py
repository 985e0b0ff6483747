"""Scores of hours are not lost, what the user can have wrong is told before, and every photo is in the table."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from faults import one_line
from PIL import Image

import evaluate
import utils


class Bright:
    """Takes bright pixels for hair."""

    facts: dict = {}  # noqa: RUF012
    threshold, img_size = 0.5, 32

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return image[..., 0] / np.float32(255)


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run evaluate.py in a folder with a data set of four photos, `data`; returns the photos scored by then."""
    count: list[int] = []
    score = evaluate.score_photos
    monkeypatch.setattr(evaluate, "HairSegmenter", lambda *_: Bright())
    monkeypatch.setattr(evaluate, "score_photos", lambda *given: count.append(1) or score(*given))
    monkeypatch.chdir(tmp_path)
    for folder in ("image", "mask"):
        Path("data", folder).mkdir(parents=True)
        for number in range(4):
            picture = np.zeros((40, 40), np.uint8)
            picture[: 10 * number] = 255
            Image.fromarray(picture).save(Path("data", folder, f"{number}.png"))

    def run(*flags: str) -> list[int]:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--data_dir", "data", *flags])
        utils.run(evaluate.main)
        return count

    run.count = count
    return run


@pytest.mark.parametrize(
    ("flags", "told"),
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
def test_told_before_anything_is_scored(scored, flags: list[str], told: str) -> None:
    Path("file").touch()
    with pytest.raises(SystemExit) as stop:
        scored("--split", "all", *flags)
    one_line(stop, told)
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
    monkeypatch.setattr(evaluate.PhotoSet, "labels", lambda *_: labels)
    scored("--split", "all", "--by", "length")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["data (all)", "length = long", "length = (no label)"]
    assert [line.split("|")[4].strip() for line in lines[2:]] == ["4", "2", "2"]


def test_exported_files_are_told_in_the_help() -> None:
    assert "exported files" in " ".join(evaluate.build_parser().format_help().split())

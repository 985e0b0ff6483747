"""Every row of `benchmarks/robustness.py` on drawn photos, and what it writes."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import robustness
from dataset import PhotoSet, open_data
from hair.errors import run
from tests.pictures import HAIR, PHOTO, Bright, encoded, one_line, write


@pytest.fixture
def portraits(tmp_path: Path) -> Path:
    """Ten photos whose hair is what is bright."""
    files = {f"{i}.png": encoded(Image.fromarray(PHOTO), "PNG") for i in range(10)}
    masks = {name: encoded(Image.fromarray(HAIR.astype(np.uint8) * 255), "PNG") for name in files}
    write(tmp_path / "set" / "image", files)
    write(tmp_path / "set" / "mask", masks)
    return tmp_path / "set"


def test_all_rows_of_two_models(
    portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(robustness, "HairSegmenter", lambda *_, **__: Bright())
    monkeypatch.setattr(robustness, "MediaPipeHair", lambda _: Bright())
    monkeypatch.setattr(robustness, "GROUP_WIDTH", 400)
    dark, bright = (np.full((20, 20, 3), value, np.uint8) for value in (0, 255))
    pictures = {f"{i}.png": encoded(Image.fromarray(pixels), "PNG") for i, pixels in enumerate((dark, bright))}
    paths = write(tmp_path / "empty", pictures)
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    flags = ["--data_dir", str(portraits), "--limit", "2", "--csv", str(tmp_path / "rows.csv"), "--mediapipe", "file"]
    flags += ["--backgrounds", str(tmp_path / "empty"), str(tmp_path / "list.txt"), "--weights", "one"]
    monkeypatch.setattr(sys, "argv", ["robustness.py", *flags])
    run(robustness.main)
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = ["set", "turned", "dim", "blurred", "heads at 1/4", "heads at 1/8", "group", "empty", "list"]
    assert [row["kind"] for row in rows] == [kind for kind in kinds for _ in range(2)]
    assert {row["photos"] for row in rows} == {"2"}
    scores = {row["kind"]: row["dice"] for row in rows if row["model"] == "MediaPipe"}
    assert all(float(scores[kind]) > 0.9 for kind in ("set", "turned", "group"))
    assert [float(row["false_hair"]) for row in rows[-4:]] == [1] * 4
    table = capsys.readouterr().out.splitlines()
    assert table[0].split(" | ")[1:] == ["photos", "one", "one ms", "MediaPipe", "MediaPipe ms |"]
    assert len(table) == 2 + len(kinds)


def test_masks_stay_on_their_photos(portraits: Path) -> None:
    index = open_data(portraits)
    heads = PhotoSet([index], [np.arange(10)])
    empty = np.zeros((300, 200, 3), np.uint8)
    made = [change(*heads.load(i), i) for change in (robustness.turned, robustness.blurred) for i in range(3)]
    made += [robustness.paste(*heads.load(0), empty, share, seed) for share in robustness.SHARES for seed in range(3)]
    made += [robustness.group(heads, number) for number in range(2)]
    for photo, mask in made:
        assert photo.shape[:2] == mask.shape and mask.max() == 1
        both = ((photo[..., 0] > 127) & (mask > 0)).sum()
        assert 2 * both / ((photo[..., 0] > 127).sum() + mask.sum()) > 0.9


def test_what_is_missing_is_one_line(portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "HairSegmenter", lambda *_, **__: Bright())
    for flags, message in [(["--mediapipe", "nowhere.tflite"], "nowhere.tflite"), (["--fold", "7"], "--fold 7")]:
        monkeypatch.setattr(sys, "argv", ["robustness.py", "--data_dir", str(portraits), *flags])
        with pytest.raises(SystemExit) as stop:
            run(robustness.main)
        one_line(stop, message)

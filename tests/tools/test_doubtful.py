"""Labels that a model disputes are listed, in a file that --exclude takes."""

import csv
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import dataset
from hair import read_photo
from tests.pictures import Bright, write_picture
from tools import doubtful
from training.scoring import agreement
from training.sources import excluded_rows


def test_wrong_labels_are_listed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    data = tmp_path / "mine"
    photo = np.full((64, 64, 3), 10, np.uint8)
    photo[:32] = 245
    hair = np.where(photo[..., 0] > 99, 255, 0).astype(np.uint8)
    wrong = {4: np.zeros_like(hair), 7: hair[::-1], 11: np.roll(hair, 12, 0)}
    data.mkdir()
    for number in range(20):
        write_picture(data / "image" / f"{number}.png", photo)
        write_picture(data / "mask" / f"{number}.png", wrong.get(number, hair))
    monkeypatch.setattr("hair.cli.HairSegmenter", lambda **_: Bright())
    flags = ["--data_dir", str(data), "--share", "0.15", "--tiles", "4", "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["doubtful", *flags])
    doubtful.main()
    listed = list(csv.DictReader((tmp_path / "out" / "doubtful.csv").open()))
    assert {Path(row["path"]).stem for row in listed[:2]} == {"4", "7"} and Path(listed[2]["path"]).stem == "11"
    assert float(listed[0]["agreement"]) < 0.2 < float(listed[2]["agreement"]) < 0.9
    assert excluded_rows([dataset.open_data(data)], tmp_path / "out" / "doubtful.csv")[0].tolist() == [4, 7, 11]
    assert read_photo(tmp_path / "out" / "doubtful.png").shape == (280, 1024, 3)
    assert "3 of 20 photos in" in capsys.readouterr().out


def test_agreement_counts_pixels_of_which_the_model_is_sure() -> None:
    hair = np.zeros((100, 100), bool)
    hair[:50] = True
    sure = np.where(hair, 0.99, 0.01)
    assert agreement(sure, hair, 0.5) == 1
    assert agreement(1 - sure, hair, 0.5) < 0.02
    unsure = sure.copy()
    unsure[40:50], sure[40:50] = 0.45, 0.01
    assert agreement(unsure, hair, 0.5) > agreement(sure, hair, 0.5)
    few = np.where(cv2.circle(np.zeros((100, 100), np.uint8), (50, 50), 2, 1, -1), 0.9, 0.01)
    assert agreement(few, hair & False, 0.5) > 0.8, "a few pixels are no matter where there is no hair"

"""The drawn data sets are those that the README's short run and the other tests take for real ones."""

import sys

import cv2
import numpy as np

import dataset
from tools import make_sample


def test_both_data_sets_can_be_opened_and_are_the_same_each_time(tmp_path, monkeypatch, capsys):
    for name in ("one", "two"):
        monkeypatch.setattr(sys, "argv", ["make_sample", "--output_dir", str(tmp_path / name)])
        make_sample.main()
    celeb, korean = (tmp_path / "one" / name for name in ("CelebAMask-HQ", "ganhackerton"))
    assert capsys.readouterr().out.startswith(f"drawn: {celeb} and {korean}\n")
    assert len(dataset.open_folder(celeb)) == 36  # of 40: those with hair
    assert len(dataset.open_korean(korean)) == 36
    files = [path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()]
    assert files and all(
        (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files
    )


def test_every_tenth_head_has_no_hair(tmp_path):
    make_sample.make_celeb(tmp_path, photos=20)
    masks = {path.name[:5] for path in (tmp_path / "CelebAMask-HQ-mask-anno" / "0").glob("*_hair.png")}
    assert sorted({f"{number:05d}" for number in range(20)} - masks) == ["00009", "00019"]


def test_a_head_and_its_outline_agree():
    image, outline, mask = make_sample.draw_head(np.random.default_rng(0), 128)
    filled = cv2.fillPoly(np.zeros_like(mask), [np.round(outline).astype(np.int32)], 255)
    assert image.shape == (128, 128, 3) and set(np.unique(mask)) == {0, 255}
    assert (filled == mask).mean() > 0.98
    assert not make_sample.draw_head(np.random.default_rng(0), 128, hair=False)[2].any()

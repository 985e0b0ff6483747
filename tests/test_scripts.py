"""The scripts as a user runs them, each in a process of its own, on drawn data."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.scripts import run

SMALL = ["--img_size=64", "--batch_size=4", "--encoder_weights=none", "--encoder_lr=1e-4", "--device=cpu"]


def rows(log: Path) -> list[dict]:
    with log.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, celeb: Path) -> Path:
    """A run folder of train_celeb.py after three epochs on 36 drawn heads."""
    output = tmp_path_factory.mktemp("weights")
    flags = ["--data_dir", str(celeb), "--epochs", "3", "--output_dir", str(output), *SMALL]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train_celeb.py"), *flags], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "best Dice" in done.stdout
    return output / "timm-efficientnet-b0_Unet_celeb"


def test_train_celeb_learns_and_leaves_a_run_folder(trained: Path) -> None:
    log = rows(trained / "log.csv")
    assert [row["epoch"] for row in log] == ["1", "2", "3"]
    assert float(log[-1]["loss"]) < float(log[0]["loss"])
    assert max(float(row["valid_dice"]) for row in log) > 0.3
    config = json.loads((trained / "config.json").read_text())
    assert config["encoder_name"] == "timm-efficientnet-b0"
    assert config["_hair"]["img_size"] == 64
    assert config["_hair"]["scores"]["dice"] == pytest.approx(max(float(row["valid_dice"]) for row in log))
    for name in ("model.safetensors", "last.pth", "args.json", "tensorboard"):
        assert (trained / name).exists()
    assert not [path for path in trained.iterdir() if path.name.startswith(".")]


def test_train_korean_learns_and_names_its_run_after_the_preset(cli, korean: Path, tmp_path: Path) -> None:
    flags = ["--data_dir", korean, "--preset", "light", "--epochs", "2", "--grad_accum", "2", "--apex", *SMALL]
    done = cli("train_korean.py", *flags, "--decoder_type", "LinkNet", "--ema", "0.9")
    assert done.returncode == 0, done.stderr
    log = rows(tmp_path / "weights" / "timm-efficientnet-b0_Linknet_light" / "log.csv")
    assert float(log[1]["loss"]) < float(log[0]["loss"])


def test_inference_finds_the_drawn_hair(cli, trained: Path, celeb: Path, tmp_path: Path) -> None:
    photo = celeb / "CelebA-HQ-img" / "0.jpg"
    done = cli("inference.py", "--input", photo, "--weights", trained, "--img_size", "64", "--backend", "torch")
    assert done.returncode == 0, done.stderr
    mask = cv2.imread(str(tmp_path / "result" / "0_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) <= {0, 255}
    assert (tmp_path / "result" / "0_overlay.png").is_file()
    assert f"{(mask > 0).mean():.1%}" in done.stdout


def test_evaluate_agrees_with_the_training_log(cli, trained: Path, celeb: Path, tmp_path: Path) -> None:
    flags = ["--data_dir", celeb, "--weights", trained, "--img_size", "64", "--json", "scores.json", "--worst", "3"]
    done = cli("evaluate.py", *flags, "--backend", "torch")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    keys = {
        "photos",
        "dice",
        "iou",
        "dice_per_photo",
        "precision",
        "recall",
        "boundary_f1",
        "weights",
        "data",
        "img_size",
    }
    assert keys == set(scores)
    assert scores["photos"] == 8  # the fifth of 36 that the training held out
    best = max(float(row["valid_dice"]) for row in rows(trained / "log.csv"))
    assert scores["dice"] == pytest.approx(best, abs=0.05)  # here at 128 pixels, there at 64
    assert f"{scores['dice']:.4f}" in done.stdout
    assert cv2.imread(str(tmp_path / "result" / f"worst_{trained.name}_{celeb.name}.png")).shape == (280, 1024, 3)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train_celeb.py --data_dir nowhere", "error: nowhere: no such folder; data/README.md"),
        ("train_korean.py --data_dir nowhere", "data/README.md says how to get the data"),
        ("train_celeb.py --data_dir {celeb} --encoder_type resnet5", "there is no encoder 'resnet5'"),
        ("train_celeb.py --data_dir {celeb} --decoder_type Unett", "there is no decoder 'Unett'"),
        ("train_celeb.py --data_dir nowhere --encoder_type resnet5", "there is no encoder 'resnet5'"),
        ("train_celeb.py --data_dir nowhere --decoder_type Unett", "there is no decoder 'Unett'"),
        ("train_celeb.py --data_dir nowhere --teacher gone", "gone/config.json: no such file; --teacher names"),
        ("train_celeb.py --data_dir nowhere --encoder_weights gone.pth", "gone.pth: no such file; --teacher names"),
        ("train_celeb.py --data_dir nowhere --weights gone", "--weights gone: no config.json of a model there"),
        ("train_celeb.py --data_dir {celeb} --resume", "no run named celeb in weights"),
        (
            "train_celeb.py --output_dir {weights} --data_dir {celeb}",
            "already contains a run; continue it with --resume",
        ),
        ("inference.py --num 99", "99.jpg: no such file"),
        ("inference.py --weights nowhere", "error: nowhere"),
        ("inference.py --input nothing.jpg --weights {run}", "nothing.jpg: no such file"),
        ("evaluate.py --data_dir {celeb} --weights {run} --split test", "has no test set"),
        ("evaluate.py --data_dir {celeb} --weights {run} --by length", "has no labels"),
        ("dataset.py prepare-celeb nowhere", "has no CelebA-HQ-img/"),
    ],
)
def test_bad_input_is_one_line_and_a_status(
    trained: Path, celeb: Path, tmp_path: Path, command: str, message: str
) -> None:
    script, *flags = command.format(celeb=celeb, run=trained, weights=trained.parent).split()
    status = run(tmp_path, *flags, script=script.removesuffix(".py"))
    said = (tmp_path / "out.txt").read_text()
    assert status == 1, said
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("script", ["train_korean.py", "train_celeb.py", "inference.py", "evaluate.py", "dataset.py"])
def test_help_needs_no_data(tmp_path: Path, script: str) -> None:
    assert run(tmp_path, "--help", script=script.removesuffix(".py")) == 0
    assert "usage:" in (tmp_path / "out.txt").read_text()

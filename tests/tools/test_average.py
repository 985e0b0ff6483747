"""Averages of models' weights."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import models
from hair.errors import UserError, run
from tests.pictures import one_line
from tools import average

FACTS = {"img_size": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "threshold": 0.5}
OF_ONE_RUN = {"epoch": 3, "scores": {"dice": 0.9}}
ENCODER = "tu-test_efficientnet"  # the smallest there is


def make_run(folder: Path, seed: int, decoder: str = "Unet", channels: list[int] | None = None) -> Path:
    """A run folder with an untrained network, whose statistics of batch normalisation are random, too."""
    torch.manual_seed(seed)
    model = models.build_model(ENCODER, decoder, decoder_channels=channels)
    for name, values in model.named_buffers():
        values.copy_(torch.rand(values.shape) * 1e6 if name.endswith("running_var") else seed)
    models.save_model(model, folder, {**FACTS, **OF_ONE_RUN})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / str(seed), seed) for seed in (1, 2)]


def call(monkeypatch: pytest.MonkeyPatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["average", *map(str, flags)])
    run(average.main)


def test_each_tensor_is_the_weighted_mean(runs, tmp_path, monkeypatch, capsys):
    output = tmp_path / "new" / "run"
    call(monkeypatch, "--output_dir", output, f"{runs[0]}=0.25", f"{runs[1]}=0.75")
    assert capsys.readouterr().out == f"{output}\n"
    one, two = (models.load_model(folder)[0].state_dict() for folder in runs)
    found, facts = models.load_model(output)
    for name, tensor in found.state_dict().items():
        expected = (0.25 * one[name].double() + 0.75 * two[name].double()).to(tensor.dtype)
        torch.testing.assert_close(tensor, expected, rtol=1e-3, atol=1e-6)
    assert "running_mean" in str(list(one)) and not torch.equal(next(iter(one.values())), next(iter(two.values())))
    assert facts.keys() == FACTS.keys() and facts["img_size"] == 64  # no epoch and no scores: they are of one run


def test_parameters_are_float16_and_statistics_are_not(runs, tmp_path, monkeypatch):
    """Some variances exceed what float16 can hold."""
    call(monkeypatch, "--output_dir", tmp_path / "half", f"{runs[0]}=1")
    stored = load_file(tmp_path / "half" / "model.safetensors")
    of_statistics = {name for name in stored if "running" in name or "num_batches" in name}
    assert of_statistics and all(stored[name].dtype == torch.float16 for name in stored.keys() - of_statistics)
    assert not [name for name in of_statistics if stored[name].dtype == torch.float16]
    loaded, facts = models.load_model(tmp_path / "half")
    assert all(values.dtype == torch.float32 for values in loaded.parameters())
    assert facts["epoch"] == OF_ONE_RUN["epoch"] and facts["scores"] == OF_ONE_RUN["scores"]  # it is still that run


def test_the_input_size_can_be_set(runs, tmp_path, monkeypatch):
    call(monkeypatch, "--output_dir", tmp_path / "out", "--img_size", 96, f"{runs[0]}=0.5", f"{runs[1]}=0.5")
    assert models.load_model(tmp_path / "out")[1]["img_size"] == 96


@pytest.mark.parametrize("other", [("FPN", None), ("Unet", [32, 16, 16, 8, 8])])
def test_different_networks_are_refused_in_one_line(other, runs, tmp_path, monkeypatch):
    folder = make_run(tmp_path / "other", 3, *other)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--output_dir", tmp_path / "out", f"{runs[0]}=0.5", f"{folder}=0.5")
    one_line(stop, folder, runs[0], "not the same network")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shares", [(0.5, 0.4), (1.0, 1.0), (0.5, 0.51)])
def test_shares_add_up(shares, runs, tmp_path):
    with pytest.raises(UserError, match="the shares must add up to 1"):
        average.average(list(zip(runs, shares, strict=True)), tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_thirds_add_up(runs, tmp_path):
    average.average([(runs[0], 1 / 3), (runs[1], 0.333333), (runs[0], 0.333334)], tmp_path / "out", None)
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("text", ["weights/one", "weights/one=", "weights/one=half"])
def test_what_is_no_share_is_named(text, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--output_dir", "out", text)
    assert stop.value.code == 2
    assert f"{text} is not RUN=SHARE" in capsys.readouterr().err.splitlines()[-1]


def test_a_folder_name_may_hold_an_equals_sign():
    assert average.share_of("weights/lr=3/run=0.5") == (Path("weights/lr=3/run"), 0.5)


def test_a_missing_folder_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "--output_dir", tmp_path / "out", f"{tmp_path / 'none'}=1")
    one_line(stop, tmp_path / "none")

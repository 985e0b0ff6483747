"""Scores go to TensorBoard, wandb or MLflow, and a resumed run continues there."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hair.errors import UserError
from training import flags
from training.logs import LOGS, open_log

ROWS = [{"epoch": epoch, "img_size": 64, "loss": 1 / epoch, "valid_dice": 0.5 + epoch / 10} for epoch in (1, 2)]
PHOTOS = torch.linspace(0, 1, 4 * 3 * 6 * 5).reshape(4, 3, 6, 5)


class Service:
    """Stands in for the module of wandb or of MLflow; `calls` are what it was told."""

    def __init__(self, failing: str = "") -> None:
        self.calls: list[tuple] = []
        self.failing = failing
        self.info = SimpleNamespace(run_id="abc")

    def __getattr__(self, name: str):
        def call(*values: object, **named: object) -> "Service":
            if name == self.failing:
                raise ConnectionError("no route\nto the server")
            self.calls.append((name, *values, named))
            return self

        return call

    def told(self, name: str) -> list[tuple]:
        return [call[1:] for call in self.calls if call[0] == name]


def write_epochs(kind: str, run: Path, rows: list[dict], history: list[dict]) -> None:
    with open_log(kind, run, {"epochs": 3, "output_dir": Path("weights"), "teacher": []}, history) as log:
        for row in rows:
            log.scalars(row)
            log.images("worst", PHOTOS, row["epoch"])


def test_tensorboard_has_each_epoch_once(tmp_path: Path) -> None:
    write_epochs("tensorboard", tmp_path, ROWS[:1], [])
    write_epochs("tensorboard", tmp_path, ROWS[1:], ROWS[:1])
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {event.step: round(event.value, 2) for event in board.Scalars("valid/dice")} == {1: 0.6, 2: 0.7}
    assert board.Tags()["images"] and set(board.Tags()["scalars"]) == {"loss", "valid/dice"}


def test_wandb_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Service()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    write_epochs("wandb", tmp_path, ROWS[:1], [])
    write_epochs("wandb", tmp_path, ROWS[1:], ROWS[:1])
    (first,), (second,) = wandb.told("init")
    assert first == second and first["resume"] == "allow" and first["project"] == "hair-segmentation"
    assert first["id"] == (tmp_path / "wandb.id").read_text() and first["config"]["output_dir"] == "weights"
    scores = [row for row, _ in wandb.told("log") if "worst" not in row]
    assert scores == [{"loss": 1, "valid/dice": 0.6, "epoch": 1}, {"loss": 0.5, "valid/dice": 0.7, "epoch": 2}]
    picture = wandb.told("Image")[0][0]
    assert picture.shape == (6, 20, 3) and picture.dtype == np.uint8 and len(wandb.told("finish")) == 2


def test_mlflow_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = Service()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    write_epochs("mlflow", tmp_path, ROWS[:1], [])
    write_epochs("mlflow", tmp_path, ROWS[1:], ROWS[:1])
    assert mlflow.told("start_run") == [({"run_name": tmp_path.name},), ({"run_id": "abc"},)]
    assert len(mlflow.told("log_params")) == 1 and not mlflow.told("set_experiment")
    assert [named["step"] for _, named in mlflow.told("log_metrics")] == [1, 2]
    assert mlflow.told("log_image")[1][1] == {"artifact_file": "worst/0002.png"}


@pytest.mark.parametrize(("kind", "failing"), [("wandb", "init"), ("wandb", "log"), ("mlflow", "log_metrics")])
def test_a_service_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, failing: str
) -> None:
    monkeypatch.setitem(sys.modules, kind, Service(failing))
    with pytest.raises(UserError, match=rf"^--log {kind}: no route; [^\n]*$"):
        write_epochs(kind, tmp_path, ROWS[:1], [])


def test_the_flag_offers_every_log() -> None:
    assert list(LOGS) == flags.LOGS

"""Where the scores of each epoch go beside `log.csv`: TensorBoard, Weights & Biases (wandb) or MLflow."""

import contextlib
import importlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from hair.errors import UserError
from hair.files import write_bytes
from training.checkpoint import writing
from training.processes import rank

PROJECT = "hair-segmentation"  # in wandb and MLflow, unless their environment variables name another
LONGEST_PARAMETER = 500  # characters that MLflow takes


class Log(Protocol):
    """What a run writes to."""

    def scalars(self, row: Mapping[str, float]) -> None:
        """Add an epoch's row of `log.csv`."""

    def images(self, name: str, images: Tensor, epoch: int) -> None:
        """Add photos, float32 (N, 3, H, W) in [0, 1], under a name."""

    def close(self) -> None:
        """Write what is left."""


@contextlib.contextmanager
def open_log(kind: str, run: Path, flags: Mapping[str, Any], history: list[dict]) -> Iterator[Log | None]:
    """The log of the first process; None for the others.

    Args:
        kind: of LOGS.
        run: the run folder; a log is continued there.
        flags: of the training.
        history: rows of the epochs that are done.

    Raises:
        UserError: a full disk, a server that cannot be reached.
    """
    if rank() > 0:
        yield None
        return
    log: Log = LOGS[kind](run, flags, history)
    yield log
    log.close()


def _scores(row: Mapping[str, float]) -> dict[str, float]:
    """A row's values by the names of their curves, such as `valid/dice`."""
    return {key.replace("_", "/", 1): value for key, value in row.items() if key not in ("epoch", "img_size")}


def _side_by_side(images: Tensor) -> np.ndarray:
    """Photos, float32 (N, 3, H, W) in [0, 1], as one, uint8 (H, N × W, 3)."""
    return (255 * np.hstack(list(images.permute(0, 2, 3, 1).numpy()))).round().astype(np.uint8)


class TensorBoardLog:
    """Curves and photos in the run folder's `tensorboard/`, from the checkpoint's last epoch on."""

    def __init__(self, run: Path, flags: Mapping[str, Any], history: list[dict]) -> None:
        self.run = run
        with writing(run):
            self.board = SummaryWriter(run / "tensorboard", purge_step=len(history))
        if history:
            self.scalars(history[-1])

    def scalars(self, row: Mapping[str, float]) -> None:
        with writing(self.run):
            for name, value in _scores(row).items():
                self.board.add_scalar(name, value, row["epoch"])
            self.board.flush()

    def images(self, name: str, images: Tensor, epoch: int) -> None:
        self.board.add_images(name, images, epoch)

    def close(self) -> None:
        with writing(self.run):
            self.board.close()


class WandbLog:
    """A run of Weights & Biases, https://docs.wandb.ai; a resumed training continues it."""

    def __init__(self, run: Path, flags: Mapping[str, Any], history: list[dict]) -> None:
        self.wandb = importlib.import_module("wandb")
        identity = _identity(run / "wandb.id", secrets.token_hex(4))
        project = None if "WANDB_PROJECT" in os.environ else PROJECT
        with _user_errors("wandb", "log in with `wandb login`, or set WANDB_MODE=offline"):
            config = {key: str(value) if isinstance(value, Path) else value for key, value in flags.items()}
            self.session = self.wandb.init(
                project=project, name=run.name, id=identity, resume="allow", dir=str(run), config=config
            )
            self.session.define_metric("*", step_metric="epoch")

    def scalars(self, row: Mapping[str, float]) -> None:
        with _user_errors("wandb", "continue with --resume"):
            self.session.log({**_scores(row), "epoch": row["epoch"]})

    def images(self, name: str, images: Tensor, epoch: int) -> None:
        with _user_errors("wandb", "continue with --resume"):
            self.session.log({name: self.wandb.Image(_side_by_side(images)), "epoch": epoch})

    def close(self) -> None:
        with _user_errors("wandb", "the run folder is complete"):
            self.session.finish()


class MlflowLog:
    """A run of MLflow, https://mlflow.org, where MLFLOW_TRACKING_URI says; a resumed training continues it."""

    def __init__(self, run: Path, flags: Mapping[str, Any], history: list[dict]) -> None:
        self.mlflow = importlib.import_module("mlflow")
        file = run / "mlflow.id"
        with _user_errors("mlflow", "check MLFLOW_TRACKING_URI"):
            if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
                self.mlflow.set_experiment(PROJECT)
            if file.exists():
                self.mlflow.start_run(run_id=file.read_text(encoding="utf-8"))
            else:
                session = self.mlflow.start_run(run_name=run.name)
                _identity(file, session.info.run_id)
                self.mlflow.log_params({key: str(value)[:LONGEST_PARAMETER] for key, value in flags.items()})

    def scalars(self, row: Mapping[str, float]) -> None:
        with _user_errors("mlflow", "continue with --resume"):
            self.mlflow.log_metrics(_scores(row), step=int(row["epoch"]))

    def images(self, name: str, images: Tensor, epoch: int) -> None:
        with _user_errors("mlflow", "continue with --resume"):
            self.mlflow.log_image(_side_by_side(images), artifact_file=f"{name}/{epoch:04d}.png")

    def close(self) -> None:
        with _user_errors("mlflow", "the run folder is complete"):
            self.mlflow.end_run()


LOGS: dict[str, Callable[[Path, Mapping[str, Any], list[dict]], Log]] = {
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
    "mlflow": MlflowLog,
}


def _identity(file: Path, new: str) -> str:
    """The name by which a service knows a run, from a file; a new one is written there."""
    if not file.exists():
        write_bytes(file, new.encode())
    return file.read_text(encoding="utf-8")


@contextlib.contextmanager
def _user_errors(kind: str, way_out: str) -> Iterator[None]:
    """Turn what a service raises, of many types, into a UserError of one line."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--log {kind}: {reason}; {way_out}") from error

"""What a run tells: the lines at its start, log.csv, TensorBoard's curves and its worst photos."""

import contextlib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import models
from checkpoint import State, writing
from dataset import HairDataset
from utils import atomic, half_precision, processes, rank


def print_start(args: Namespace, run: Path, state: State, device: torch.device, photos: int, valid_photos: int) -> None:
    """Print device, versions, parameters, photos, rates and every flag."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = str(half_precision(device)).removeprefix("torch.") if args.apex else "float32"
    millions = sum(p.numel() for p in state.model.parameters()) / 1e6
    peak = args.warmup_factor if args.scheduler == "GradualWarmupSchedulerV2" else 1
    print(
        f"device {device} ({name}), {precision}; torch {torch.__version__}, SMP {smp.__version__}\n"
        f"{args.encoder_type} {args.decoder_type}, {millions:.2f} M parameters; {photos} photos to train on, "
        f"{valid_photos} to validate on; run folder {run}\n"
        f"{processes()} process(es) × batch {args.batch_size} × {args.grad_accum} accumulated = "
        f"{processes() * args.batch_size * args.grad_accum} photos a step, {state.steps_per_epoch} steps an epoch; "
        f"learning rate up to {peak * args.encoder_lr:.1e} (encoder), {peak * args.decoder_lr:.1e} (decoder)\n"
        + " ".join(f"--{key} {value}" for key, value in vars(args).items()),
        flush=True,
    )
    if state.step:
        print(f"going on in epoch {state.epoch + 1} after batch {state.batch}", flush=True)


def write_log(run: Path, history: list[dict]) -> None:
    """Write `log.csv`, a row an epoch."""
    with atomic(run / "log.csv") as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False)


@contextlib.contextmanager
def tensorboard(run: Path, history: list[dict]) -> Iterator[SummaryWriter | None]:
    """The first process's TensorBoard log, from the checkpoint's last epoch on; None for the others."""
    if rank() > 0:
        yield None
        return
    with writing(run):
        board = SummaryWriter(run / "tensorboard", purge_step=len(history))
        if history:
            add_scalars(board, history[-1])
    yield board
    with writing(run):
        board.close()


def add_scalars(board: SummaryWriter, row: dict) -> None:
    """Add an epoch's row of the log to TensorBoard."""
    for key in row.keys() - {"epoch", "img_size"}:
        board.add_scalar(key.replace("_", "/", 1), row[key], row["epoch"])
    board.flush()


@torch.inference_mode()
def picture_worst(model: nn.Module, photos: HairDataset, counts: Tensor, facts: dict, number: int = 4) -> Tensor:
    """The photos of the lowest Dice, hair that was found in green, missed in blue and found wrongly in red.

    Args:
        model: in eval mode.
        photos: what `counts` of `evaluate` were made of.
        facts: `mean` and `std` of the photos' normalisation.
        number: of photos.

    Returns:
        float32 (number, 3, S, S) in [0, 1], the worst first.
    """
    dice = smp.metrics.f1_score(*counts, reduction="none", zero_division=1.0).flatten()
    images, masks, _ = zip(*(photos[i] for i in dice.argsort()[:number].tolist()), strict=True)
    images, hair = torch.stack(images), torch.stack(masks) > 0
    inputs = models.Normalise(facts["mean"], facts["std"])(images)
    found = model(inputs.to(next(model.parameters()).device)).cpu() >= 0
    colours = torch.cat([found & ~hair, found & hair, hair & ~found], 1)
    picture = images / 255
    return torch.where(found | hair, (picture + colours) / 2, picture)

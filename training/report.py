"""Reports of a run: the lines at the start, log.csv and the photos with the lowest Dice."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

import models
from dataset import HairDataset
from hair.files import atomic
from training.checkpoint import TrainingState
from training.flags import TrainingPlan
from training.processes import world_size
from utils import fast_precision


def print_start(
    plan: TrainingPlan, run: Path, state: TrainingState, device: torch.device, photos: tuple[int, int]
) -> None:
    """Print device, versions, parameters, photos, learning rates and all flags.

    Args:
        plan: settings of the training.
        run: the run folder.
        state: training state before the first step of this process.
        device: where the training runs.
        photos: numbers of photos for training and for validation.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = str(fast_precision(device) if plan.apex else torch.float32).removeprefix("torch.")
    millions = sum(p.numel() for p in state.model.parameters()) / 1e6
    peak = plan.warmup_factor if plan.scheduler == "GradualWarmupSchedulerV2" else 1
    flags = vars(replace(plan, decoder_lr=plan.decoder_rate))
    print(
        f"device {device} ({name}), {precision}; torch {torch.__version__}, SMP {smp.__version__}\n"
        f"{plan.encoder_type} {plan.decoder_type}, {millions:.2f} M parameters; {photos[0]} photos to train on, "
        f"{photos[1]} to validate on; run folder {run}\n"
        f"{world_size()} process(es) × batch {plan.batch_size} × {plan.grad_accum} accumulated = "
        f"{world_size() * plan.batch_size * plan.grad_accum} photos a step, {state.steps_per_epoch} steps an epoch; "
        f"learning rate up to {peak * plan.encoder_lr:.1e} (encoder), {peak * plan.decoder_rate:.1e} (decoder)\n"
        + " ".join(f"--{key} {value}" for key, value in flags.items()),
        flush=True,
    )
    if plan.apex and precision == "float32":
        print(
            "--apex: float32, because this CPU has no bf16 instructions (AVX512_BF16 or AMX), so bf16 would be slower"
        )
    if state.step:
        print(f"resuming in epoch {state.epoch + 1} after batch {state.batch}", flush=True)


def write_log(run: Path, history: list[dict]) -> None:
    """Write `log.csv`, one row per epoch."""
    with atomic(run / "log.csv") as temporary:
        pd.DataFrame(history).to_csv(temporary, index=False)


@torch.inference_mode()
def picture_worst(model: nn.Module, photos: HairDataset, counts: Tensor, facts: dict, number: int = 4) -> Tensor:
    """Draw the photos with the lowest Dice: true positives green, false negatives blue, false positives red.

    Args:
        model: the network, in eval mode.
        photos: the photos from which `counts` were computed.
        counts: true positives, false positives and so on of each photo, from `engine.evaluate`.
        facts: `mean` and `std` of the normalisation.
        number: number of photos.

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

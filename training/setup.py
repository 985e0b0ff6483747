"""Build the parts of a run: network, optimizer, schedule and loaders."""

import math
from functools import partial
from types import MethodType
from typing import cast

import torch
from segmentation_models_pytorch.base import SegmentationModel
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import models
from dataset import HairDataset, HairLoader, build_loader
from hair.errors import UserError
from training.checkpoint import LAST, ORDER, PREVIOUS, RATES, TrainingState
from training.flags import TrainingPlan, run_of
from training.processes import first_alone, world_size
from training.schedules import Schedule, build_scheduler
from training.sources import source_of
from utils import fast_precision, seed_everything

THRESHOLD = 0.5  # probability from which a pixel is hair; stored with trained models
EMA_WARMUP_POWER = 0.75  # of timm's EMA warm-up: in short runs, too, the average soon forgets the untrained weights


def build_state(plan: TrainingPlan, device: torch.device, photos: int) -> tuple[TrainingState, dict]:
    """Build the training state.

    Args:
        plan: settings of the training.
        device: where the training runs.
        photos: number of photos per epoch.

    Returns:
        The state before the first step, and metadata for the model's `config.json`.

    Raises:
        UserError: a batch has more photos than there are; see also `models.build_model` and `models.load_weights`.
    """
    batches = photos // (plan.batch_size * world_size())
    if batches == 0:
        raise UserError(f"--batch_size {plan.batch_size} is more than the photos to train on")
    seed_everything(plan.seed)
    model, normalisation = build_network(plan)
    model = model.to(device)
    precision = fast_precision(device) if plan.apex else torch.float32
    if precision != torch.float32 and device.type == "cpu":
        depthwise_in_float32(model)
    optimizer = build_optimizer(plan, model)
    steps = math.ceil(batches / plan.grad_accum)
    schedule = Schedule(plan.scheduler, plan.epochs, steps, plan.warmup_epochs, plan.warmup_factor, plan.min_lr)
    recipe = vars(plan) | {"decoder_lr": plan.decoder_rate, "processes": world_size(), "photos": photos}
    weights = [source_of(text)[1] for text in plan.data_dir]
    if set(weights) != {1.0}:
        recipe["sampling"] = weights
    state = TrainingState(
        model=model,
        network=distribute(model, device, plan.compile),
        ema=ModelEmaV3(model, decay=plan.ema, use_warmup=True, warmup_power=EMA_WARMUP_POWER) if plan.ema else None,
        optimizer=optimizer,
        scheduler=build_scheduler(schedule, optimizer),
        scaler=torch.amp.GradScaler(device.type, enabled=precision == torch.float16),
        steps_per_epoch=steps,
        recipe={key: recipe[key] for key in ORDER + RATES if key in recipe},
        teacher=models.Teacher([run_of(run) for run in plan.teacher]).to(device).eval() if plan.teacher else None,
    )
    data = {"data": [str(folder) for folder in plan.data_dir], "fold": plan.fold, "n_folds": plan.n_folds}
    return state, {**normalisation, "threshold": THRESHOLD, **data}


def build_network(plan: TrainingPlan) -> tuple[SegmentationModel, dict]:
    """The network with its initial weights, and the `mean` and `std` of its input. Raises UserError."""
    checkpoints = [] if plan.resume is None else [plan.resume / LAST, plan.resume / PREVIOUS]
    has_checkpoint = any(path.exists() for path in checkpoints)
    encoder_weights = None if plan.encoder_weights == "none" else plan.encoder_weights
    # Do not download weights that a checkpoint or --weights replaces.
    start = None if has_checkpoint or plan.weights else encoder_weights
    build = partial(
        models.build_model, plan.encoder_type, plan.decoder_type, start, plan.decoder_channels, plan.img_size[0]
    )
    model = first_alone(build)  # the other processes find the weights downloaded
    mean, std = models.normalisation(plan.encoder_type, encoder_weights)
    if plan.weights is not None:
        source = plan.weights
        if plan.resume is not None and has_checkpoint and (plan.resume / "config.json").is_file():
            source = plan.resume  # the run has saved its own model; the one it started from may have been deleted
        trained = models.load_weights(model, source)
        mean, std = trained["mean"], trained["std"]
    return model, {"mean": mean, "std": std}


def build_optimizer(plan: TrainingPlan, model: SegmentationModel) -> torch.optim.AdamW:
    """AdamW with two parameter groups: the encoder, and the rest."""
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    known = {id(p) for p in encoder}
    rest = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": encoder, "lr": plan.encoder_lr}, {"params": rest, "lr": plan.decoder_rate}]
    return torch.optim.AdamW(groups, weight_decay=plan.weight_decay)


def distribute(model: nn.Module, device: torch.device, compiled: bool) -> nn.Module:
    """The model as training calls it: distributed over processes, compiled."""
    if world_size() > 1:
        # Some encoders of SMP have unused parameters, and frozen ones get no gradient.
        ids = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)
    return cast(nn.Module, torch.compile(model)) if compiled else model


def build_loaders(
    plan: TrainingPlan, train: HairDataset, valid: HairDataset, device: torch.device
) -> tuple[HairLoader, HairLoader]:
    """Loaders for training and for validation, with the photos of this process."""
    pin_memory = device.type == "cuda"
    return (
        build_loader(train, plan.batch_size, plan.num_workers, plan.seed, pin_memory),
        build_loader(valid, 2 * plan.batch_size, plan.num_workers, pin_memory=pin_memory),
    )


def depthwise_in_float32(model: nn.Module) -> None:
    """Exclude depthwise convolutions from autocast.

    On CPUs their backward pass is slower in bf16 than in float32, and it takes much of the time of a training step with
    an EfficientNet (`benchmarks/training.py` measures the whole step).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            # A bound method, because a deep copy (as for the EMA) then binds it to the copy.
            module.forward = MethodType(_float32_forward, module)


def _float32_forward(conv: nn.Conv2d, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return type(conv).forward(conv, features.float())

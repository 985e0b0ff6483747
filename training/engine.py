"""One epoch of training, and validation."""

import contextlib
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from dataset import HairDataset, HairLoader
from hair.errors import UserError
from training.checkpoint import TrainingState
from training.flags import TrainingPlan
from training.processes import rank, total, world_size
from utils import fast_precision

READ_LOSSES_EVERY = 10  # batches; on a GPU only, because reading a loss waits for the GPU


@dataclass(frozen=True)
class Compute:
    """How the loss of a batch is computed.

    Attributes:
        device: device of the network.
        normalise: converts photos uint8 (N, 3, S, S) to the network's input, such as `models.Normalise`.
        loss_fn: computes a scalar from float32 logits and masks (N, 1, S, S).
        apex: whether to use mixed precision.
    """

    device: torch.device
    normalise: nn.Module
    loss_fn: Callable[[Tensor, Tensor], Tensor]
    apex: bool = False


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Autocast to `utils.fast_precision`; disabled if that is float32. With fp16, a gradient scaler is needed."""
    precision = fast_precision(device) if enabled else torch.float32
    if precision == torch.float32:
        return torch.autocast(device.type, torch.bfloat16, enabled=False)
    return torch.autocast(device.type, precision)


def _bar(iterable: Iterable, **options: object) -> tqdm:
    """A progress bar, in the first process only; in a log file, one line per minute."""
    return tqdm(iterable, leave=False, disable=rank() > 0, mininterval=0.1 if sys.stderr.isatty() else 60, **options)


def train_one_epoch(
    state: TrainingState,
    loader: HairLoader,
    compute: Compute,
    plan: TrainingPlan,
    after_step: Callable[[], None] | None = None,
) -> float:
    """Train on the rest of the epoch.

    Args:
        state: is updated. `state.batch` batches are already done; the loader returns the others. With a
            `state.teacher`, the targets are the mean of its predictions and the masks.
        loader: returns photos uint8 (N, 3, S, S), masks uint8 {0, 1} (N, 1, S, S) and the numbers of the photos.
        compute: how the loss is computed.
        plan: `grad_accum`, `max_grad_norm`, `freeze_encoder_epochs` and `seed` are used.
        after_step: called after optimizer steps; on a GPU only after every tenth.

    Returns:
        The mean loss of the batches of this epoch, over all processes.

    Raises:
        UserError: a loss is not finite.
    """
    is_frozen = state.epoch < plan.freeze_encoder_epochs
    for parameter in state.optimizer.param_groups[0]["params"]:
        parameter.requires_grad_(not is_frozen)
    state.network.train()
    state.model.encoder.train(not is_frozen)
    batches = state.batch + len(loader)
    losses: list[tuple[Tensor, Tensor]] = []  # losses not read yet, with the numbers of their photos
    bar = _bar(loader, total=batches, initial=state.batch, desc=f"epoch {state.epoch + 1}")
    for images, masks, numbers in bar:
        # The last group of an epoch may be shorter; the gradients of a group are the mean over its batches.
        group_start = state.batch - state.batch % plan.grad_accum
        group = min(plan.grad_accum, batches - group_start)
        is_step = state.batch + 1 == group_start + group
        torch.manual_seed(_dropout_seed(plan.seed, state))
        with _gradient_exchange(state.network, is_step):
            loss = _forward(state, compute, images, masks)
            state.scaler.scale(loss / group).backward()
        losses.append((loss.detach(), numbers))
        state.batch += 1
        if not is_step:
            continue
        _step(state, plan.max_grad_norm)
        if compute.device.type != "cuda" or len(losses) >= READ_LOSSES_EVERY or state.batch == batches:
            _read_losses(losses, state, loader.dataset)
            rate = state.optimizer.param_groups[0]["lr"]
            bar.set_postfix(loss=f"{state.loss_sum / state.batch:.4f}", lr=f"{rate:.1e}", refresh=False)
            if after_step is not None:
                after_step()
    return state.loss_sum / state.batch


def _dropout_seed(seed: int, state: TrainingState) -> int:
    """A seed for each batch of the run, so that dropout is the same after resuming and with several processes."""
    number = (seed * 100_003 + state.epoch) * 1_000_003 + state.batch * world_size() + rank()
    return number % 2**63  # the range of torch's seeds


def _gradient_exchange(network: nn.Module, is_step: bool) -> contextlib.AbstractContextManager:
    """Several processes exchange gradients only in the last batch before a step."""
    if world_size() > 1 and not is_step:
        return cast(DistributedDataParallel, network).no_sync()
    return contextlib.nullcontext()


def _forward(state: TrainingState, compute: Compute, images: Tensor, masks: Tensor) -> Tensor:
    """The loss of a batch of photos uint8 (N, 3, S, S) and masks uint8 {0, 1} (N, 1, S, S)."""
    images = images.to(compute.device, non_blocking=True, memory_format=torch.channels_last)
    targets = masks.to(compute.device, non_blocking=True).float()
    with autocast(compute.device, compute.apex):
        if state.teacher is not None:
            targets = state.teacher(images, targets)
        logits = state.network(compute.normalise(images))
    return compute.loss_fn(logits.float(), targets)


def _step(state: TrainingState, max_grad_norm: float) -> None:
    """Optimizer step number `state.step`. The schedule steps first, so that its rate is then the one in use."""
    if state.scheduler is not None and not isinstance(state.scheduler, ReduceLROnPlateau) and state.step > 1:
        state.scheduler.step()
    if max_grad_norm:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), max_grad_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)


def _read_losses(losses: list[tuple[Tensor, Tensor]], state: TrainingState, photos: HairDataset) -> None:
    """Add the losses, averaged over the processes, to `state.loss_sum`. Raises UserError if one is not finite."""
    own = torch.stack([loss for loss, _ in losses])
    means = total(own / world_size()).tolist()
    for value, mean, (_, numbers) in zip(own.tolist(), means, losses, strict=True):
        if not math.isfinite(mean):
            paths = ", ".join(str(photos.photos.path(i)) for i in numbers.tolist())
            where = "a batch of another process" if math.isfinite(value) else paths
            raise UserError(f"the loss is {mean} in epoch {state.epoch + 1} on {where}; try a lower --encoder_lr")
        state.loss_sum += mean
    losses.clear()


@torch.inference_mode()
def evaluate(
    model: nn.Module, loader: HairLoader, compute: Compute, after_batch: Callable[[], None] | None = None
) -> tuple[float, Tensor]:
    """Validate a network; several processes share the photos.

    Args:
        model: computes logits from the network's input.
        loader: returns photos uint8 (N, 3, S, S), masks uint8 {0, 1} (N, 1, S, S) and the numbers of the photos.
        compute: how the loss is computed.
        after_batch: called after each batch, equally often in all processes.

    Returns:
        The mean loss over photos, and int64 (4, photos, 1): true positive, false positive, false negative and true
        negative pixels of each photo, as `smp.metrics.get_stats` counts them (in a tenth of its time).
    """
    model.eval()
    device = compute.device
    loss_sum = torch.zeros((), device=device)
    counts = torch.zeros(4, len(loader.dataset), 1, dtype=torch.int64, device=device)
    for images, masks, numbers in _bar(loader, desc="validate"):
        images = compute.normalise(images.to(device, non_blocking=True, memory_format=torch.channels_last))
        masks = masks.to(device, non_blocking=True)
        with autocast(device, compute.apex):
            logits = model(images)
        logits = logits.float()
        loss_sum += compute.loss_fn(logits, masks.float()) * len(images)
        found, hair = (logits >= 0).flatten(1), (masks > 0).flatten(1)  # a logit of 0 is a probability of 0.5
        hit = (found & hair).sum(1, keepdim=True)
        found, hair = found.sum(1, keepdim=True), hair.sum(1, keepdim=True)
        counts[:, numbers] = torch.stack([hit, found - hit, hair - hit, masks[0].numel() - found - hair + hit])
        if after_batch is not None:
            after_batch()
    if after_batch is not None:  # equally often in all processes; the first process has the most photos
        most = math.ceil(math.ceil(len(loader.dataset) / world_size()) / cast(int, loader.batch_size))
        for _ in range(most - len(loader)):
            after_batch()
    return total(loss_sum).item() / len(loader.dataset), total(counts).cpu()

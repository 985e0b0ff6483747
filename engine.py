"""The loops: one epoch of training, evaluation, and `fit`, which runs, records and resumes them."""

import contextlib
import math
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MethodType
from typing import Any, cast

import pandas as pd
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import models
from augment import eval_transform, train_transform
from checkpoint import ORDER, RATES, Keeper, State, alone_in, remove_leftovers, writing
from dataset import EpochSampler, HairDataset, HairLoader, PhotoSet, build_loader, open_backgrounds, split
from report import add_scalars, picture_worst, print_start, tensorboard, write_log
from utils import (
    UserError,
    atomic,
    build_scheduler,
    choose_device,
    first_alone,
    half_precision,
    join_processes,
    keep_freed_memory,
    leave_processes,
    processes,
    rank,
    scores,
    seed_everything,
    total,
    wait_for_all,
    write_json,
)

# ---------------------------------------------------------------------------------------------------- loops


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Mixed precision for forward passes: bf16 where the device computes in it, else fp16 (which needs a scaler)."""
    return torch.autocast(device.type, half_precision(device), enabled=enabled)


def depthwise_in_float32(model: nn.Module) -> None:
    """Keep a model's depthwise convolutions out of autocast.

    On CPUs their backward pass takes longer in bf16 than in float32, and it is much of an EfficientNet's step
    (`benchmarks/training.py` times the whole step).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
            # A bound method, since a deep copy, as the EMA makes one, binds it to the copy.
            module.forward = MethodType(_float32_forward, module)


def _float32_forward(conv: nn.Conv2d, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return type(conv).forward(conv, features.float())


def _bar(iterable: Iterable, **options: object) -> tqdm:
    """A progress bar of the first process; in a log file it is a line a minute."""
    return tqdm(iterable, leave=False, disable=rank() > 0, mininterval=0.1 if sys.stderr.isatty() else 60, **options)


def train_one_epoch(
    state: State,
    loader: HairLoader,
    normalise: nn.Module,
    loss_fn: nn.Module,
    device: torch.device,
    args: Namespace,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """Train on what is left of the epoch.

    Args:
        state: is advanced; `state.batch` batches are done already and the loader gives the others. A
            `state.teacher` has a say in the targets.
        loader: gives photos uint8 (N, 3, S, S), masks uint8 {0, 1} (N, 1, S, S) and the photos' numbers.
        normalise: from these photos to the network's input, as `models.Normalise`.
        loss_fn: from float32 logits and masks to a scalar.
        device: of the model.
        args: `apex`, `grad_accum`, `max_grad_norm`, `freeze_encoder_epochs` and `seed` are read.
        after_step: called after optimizer steps, on a GPU after every tenth.

    Returns:
        The mean loss of the epoch's batches, over all processes.

    Raises:
        UserError: a loss that is not finite.
    """
    is_frozen = state.epoch < args.freeze_encoder_epochs
    for parameter in state.optimizer.param_groups[0]["params"]:
        parameter.requires_grad_(not is_frozen)
    state.network.train()
    state.model.encoder.train(not is_frozen)
    batches = state.batch + len(loader)
    losses: list[tuple[Tensor, Tensor]] = []  # not yet read: reading waits for the GPU
    for images, masks, numbers in (
        bar := _bar(loader, total=batches, initial=state.batch, desc=f"epoch {state.epoch + 1}")
    ):
        # The last group of an epoch may be short: each group's gradients are the mean over its own batches.
        group_start = state.batch - state.batch % args.grad_accum
        group = min(args.grad_accum, batches - group_start)
        is_step = state.batch + 1 == group_start + group
        torch.manual_seed(_dropout_seed(args.seed, state))
        waits = processes() > 1 and not is_step
        with cast(DistributedDataParallel, state.network).no_sync() if waits else contextlib.nullcontext():
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            targets = masks.to(device, non_blocking=True).float()
            with autocast(device, args.apex):
                if state.teacher is not None:
                    targets = state.teacher(images, targets)
                logits = state.network(normalise(images))
            loss = loss_fn(logits.float(), targets)
            state.scaler.scale(loss / group).backward()
        losses.append((loss.detach(), numbers))
        state.batch += 1
        if is_step:
            _step(state, args.max_grad_norm)
        if is_step and (device.type != "cuda" or len(losses) >= 10 or state.batch == batches):
            _read_losses(losses, state, loader.dataset)
            rate = state.optimizer.param_groups[0]["lr"]
            bar.set_postfix(loss=f"{state.loss_sum / state.batch:.4f}", lr=f"{rate:.1e}", refresh=False)
            after_step()
    return state.loss_sum / state.batch


def _dropout_seed(seed: int, state: State) -> int:
    """Another one for each batch of the run, so that a resumed run and one of several processes drop the same."""
    number = (seed * 100_003 + state.epoch) * 1_000_003 + state.batch * processes() + rank()
    return number % 2**63  # what torch takes


def _step(state: State, max_grad_norm: float) -> None:
    """Step number `state.step`; the schedule moves before it, so that the rate it leaves is the one that was used."""
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


def _read_losses(losses: list[tuple[Tensor, Tensor]], state: State, photos: HairDataset) -> None:
    """Add the losses, as means over the processes, to the epoch's. Raises UserError if one is not finite."""
    own = torch.stack([loss for loss, _ in losses])
    means = total(own / processes()).tolist()
    for value, mean, (_, numbers) in zip(own.tolist(), means, losses, strict=True):
        if not math.isfinite(mean):
            paths = ", ".join(str(photos.photos.path(i)) for i in numbers.tolist())
            where = "a batch of another process" if math.isfinite(value) else paths
            raise UserError(f"the loss is {mean} in epoch {state.epoch + 1} on {where}; try a lower --encoder_lr")
        state.loss_sum += mean
    losses.clear()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: HairLoader,
    normalise: nn.Module,
    loss_fn: nn.Module,
    device: torch.device,
    apex: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[float, Tensor]:
    """Compare a network's masks with the true ones, the photos shared among the processes.

    Returns:
        The mean loss over photos, and int64 (4, photos, 1): true positive, false positive, false negative and true
        negative pixels of each photo, as `smp.metrics.get_stats` counts them (at a tenth of its time).
    """
    model.eval()
    loss_sum = torch.zeros((), device=device)
    counts = torch.zeros(4, len(loader.dataset), 1, dtype=torch.int64, device=device)
    for images, masks, numbers in _bar(loader, desc="validate"):
        images = normalise(images.to(device, non_blocking=True, memory_format=torch.channels_last))
        masks = masks.to(device, non_blocking=True)
        with autocast(device, apex):
            logits = model(images)
        logits = logits.float()
        loss_sum += loss_fn(logits, masks.float()) * len(images)
        found, hair = (logits >= 0).flatten(1), (masks > 0).flatten(1)  # a logit of 0 is a probability of 0.5
        hit, found, hair = (mask.sum(1, keepdim=True) for mask in (found & hair, found, hair))
        counts[:, numbers] = torch.stack([hit, found - hit, hair - hit, masks[0].numel() - found - hair + hit])
        after_batch()
    return total(loss_sum).item() / len(loader.dataset), total(counts).cpu()


# ---------------------------------------------------------------------------------------------------- runs


def train(args: Namespace, open_indexes: Callable[[], list]) -> None:
    """What both training scripts do: open the data, train on one fold or, with `--fold all`, on each in turn.

    Args:
        args: of `utils.parse_training`.
        open_indexes: opens the data sets; the first of several processes calls it before the others.

    Raises:
        UserError: see `fit`.
    """
    device = choose_device(args.device)
    if device.type == "cpu":
        keep_freed_memory()
    models.check_names(args)
    join_processes(device)
    try:
        indexes = first_alone(open_indexes)
        if args.fold == "all":
            fit_folds(args, args.name, lambda fold: split(indexes, fold, args.n_folds, args.limit))
        else:
            fit(args, args.name, *split(indexes, args.fold, args.n_folds, args.limit))
    finally:
        leave_processes()


def fit_folds(args: Namespace, name: str, split_fold: Callable[[int], tuple[PhotoSet, PhotoSet]]) -> pd.DataFrame:
    """Train once for each fold, in folders within one run folder, and leave `folds.csv` there.

    Returns:
        The best rows of the folds' logs, then their mean and standard deviation. Raises UserError.
    """
    if split_fold(0)[1].row.tolist() == split_fold(1)[1].row.tolist():
        raise UserError("--fold all: this data comes with a split of its own, which has no folds")
    run = run_folder(args, name)
    wait_for_all()
    if rank() == 0:
        write_json(run / "args.json", vars(args) | {"resume": None})
    rows = []
    for fold in range(args.n_folds):
        own = Namespace(**vars(args) | {"fold": fold, "output_dir": run, "resume": None})
        folder = run_folder(own, f"fold{fold}", check=False)
        if args.resume is not None and (folder / "args.json").exists():
            own.resume = folder
        rows.append({"fold": fold, **fit(own, f"fold{fold}", *split_fold(fold))})
    table = pd.DataFrame(rows).set_index("fold")
    table = pd.concat([table, table.agg(["mean", "std"])])
    if rank() == 0:
        with writing(run / "folds.csv"), atomic(run / "folds.csv") as temporary:
            table.to_csv(temporary, index_label="fold")
        mean, deviation = table["valid_dice"][["mean", "std"]]
        print(f"Dice {mean:.4f} ± {deviation:.4f} over {args.n_folds} folds; {run / 'folds.csv'}")
    return table


def run_folder(args: Namespace, name: str, check: bool = True) -> Path:
    """The folder to resume, or a new one's path. Raises UserError where a run that is not resumed is there."""
    run = args.resume or args.output_dir / f"{args.encoder_type}_{models.decoder_name(args.decoder_type)}_{name}"
    if check and args.resume is None and any((run / file).exists() for file in ("args.json", "config.json")):
        raise UserError(f"{run}: there is a run already; go on with --resume, or choose another --output_dir")
    return run


def fit(args: Namespace, name: str, train: PhotoSet, valid: PhotoSet) -> dict[str, float]:
    """Train as the flags say and leave a run folder: the best model, `last.pth`, `log.csv`, `args.json`, TensorBoard.

    Args:
        args: of `utils.parse_training`.
        name: ends the run folder's name.
        train, valid: photos to train on and to validate on.

    Returns:
        The best epoch's row of `log.csv`.

    Raises:
        UserError: flags, files or weights that do not fit, or a loss that is not finite.
    """
    device = choose_device(args.device)
    join_processes(device)
    run = run_folder(args, name)
    backgrounds = open_backgrounds(args.backgrounds)
    for photos in (train, valid):
        first_alone(photos.check if rank() == 0 else lambda: None)  # once is enough
    state, facts = build_state(args, device, len(train))
    with alone_in(run):
        if rank() == 0:
            run_folder(args, name)  # again: another run may have begun here meanwhile
        return _fit(args, device, run, state, facts, train, valid, backgrounds)


def _fit(
    args: Namespace,
    device: torch.device,
    run: Path,
    state: State,
    facts: dict,
    train: PhotoSet,
    valid: PhotoSet,
    backgrounds: list[Path],
) -> dict[str, float]:
    state.trained_on, state.held_out = train.digests(), valid.digests()
    if args.resume is not None:
        state.resume(run)
    wait_for_all()  # until all have looked at the folder and the photos are checked
    if rank() == 0:
        with writing(run):
            remove_leftovers(run)
            if state.history:  # a process killed after its checkpoint may not have come to write the epoch's row
                write_log(run, state.history)
    if is_finished(args, state):
        more = "--epochs" if state.epoch >= args.epochs else "--patience"
        return _finish(run, state, f"finished before, so there is nothing to do (more {more} would go on)")
    if rank() == 0:
        told = Namespace(**vars(args) | {"decoder_lr": state.recipe["decoder_lr"]})
        print_start(told, run, state, device, len(train), len(valid))
        with writing(run):
            write_json(run / "args.json", vars(args) | {"resume": None})
    with Keeper(state, run / "last.pth", args.save_every, device) as keeper, tensorboard(run, state.history) as board:
        last = 0
        for size, epochs in zip(args.img_size, args.size_epochs, strict=True):
            last += epochs
            if state.epoch >= last or is_finished(args, state):
                continue
            if state.history and state.history[-1]["img_size"] != size:
                state.forget_best()
            sets = (
                HairDataset(train, train_transform(args.augment, size), backgrounds),
                HairDataset(valid, eval_transform(size)),
            )
            loaders = build_loaders(args, *sets, device)
            while state.epoch < last and not is_finished(args, state):
                row, counts = run_epoch(state, *loaders, facts, device, args, keeper)
                is_best = record(state, run, facts | {"img_size": size}, {"img_size": size} | row, args, board)
                if is_best and board is not None:
                    board.add_images("worst", picture_worst(state.scored_model(), sets[1], counts, facts), state.epoch)
                keeper.saved_at = time.monotonic()
    return _finish(run, state, "finished")


def _finish(run: Path, state: State, how: str) -> dict[str, float]:
    best = best_row(state.history)
    if rank() == 0:
        print(f"{how}: best Dice {best['valid_dice']:.4f} in epoch {best['epoch']}; the model is in {run}")
    return best


def build_state(args: Namespace, device: torch.device, photos: int) -> tuple[State, dict]:
    """Build what is trained, from flags; `photos` is the number of photos to train on.

    Returns:
        The state before the first step, and facts for the model's `config.json`. Raises UserError.
    """
    batches = photos // (args.batch_size * processes())
    if batches == 0:
        raise UserError(f"--batch_size {args.batch_size} is more than the photos to train on")
    seed_everything(args.seed)
    weights = None if args.encoder_weights == "none" else args.encoder_weights
    # Weights that a checkpoint is about to replace are not worth a download.
    resumes = args.resume is not None and any((args.resume / name).exists() for name in ("last.pth", "previous.pth"))
    start = None if resumes or args.weights else weights
    build = lambda: models.build_model(args.encoder_type, args.decoder_type, start, args.decoder_channels)
    model = first_alone(build)  # the other processes find the weights downloaded
    mean, std = models.normalisation(args.encoder_type, weights)
    if args.weights is not None:
        # A run that goes on has weights of its own, and needs those that it started from no more.
        own = resumes and (args.resume / "config.json").is_file()
        trained = models.load_weights(model, args.resume if own else args.weights)
        mean, std = trained["mean"], trained["std"]
    model = model.to(device)
    if args.apex and device.type == "cpu":
        depthwise_in_float32(model)
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    known = {id(p) for p in encoder}
    rest = [p for p in model.parameters() if id(p) not in known]
    decoder_lr = args.encoder_lr if args.decoder_lr is None else args.decoder_lr
    groups = [{"params": encoder, "lr": args.encoder_lr}, {"params": rest, "lr": decoder_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
    steps = math.ceil(batches / args.grad_accum)
    found = vars(args) | {"decoder_lr": decoder_lr, "processes": processes(), "photos": photos}
    state = State(
        model=model,
        network=_spread(model, device, args.compile),
        # The warm-up lets the average forget the untrained weights also in runs of few steps.
        ema=ModelEmaV3(model, decay=args.ema, use_warmup=True, warmup_power=0.75) if args.ema else None,
        optimizer=optimizer,
        scheduler=build_scheduler(
            args.scheduler, optimizer, args.epochs, steps, args.warmup_epochs, args.warmup_factor, args.min_lr
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=args.apex and half_precision(device) == torch.float16),
        steps_per_epoch=steps,
        recipe={key: found[key] for key in ORDER + RATES},
        teacher=models.Teacher([Path(run) for run in args.teacher]).to(device).eval() if args.teacher else None,
    )
    data = {"data": [str(folder) for folder in args.data_dir], "fold": args.fold, "n_folds": args.n_folds}
    return state, {"mean": mean, "std": std, "threshold": 0.5, **data}


def _spread(model: nn.Module, device: torch.device, compiled: bool) -> nn.Module:
    """The model as training calls it."""
    if processes() > 1:
        # Some encoders of SMP have parameters that no output depends on; frozen ones are such, too.
        ids = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=ids, find_unused_parameters=True)
    return cast(nn.Module, torch.compile(model)) if compiled else model


def build_loaders(
    args: Namespace, train: HairDataset, valid: HairDataset, device: torch.device
) -> tuple[HairLoader, HairLoader]:
    """Loaders for training and for validation, of this process's share."""
    share: dict[str, Any] = {"pin_memory": device.type == "cuda", "rank": rank(), "processes": processes()}
    return (
        build_loader(train, args.batch_size, args.num_workers, args.seed, **share),
        build_loader(valid, 2 * args.batch_size, args.num_workers, **share),
    )


def run_epoch(
    state: State,
    train_loader: HairLoader,
    valid_loader: HairLoader,
    facts: dict,
    device: torch.device,
    args: Namespace,
    keeper: Keeper,
) -> tuple[dict, Tensor]:
    """Train on what is left of an epoch and validate. Returns its scores and the counts of `evaluate`."""
    loss_fn, normalise = models.build_loss(args.loss), models.Normalise(facts["mean"], facts["std"]).to(device)
    sampler = cast(EpochSampler, train_loader.sampler)
    sampler.epoch, sampler.start = state.epoch, state.batch * args.batch_size
    loss = train_one_epoch(state, train_loader, normalise, loss_fn, device, args, keeper.after_step)
    model = state.scored_model()
    if processes() > 1:  # each has batch normalisation's averages over its own photos; those of the first are kept
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)
    after_batch = keeper.after_validation_batch
    valid_loss, counts = evaluate(model, valid_loader, normalise, loss_fn, device, args.apex, after_batch)
    row = {"lr": state.optimizer.param_groups[0]["lr"], "loss": loss, "valid_loss": valid_loss}
    return row | {f"valid_{key}": value for key, value in scores(*counts).items()}, counts


def record(state: State, run: Path, facts: dict, row: dict, args: Namespace, board: SummaryWriter | None) -> bool:
    """Close an epoch: the first process writes the model if it is the best yet, the checkpoint and the logs.

    In this order a run killed in between repeats the end of the epoch and writes the same again.

    Returns:
        Whether the epoch is the best one of its size. Raises UserError on a full disk.
    """
    if isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step(row["valid_dice"])
    state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
    row = {"epoch": state.epoch, **row}
    state.history.append(row)
    is_best = row["valid_dice"] > state.best
    state.best = max(state.best, row["valid_dice"])
    if board is None:
        return is_best
    with writing(run):
        if is_best:
            result = {key.removeprefix("valid_"): value for key, value in row.items() if key.startswith("valid_")}
            models.save_model(state.scored_model(), run, facts | {"epoch": state.epoch, "scores": result})
        state.save(run / "last.pth")
        write_log(run, state.history)
        add_scalars(board, row)
    print(
        f"epoch {state.epoch}/{args.epochs}  {row['img_size']} px  loss {row['loss']:.4f}  "
        f"valid loss {row['valid_loss']:.4f}  Dice {row['valid_dice']:.4f}  IoU {row['valid_iou']:.4f}  "
        f"per photo {row['valid_dice_per_photo']:.4f}" + ("  best" if is_best else ""),
        flush=True,
    )
    return is_best


def best_row(history: list[dict]) -> dict:
    """The best epoch's row of the log, of those since the size last changed: the model in the run folder."""
    others = [row["epoch"] for row in history if row["img_size"] != history[-1]["img_size"]]
    return max(history[max(others, default=0) :], key=lambda row: row["valid_dice"])


def is_finished(args: Namespace, state: State) -> bool:
    """Whether all epochs are done, or the last size had `--patience` epochs without a better Dice."""
    patient = args.patience == 0 or state.epoch <= sum(args.size_epochs[:-1])
    return state.epoch >= args.epochs or (
        not patient and state.epoch - best_row(state.history)["epoch"] >= args.patience
    )

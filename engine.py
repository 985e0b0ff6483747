"""The loops: one epoch of training, evaluation, and `fit`, which runs, records and resumes them."""

import itertools
import math
import signal
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import segmentation_models_pytorch as smp
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import models
from dataset import HairDataset, PhotoSet, build_loader, eval_transform, open_backgrounds, train_transform
from utils import UserError, atomic, build_scheduler, choose_device, scores, seed_everything, write_json

CHECKPOINT_VERSION = 1


@dataclass
class State:
    """Everything that a resumed run needs to go on as if it had never stopped."""

    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: torch.optim.Optimizer
    scheduler: object
    scaler: torch.amp.GradScaler
    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the epoch under way
    loss_sum: float = 0.0  # over those batches
    best: float = -1.0
    history: list[dict] = field(default_factory=list)

    def scored_model(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights where there is one."""
        return self.ema.module if self.ema else self.model

    def save(self, path: Path) -> None:
        """Write a checkpoint of tensors and plain values, atomically: on a full disk the older one stays."""
        content = {
            "version": CHECKPOINT_VERSION,
            **{name: part.state_dict() for name, part in self._parts().items()},
            **{name: getattr(self, name) for name in ("epoch", "batch", "loss_sum", "best", "history")},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        try:
            with atomic(path) as temporary:
                torch.save(content, temporary)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            raise UserError(
                f"{path}: could not be written ({str(error).splitlines()[0]}); the older one is kept"
            ) from error

    def load(self, path: Path) -> None:
        """Read a checkpoint of a run with the same flags. Raises UserError."""
        content = models.read_tensors(path)
        if content.get("version") != CHECKPOINT_VERSION:
            raise UserError(f"{path}: a checkpoint of another version of this project; start the run anew")
        try:
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UserError(f"{path}: does not fit these flags ({str(error).splitlines()[0]})") from error
        for name in ("epoch", "batch", "loss_sum", "best", "history"):
            setattr(self, name, content[name])
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(content["random_cuda"])

    def _parts(self) -> dict:
        parts = {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler
        if self.ema is not None:
            parts["ema"] = self.ema.module
        return parts


def autocast(device: torch.device, enabled: bool) -> torch.autocast:
    """Mixed precision for forward passes: bf16 where the device computes in it, else fp16 (which needs a scaler)."""
    return torch.autocast(device.type, half_precision(device), enabled=enabled)


def half_precision(device: torch.device) -> torch.dtype:
    """bf16 on CPUs and on the GPUs that have it, else fp16."""
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16


def train_one_epoch(
    state: State,
    loader: DataLoader,
    loss_fn: nn.Module,
    device: torch.device,
    args: Namespace,
    after_step: Callable[[], None],
) -> float:
    """Train on what is left of the epoch.

    Args:
        state: is advanced; `state.batch` batches are done already and the loader gives the others.
        loader: gives photos float32 (N, 3, S, S), masks float32 (N, 1, S, S) and the photos' numbers.
        loss_fn: from float32 logits and masks to a scalar.
        device: of the model.
        args: `apex`, `grad_accum` and `max_grad_norm` are read.
        after_step: called after every optimizer step.

    Returns:
        The mean loss of the epoch's batches.

    Raises:
        UserError: a loss that is not finite.
    """
    state.model.train()
    bar = tqdm(
        loader, total=state.batch + len(loader), initial=state.batch, desc=f"epoch {state.epoch + 1}", leave=False
    )
    for images, masks, numbers in bar:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        masks = masks.to(device, non_blocking=True)
        with autocast(device, args.apex):
            logits = state.model(images)
        loss = loss_fn(logits.float(), masks)
        if not math.isfinite(loss.item()):
            paths = ", ".join(str(loader.dataset.photos.path(i)) for i in numbers.tolist())
            raise UserError(
                f"the loss is {loss.item()} in epoch {state.epoch + 1} on {paths}; try a lower --encoder_lr"
            )
        # The last group of an epoch may be short: each group's gradients are the mean over its own batches.
        group_start = state.batch - state.batch % args.grad_accum
        group = min(args.grad_accum, bar.total - group_start)
        state.scaler.scale(loss / group).backward()
        state.batch += 1
        state.loss_sum += loss.item()
        if state.batch - group_start < group:
            continue
        if args.max_grad_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), args.max_grad_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            steps = state.epoch * math.ceil(bar.total / args.grad_accum) + math.ceil(state.batch / args.grad_accum)
            state.ema.update(state.model, step=steps)
        if state.scheduler is not None and not isinstance(state.scheduler, ReduceLROnPlateau):
            state.scheduler.step()
        bar.set_postfix(loss=f"{state.loss_sum / state.batch:.4f}", lr=f"{state.optimizer.param_groups[0]['lr']:.1e}")
        after_step()
    return state.loss_sum / state.batch


@torch.inference_mode()
def evaluate(
    model: nn.Module, loader: DataLoader, loss_fn: nn.Module, device: torch.device, apex: bool = False
) -> dict[str, float]:
    """Score a network on all photos of a loader: `loss`, the mean over photos, and the scores of `utils.scores`."""
    model.eval()
    loss_sum, counts = 0.0, []
    for images, masks, _ in (bar := tqdm(loader, desc="validate", leave=False)):
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        masks = masks.to(device, non_blocking=True)
        with autocast(device, apex):
            logits = model(images)
        logits = logits.float()
        loss_sum += loss_fn(logits, masks).item() * len(images)
        counts.append(torch.stack(smp.metrics.get_stats(logits.sigmoid(), masks.long(), mode="binary", threshold=0.5)))
        if not bar.disable:
            bar.set_postfix(dice=f"{scores(*torch.cat(counts, 1))['dice']:.4f}")
    return {"loss": loss_sum / len(loader.dataset), **scores(*torch.cat(counts, 1))}


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
    run = args.output_dir / f"{args.encoder_type}_{models.decoder_name(args.decoder_type)}_{name}"
    if args.resume is None and (run / "config.json").exists():
        raise UserError(f"{run}: there is a run already; go on with --resume, or choose another --output_dir")
    device = choose_device(args.device)
    backgrounds = open_backgrounds(args.backgrounds)
    train.check()
    valid.check()
    seed_everything(args.seed)
    weights = None if args.encoder_weights == "none" else args.encoder_weights
    model = models.build_model(args.encoder_type, args.decoder_type, weights, args.decoder_channels).to(device)
    mean, std = models.normalisation(args.encoder_type, weights)
    loss_fn = models.build_loss(args.loss)
    state = _build_state(args, model, device, batches=len(train) // args.batch_size)
    if args.resume is not None:
        state.load(run / "last.pth")
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / "args.json", vars(args))
    _print_start(args, run, model, device, train, valid)

    writer = SummaryWriter(run / "tensorboard", purge_step=state.epoch)
    interrupted = _catch_interrupt()
    saved_at = time.monotonic()

    def after_step() -> None:
        nonlocal saved_at
        if interrupted() or time.monotonic() - saved_at > 60 * args.save_every:
            state.save(run / "last.pth")
            saved_at = time.monotonic()
        if interrupted():
            print(f"stopped in epoch {state.epoch + 1}; best Dice {max(state.best, 0):.4f}; --resume goes on")
            raise KeyboardInterrupt

    last_epochs = list(itertools.accumulate(args.size_epochs))
    for phase, size in enumerate(args.img_size):
        if state.epoch >= last_epochs[phase]:
            continue
        train_set = HairDataset(train, train_transform(args.augment, size, mean, std), backgrounds)
        valid_set = HairDataset(valid, eval_transform(size, mean, std))
        pin = device.type == "cuda"
        train_loader = build_loader(train_set, args.batch_size, args.num_workers, args.seed, pin_memory=pin)
        valid_loader = build_loader(valid_set, 2 * args.batch_size, args.num_workers, pin_memory=pin)
        while state.epoch < last_epochs[phase]:
            train_loader.sampler.epoch, train_loader.sampler.start = state.epoch, state.batch * args.batch_size
            loss = train_one_epoch(state, train_loader, loss_fn, device, args, after_step)
            row = {
                "epoch": state.epoch + 1,
                "img_size": size,
                "lr": state.optimizer.param_groups[0]["lr"],
                "loss": loss,
            }
            result = evaluate(state.scored_model(), valid_loader, loss_fn, device, args.apex)
            row |= {f"valid_{key}": value for key, value in result.items()}
            if isinstance(state.scheduler, ReduceLROnPlateau):
                state.scheduler.step(result["dice"])
            is_first_of_size = state.epoch in (0, *last_epochs)  # Dice at another size does not compare
            state.history.append(row)
            state.epoch, state.batch, state.loss_sum = state.epoch + 1, 0, 0.0
            if is_best := is_first_of_size or result["dice"] > state.best:
                state.best = result["dice"]
                facts = {
                    "img_size": size,
                    "mean": mean,
                    "std": std,
                    "threshold": 0.5,
                    "data": [str(d) for d in args.data_dir],
                }
                facts |= {"fold": args.fold, "n_folds": args.n_folds, "epoch": state.epoch, "scores": result}
                models.save_model(state.scored_model(), run, facts)
            state.save(run / "last.pth")
            with atomic(run / "log.csv") as temporary:
                pd.DataFrame(state.history).to_csv(temporary, index=False)
            for key in row.keys() - {"epoch", "img_size"}:
                writer.add_scalar(key.replace("_", "/", 1), row[key], state.epoch)
            writer.flush()
            print(
                f"epoch {state.epoch}/{args.epochs}  {size} px  loss {loss:.4f}  valid loss {result['loss']:.4f}  "
                f"Dice {result['dice']:.4f}  IoU {result['iou']:.4f}  per photo {result['dice_per_photo']:.4f}"
                + ("  best" if is_best else ""),
                flush=True,
            )
            if interrupted():
                raise KeyboardInterrupt
    writer.close()
    best = max(
        (row for row in state.history if row["img_size"] == args.img_size[-1]), key=lambda row: row["valid_dice"]
    )
    print(f"best Dice {best['valid_dice']:.4f} in epoch {best['epoch']}; the model is in {run}")
    return best


def _build_state(args: Namespace, model: nn.Module, device: torch.device, batches: int) -> State:
    if batches == 0:
        raise UserError(f"--batch_size {args.batch_size} is more than the photos to train on")
    encoder = [p for p in model.encoder.parameters() if p.requires_grad]
    known = {id(p) for p in encoder}
    rest = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": encoder, "lr": args.encoder_lr}, {"params": rest, "lr": args.decoder_lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=args.weight_decay)
    steps = math.ceil(batches / args.grad_accum)
    scheduler = build_scheduler(
        args.scheduler, optimizer, args.epochs, steps, args.warmup_epochs, args.warmup_factor, args.min_lr
    )
    needs_scaler = args.apex and half_precision(device) == torch.float16
    return State(
        model=model,
        # The warm-up lets the average forget the untrained weights also in runs of few steps.
        ema=ModelEmaV3(model, decay=args.ema, use_warmup=True, warmup_power=0.75) if args.ema else None,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=needs_scaler),
    )


def _print_start(
    args: Namespace, run: Path, model: nn.Module, device: torch.device, train: PhotoSet, valid: PhotoSet
) -> None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    precision = str(half_precision(device)).removeprefix("torch.") if args.apex else "float32"
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    print(f"device {device} ({name}), {precision}; torch {torch.__version__}, SMP {smp.__version__}")
    print(
        f"{args.encoder_type} {args.decoder_type}, {millions:.2f} M parameters; {len(train)} photos to train on, ",
        end="",
    )
    print(f"{len(valid)} to validate on; run folder {run}")
    print(" ".join(f"--{key} {value}" for key, value in vars(args).items()), flush=True)


def _catch_interrupt() -> Callable[[], bool]:
    """Let Ctrl-C wait for the end of the step, where the state is whole; a second Ctrl-C stops at once."""
    pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, press)
    return lambda: pressed

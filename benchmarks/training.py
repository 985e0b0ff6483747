"""Compare training here with a plain loop: float32, default memory format, no workers. Prints ratios of one run.

python -m benchmarks.training                                          # drawn heads, no download
python -m benchmarks.training --data_dir data/CelebAMask-HQ --photos 600 --num_workers 2
"""

import argparse
import copy
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import models
from dataset import EpochSampler, HairDataset, split
from hair.cli import HelpFormatter, number
from hair.errors import run
from tools.make_sample import make_celeb
from training.augment import eval_transform
from training.checkpoint import CheckpointTimer
from training.engine import Compute, evaluate, train_one_epoch
from training.fit import record
from training.flags import TrainingPlan, parse_training, plan_from, training_parser
from training.folders import open_folder
from training.logs import open_log
from training.losses import build_loss
from training.setup import build_loaders, build_state
from utils import keep_freed_memory, scores, seed_everything

CPU = torch.device("cpu")
RATE = 3e-4  # learning rate of both loops
SEED = 42


@dataclass(frozen=True)
class Settings:
    """What both loops train, and how they are timed: the flags of this script."""

    data_dir: Path
    photos: int
    encoder_type: str
    encoder_weights: str
    img_size: int
    batch_size: int
    epochs: int
    steps: int
    num_workers: int
    threads: int
    cpu_time: bool

    def clock(self) -> float:
        """Seconds, of the process or of the wall clock."""
        return time.process_time() if self.cpu_time else time.perf_counter()

    def pretrained(self) -> str | None:
        """The encoder's weights as `models.build_model` takes them."""
        return None if self.encoder_weights == "none" else self.encoder_weights

    def open_sets(self) -> tuple[HairDataset, HairDataset]:
        """Photos to train on and to validate on, without augmentation."""
        train, valid = split([open_folder(self.data_dir)], 0, 5, self.photos)
        return HairDataset(train, eval_transform(self.img_size)), HairDataset(valid, eval_transform(self.img_size))

    def compute(self, apex: bool) -> Compute:
        """How photos become a loss."""
        normalise = models.Normalise(*models.normalisation(self.encoder_type, self.pretrained()))
        return Compute(CPU, normalise, build_loss("dice_bce"), apex)

    def plan(self) -> TrainingPlan:
        """The flags of a training script that correspond to these settings."""
        keys = ("data_dir", "encoder_type", "encoder_weights", "img_size", "batch_size", "epochs", "num_workers")
        own = [f"--{key}={getattr(self, key)}" for key in keys]
        rates = ["--scheduler=none", f"--encoder_lr={RATE}", f"--decoder_lr={RATE}"]
        parser = training_parser("", str(self.data_dir), "benchmark")
        return plan_from(parse_training(parser, [*own, *rates, f"--seed={SEED}", "--apex"]))

    def median_seconds(self, step: Callable[[], object]) -> float:
        """Median duration of a step on a batch that is in memory, after one to warm up."""
        times = []
        for _ in range(self.steps + 1):
            start = self.clock()
            step()
            times.append(self.clock() - start)
        return float(torch.tensor(times[1:]).median())


def plain_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    compute: Compute,
    images: torch.Tensor,
    masks: torch.Tensor,
) -> None:
    """A step as one would write it first: float32, the loss is read after every batch."""
    loss = compute.loss_fn(model(compute.normalise(images)), masks.float())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
    optimizer.step()
    loss.item()


def train_plainly(settings: Settings) -> dict[str, float]:
    """Train by a plain loop.

    Returns:
        `step` (photos a second on a batch in memory), `memory` (peak, as the operating system counts it) and `dice`.
    """
    train, valid = settings.open_sets()
    seed_everything(SEED)
    model = models.build_model(settings.encoder_type, "Unet", settings.pretrained())
    model = model.to(memory_format=torch.contiguous_format)
    untrained = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-6)
    compute = settings.compute(apex=False)
    step = partial(plain_step, model, optimizer, compute)
    sampler = EpochSampler(len(train), SEED, settings.batch_size)
    loader = DataLoader(train, settings.batch_size, sampler=sampler, drop_last=True)
    images, masks, _ = next(iter(loader))
    seconds = settings.median_seconds(partial(step, images, masks))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.load_state_dict(untrained)
    optimizer.state.clear()
    for epoch in range(settings.epochs):
        sampler.epoch = epoch
        model.train()
        for images, masks, _ in loader:
            step(images, masks)
    _, counts = evaluate(model, DataLoader(valid, settings.batch_size), compute)
    return {"step": settings.batch_size / seconds, "memory": memory, "dice": scores(*counts)["dice"]}


class OneBatch(list):
    """A list that replaces a loader."""

    dataset = None


def train_as_here(settings: Settings) -> dict[str, float]:
    """Train by `training.fit`: bf16, channels_last, checkpoints, logs.

    Returns:
        As `train_plainly`, and `overhead` (of loader, logs and checkpoints, relative to bare steps) and `valid` (photos
        a second in validation, relative to training).
    """
    keep_freed_memory()  # as training.fit.train does on CPUs
    train, valid = settings.open_sets()
    plan = settings.plan()
    compute = settings.compute(plan.apex)
    state, _ = build_state(plan, CPU, len(train))
    train_loader, valid_loader = build_loaders(plan, train, valid, CPU)
    batch = OneBatch([next(iter(train_loader))])

    def step() -> None:
        state.batch = 0
        train_one_epoch(state, batch, compute, plan)

    seconds = settings.median_seconds(step)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state, facts = build_state(plan, CPU, len(train))  # again: the steps above have trained it
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder)
        timer = CheckpointTimer(state, output / "last.pth", plan.save_every, CPU)
        with timer, open_log(plan.log, output, vars(plan), []) as log:
            start = settings.clock()
            for _ in range(settings.epochs):
                train_loader.go_to(state.epoch, state.batch)
                loss = train_one_epoch(state, train_loader, compute, plan, timer.after_step)
                row = {"lr": 0.0, "loss": loss, "valid_loss": 0.0, "valid_iou": 0.0, "valid_dice_per_photo": 0.0}
                row |= {"img_size": settings.img_size, "valid_dice": float(state.epoch)}  # every epoch is the best yet
                record(state, output, facts, row, plan, log)
            trained = settings.clock() - start
    next(iter(valid_loader))  # starts its workers, which takes longer than these few photos
    start = settings.clock()
    _, counts = evaluate(state.model, valid_loader, compute)
    validated = len(valid) / (settings.clock() - start)
    photos = settings.epochs * len(train_loader) * settings.batch_size
    return {
        "step": settings.batch_size / seconds,
        "memory": memory,
        "dice": scores(*counts)["dice"],
        "overhead": trained / (photos / settings.batch_size * seconds) - 1,
        "valid": validated * trained / photos,
    }


def measure(loop: Callable[[Settings], dict[str, float]], settings: Settings) -> dict[str, float]:
    """Run one of the loops. In a new process, peak memory is the loop's own."""
    torch.set_num_threads(settings.threads)
    return loop(settings)


def main() -> None:
    """Print the comparison. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="as for train_celeb.py (default: drawn heads)")
    parser.add_argument("--photos", type=number(int, 8), default=240, help="for training and validation together")
    parser.add_argument("--encoder_type", default="timm-efficientnet-b0", help="encoder of the Unet")
    parser.add_argument("--encoder_weights", default="none", help="as for train_celeb.py")
    parser.add_argument("--img_size", type=number(int, 32), default=256, help="pixels")
    parser.add_argument("--batch_size", type=number(int, 2), default=8, help="photos in a batch")
    parser.add_argument("--epochs", type=number(int, 1), default=2, help="epochs before Dice is compared")
    parser.add_argument("--steps", type=number(int, 1), default=10, help="steps measured on a batch in memory")
    parser.add_argument(
        "--num_workers", type=number(int, 0), default=0, help="of the loop here; the plain one has none"
    )
    parser.add_argument("--threads", type=number(int, 1), default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--cpu_time", action="store_true", help="measure CPU time, for a busy machine")
    flags = vars(parser.parse_args())
    with tempfile.TemporaryDirectory() as drawn:
        if flags["data_dir"] is None:
            flags["data_dir"] = Path(drawn)
            make_celeb(flags["data_dir"], photos=flags["photos"], size=512)
        settings = Settings(**flags)
        # Not a Pool, whose processes may not start the loaders' workers.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            plain = pool.submit(measure, train_plainly, settings).result()
            here = pool.submit(measure, train_as_here, settings).result()
    print(json.dumps({"plain": plain, "here": here}))
    for what, value, required in (
        ("training step, photos a second", f"{here['step'] / plain['step']:.2f} × the plain loop's", "≥ 1.8 ×"),
        (f"Dice after {settings.epochs} epochs", f"{here['dice']:.4f}, plain {plain['dice']:.4f}", "within 0.01"),
        ("loader, logs and checkpoints add", f"{100 * here['overhead']:.1f}% to bare steps", "≤ 5%"),
        ("peak memory", f"{here['memory'] / plain['memory']:.2f} × the plain loop's", "≤ 1 ×"),
        ("validation, photos a second", f"{here['valid']:.2f} × training's", "≥ 2.5 ×"),
    ):
        print(f"{what:34} {value:28} (required: {required})")


if __name__ == "__main__":
    run(main)

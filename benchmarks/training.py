"""Compare training here with a plain loop: float32, default memory format, no workers. Prints ratios of one run.

python benchmarks/training.py                                          # drawn heads, no download
python benchmarks/training.py --data_dir data/CelebAMask-HQ --photos 600 --num_workers 2
"""

import argparse
import copy
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "data")]

import torch  # noqa: E402
from make_sample import make_celeb  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

import augment  # noqa: E402
import dataset  # noqa: E402
import engine  # noqa: E402
import models  # noqa: E402
import report  # noqa: E402
import utils  # noqa: E402
from checkpoint import Keeper  # noqa: E402

CPU = torch.device("cpu")


def weights(args: Namespace) -> str | None:
    return None if args.encoder_weights == "none" else args.encoder_weights


def open_sets(args: Namespace) -> list[dataset.HairDataset]:
    """Photos to train on and to validate on; both loops get the same, without augmentation."""
    train, valid = dataset.split([dataset.open_folder(args.data_dir)], 0, 5, args.photos)
    return [dataset.HairDataset(part, augment.eval_transform(args.img_size)) for part in (train, valid)]


def loss_and_normalise(args: Namespace) -> tuple:
    """What both loops put behind and before the network."""
    return models.build_loss("dice_bce"), models.Normalise(*models.normalisation(args.encoder_type, weights(args)))


def flags(args: Namespace) -> Namespace:
    """The training script's flags, as far as both loops have them."""
    own = [f"--{key}={vars(args)[key]}" for key in ("encoder_type", "encoder_weights", "img_size", "batch_size")]
    rates = ["--scheduler=none", "--encoder_lr=3e-4", "--decoder_lr=3e-4", f"--epochs={args.epochs}"]
    sys.argv = ["training", *own, *rates, f"--data_dir={args.data_dir}", f"--num_workers={args.num_workers}", "--apex"]
    return utils.parse_training(utils.training_parser("", "", "benchmark"))


def plain(args: Namespace) -> dict[str, float]:
    """The loop as it is written first: one precision, one memory format, loss and score read in every batch."""
    train, valid = open_sets(args)
    utils.seed_everything(42)
    model = models.build_model(args.encoder_type, "Unet", weights(args)).to(memory_format=torch.contiguous_format)
    untrained = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=1e-6)
    loss_fn, normalise = loss_and_normalise(args)

    def step(images: torch.Tensor, masks: torch.Tensor) -> None:
        loss = loss_fn(model(normalise(images)), masks.float())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
        optimizer.step()
        loss.item()

    sampler = dataset.EpochSampler(len(train), 42, args.batch_size)
    loader = DataLoader(train, args.batch_size, sampler=sampler, drop_last=True)
    images, masks, _ = next(iter(loader))
    seconds = bare(args, lambda: step(images, masks))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model.load_state_dict(untrained)
    optimizer.state.clear()
    for sampler.epoch in range(args.epochs):
        model.train()
        for images, masks, _ in loader:
            step(images, masks)
    _, counts = engine.evaluate(model, DataLoader(valid, args.batch_size), normalise, loss_fn, CPU)
    dice = utils.scores(*counts)["dice"]
    return {"step": args.batch_size / seconds, "memory": memory, "dice": dice}


def ours(args: Namespace) -> dict[str, float]:
    """The same with `engine`: bf16, channels_last, checkpoints, logs."""
    utils.keep_freed_memory()  # as engine.train does on CPUs
    train, valid = open_sets(args)
    job = flags(args)
    state, facts = engine.build_state(job, CPU, len(train))
    loaders = engine.build_loaders(job, train, valid, CPU)
    loss_fn, normalise = loss_and_normalise(args)
    images, masks, numbers = next(iter(loaders[0]))

    def step() -> None:
        state.batch = 0
        engine.train_one_epoch(state, Batch([(images, masks, numbers)]), normalise, loss_fn, CPU, job)

    seconds = bare(args, step)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state, facts = engine.build_state(job, CPU, len(train))  # anew: the steps above have trained it
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        with Keeper(state, run / "last.pth", 15, CPU) as keeper, report.tensorboard(run, []) as board:
            begin = args.clock()
            for _ in range(args.epochs):
                loaders[0].sampler.epoch = state.epoch
                loss = engine.train_one_epoch(state, loaders[0], normalise, loss_fn, CPU, job, keeper.after_step)
                row = {"lr": 0.0, "loss": loss, "valid_loss": 0.0, "valid_iou": 0.0, "valid_dice_per_photo": 0.0}
                row |= {"img_size": args.img_size, "valid_dice": float(state.epoch)}  # each epoch saves a best model
                engine.record(state, run, facts, row, job, board)
            trained = args.clock() - begin
    next(iter(loaders[1]))  # its workers take longer to start than these few photos take
    begin = args.clock()
    _, counts = engine.evaluate(state.model, loaders[1], normalise, loss_fn, CPU, apex=True)
    dice = utils.scores(*counts)["dice"]
    validated = len(valid) / (args.clock() - begin)
    photos = args.epochs * len(loaders[0]) * args.batch_size
    return {
        **{"step": args.batch_size / seconds, "memory": memory, "dice": dice},
        **{"overhead": trained / (photos / args.batch_size * seconds) - 1, "valid": validated * trained / photos},
    }


class Batch(list):
    """A list that stands for a loader."""

    dataset = None


def bare(args: Namespace, step: Callable) -> float:
    """Median seconds of a step on a batch that is in memory already."""
    times = []
    for _ in range(args.steps + 1):
        begin = args.clock()
        step()
        times.append(args.clock() - begin)
    return float(torch.tensor(times[1:]).median())


def measure(loop: str, args: Namespace) -> dict[str, float]:
    """Run one of the loops; called in a fresh process, whose peak memory is the loop's own."""
    torch.set_num_threads(args.threads)
    args.clock = time.process_time if args.cpu_time else time.perf_counter
    return {"plain": plain, "ours": ours}[loop](args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=utils.HelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="as in train_celeb.py; without it heads are drawn")
    parser.add_argument("--photos", type=int, default=240, help="to train on and to validate on together")
    parser.add_argument("--encoder_type", default="timm-efficientnet-b0", help="of a Unet")
    parser.add_argument("--encoder_weights", default="none", help="as in train_celeb.py")
    parser.add_argument("--img_size", type=int, default=256, help="pixels")
    parser.add_argument("--batch_size", type=int, default=8, help="photos in a batch")
    parser.add_argument("--epochs", type=int, default=2, help="before the Dice is compared")
    parser.add_argument("--steps", type=int, default=10, help="measured on a batch in memory")
    parser.add_argument("--num_workers", type=int, default=0, help="of the loop here; the plain one has none")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--cpu_time", action="store_true", help="for a busy machine: count the process's own time")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as drawn:
        if args.data_dir is None:
            args.data_dir = Path(drawn)
            make_celeb(args.data_dir, photos=args.photos, size=512)
        # Not a Pool, whose processes may not start loaders' workers.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
            a, b = pool.map(measure, ("plain", "ours"), (args, args))
    print(json.dumps({"plain": a, "here": b}))
    for what, value, must in (
        ("training step, photos a second", f"{b['step'] / a['step']:.2f} × the plain loop's", "≥ 1.8 ×"),
        (f"Dice after {args.epochs} epochs", f"{b['dice']:.4f} here, {a['dice']:.4f} there", "within 0.01"),
        ("loader, logs and checkpoints add", f"{100 * b['overhead']:.1f}% to bare steps", "≤ 5%"),
        ("peak memory", f"{b['memory'] / a['memory']:.2f} × the plain loop's", "≤ 1 ×"),
        ("validation, photos a second", f"{b['valid']:.2f} × training's", "≥ 2.5 ×"),
    ):
        print(f"{what:34} {value:28} (must: {must})")


if __name__ == "__main__":
    main()

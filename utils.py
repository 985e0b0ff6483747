"""What every script shares: flags, errors, devices, processes, seeding, atomic files, metrics and schedules."""

import argparse
import contextlib
import ctypes
import json
import math
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import cv2
import numpy as np
import torch
from torch import distributed
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LRScheduler, ReduceLROnPlateau
from warmup_scheduler import GradualWarmupScheduler

T = TypeVar("T")
Number = TypeVar("Number", int, float)


class UserError(Exception):
    """Something the user can mend; its message is one line that names the file or flag and the way out."""


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; what the user can mend is one line on standard error and exit status 1, Ctrl-C is 130."""
    if hasattr(sys.stdout, "reconfigure"):  # names of files may be in another encoding than UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except (UserError, OSError) as error:
        # One that comes from a process that loads photos brings its trace along, with the message in the last line.
        sys.exit(f"error: {str(error).strip().rpartition(chr(10))[2].removeprefix('utils.UserError: ')}")
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        sys.exit("error: a process that loads photos was killed, perhaps for want of memory; try fewer --num_workers")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


# ---------------------------------------------------------------------------------------------------- flags


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of a script's docstring and shows each flag's default."""


def number(kind: type[Number], low: float, high: float = float("inf")) -> Callable[[str], Number]:
    """An argparse type: an int or a float within [low, high]."""

    def parse(text: str) -> Number:
        value = kind(text)
        if not low <= value <= high or math.isinf(value):
            limits = f"at least {low}" if high == float("inf") else f"between {low} and {high}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {limits}")
        return value

    parse.__name__ = kind.__name__  # argparse names the type so when the text is no number at all
    return parse


def fold_number(text: str) -> int | str:
    """An argparse type: a fold's number, or `all`."""
    return text if text == "all" else number(int, 0)(text)


def training_parser(usage: str, data_dir: str, name: str) -> argparse.ArgumentParser:
    """The flags that both training scripts have; a script sets its own defaults and adds its own flags."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--data_dir", nargs="+", default=[data_dir], metavar="DIR", help="one or more data set folders")
    data.add_argument("--fold", type=fold_number, default=0, help="the fold to validate on; all: each in turn")
    data.add_argument("--n_folds", type=number(int, 2), default=5, help="number of folds")
    data.add_argument("--limit", type=number(int, 8), metavar="N", help="a quick run on N photos")
    data.add_argument("--img_size", type=number(int, 32), nargs="+", default=512, help="pixels; several: one a phase")
    data.add_argument("--size_epochs", type=number(int, 1), nargs="+", help="epochs at each --img_size; sets --epochs")
    data.add_argument("--augment", choices=["none", "light", "heavy"], default="light", help="strength of augmentation")
    data.add_argument("--backgrounds", nargs="+", default=[], metavar="DIR", help="photos without people to paste onto")
    data.add_argument("--num_workers", type=number(int, 0), default=0, help="processes that load photos")

    model = parser.add_argument_group("model")
    model.add_argument("--encoder_type", default="timm-efficientnet-b0", help="an encoder's name in SMP")
    model.add_argument("--decoder_type", default="Unet", help="Unet, FPN, Linknet, DeepLabV3Plus, UnetPlusPlus, …")
    model.add_argument("--decoder_channels", type=number(int, 1), nargs="+", help="narrower or wider Unet decoder")
    model.add_argument("--encoder_weights", default="imagenet", help="imagenet, another name in SMP, none, or a file")
    model.add_argument(
        "--weights", type=Path, metavar="RUN", help="start from a trained model, as for photos of your own"
    )

    train = parser.add_argument_group("training")
    train.add_argument("--epochs", type=number(int, 1), default=20, help="passes over the training photos")
    train.add_argument("--batch_size", type=number(int, 2), default=4, help="photos in a batch")
    train.add_argument(
        "--loss", choices=["dice_bce", "dice", "bce", "focal", "lovasz"], default="dice_bce", help="loss"
    )
    train.add_argument(
        "--teacher", nargs="+", default=[], metavar="RUN", help="trained models whose masks are half of what is learnt"
    )
    train.add_argument("--encoder_lr", type=number(float, 0), default=3e-5, help="encoder's rate before the warm-up")
    train.add_argument("--decoder_lr", type=number(float, 0), help="decoder's rate; as the encoder's where not given")
    train.add_argument("--weight_decay", type=number(float, 0), default=1e-6, help="of AdamW")
    train.add_argument("--scheduler", choices=SCHEDULERS, default="GradualWarmupSchedulerV2", help="of the rates")
    train.add_argument("--min_lr", type=number(float, 0), default=1e-6, help="learning rate towards which it falls")
    train.add_argument("--warmup_epochs", type=number(float, 0), default=1, help="epochs of rising learning rate")
    train.add_argument("--warmup_factor", type=number(float, 1), default=10, help="peak rate over the starting rate")
    train.add_argument("--grad_accum", type=number(int, 1), default=1, help="batches whose gradients make one step")
    train.add_argument("--max_grad_norm", type=number(float, 0), default=5, help="clip gradients to this; 0: never")
    train.add_argument("--freeze_encoder_epochs", type=number(int, 0), default=0, help="epochs for the decoder alone")
    train.add_argument("--patience", type=number(int, 0), default=0, help="epochs without a better Dice; 0: no limit")
    train.add_argument("--ema", type=number(float, 0, 0.99999), default=0, help="keep a moving average of the weights")
    train.add_argument(
        "--apex", action=argparse.BooleanOptionalAction, default=False, help="mixed precision (torch.amp)"
    )
    train.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False, help="torch.compile")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    train.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=42, help="of weights, order and augmentations")

    files = parser.add_argument_group("files")
    files.add_argument("--output_dir", type=Path, default=Path("weights"), help="run folders are made in it")
    files.add_argument("--name", default=name, help="ends the run folder's name")
    files.add_argument(
        "--resume",
        type=Path,
        nargs="?",
        const=True,
        metavar="RUN",
        help="go on with a run folder; alone: the newest of this --name",
    )
    files.add_argument("--save_every", type=number(float, 0), default=15, help="minutes between saves in an epoch")
    return parser


def parse_training(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the flags; with --resume those of the run's `args.json`, unless given anew, are the defaults.

    Raises:
        UserError: flags that do not go together, or no run to resume.
    """
    args = parser.parse_args()
    if args.resume is not None:
        folder = newest_run(args.output_dir, args.name) if args.resume is True else args.resume
        flags = read_flags(folder)
        parser.set_defaults(**flags)
        args = parser.parse_args()
        args.resume = folder
        if other := [key for key in ("fold", "n_folds") if getattr(args, key) != flags.get(key, getattr(args, key))]:
            was = f"--{other[0]} {flags[other[0]]}"  # it would be validated on photos that it was trained on
            raise UserError(f"--resume {folder}: was started with {was}; go on with that, or start another run")
    elif args.weights is not None:
        parser.set_defaults(**read_architecture(args.weights))
        args = parser.parse_args()
    args.img_size = args.img_size if isinstance(args.img_size, list) else [args.img_size]
    if len(args.img_size) == 1:
        if args.size_epochs not in (parser.get_default("size_epochs"), [args.epochs]):
            raise UserError("--size_epochs goes with several --img_size; for one size, give --epochs")
        args.size_epochs = [args.epochs]
    elif args.size_epochs is None or len(args.size_epochs) != len(args.img_size):
        raise UserError("--size_epochs needs as many numbers as --img_size")
    elif args.epochs not in (parser.get_default("epochs"), sum(args.size_epochs)):
        raise UserError(f"--epochs {args.epochs}: with several --img_size, --size_epochs sets the number of epochs")
    args.epochs = sum(args.size_epochs)
    if wrong := [size for size in args.img_size if size % 32]:
        raise UserError(f"--img_size {wrong[0]} is not a multiple of 32, which the decoders need")
    if args.fold != "all" and args.fold >= args.n_folds:
        raise UserError(
            f"--fold {args.fold} is out of range: with --n_folds {args.n_folds} the last is {args.n_folds - 1}"
        )
    if Path(args.name).name != args.name:
        raise UserError(f"--name {args.name}: ends a folder's name, so that it can hold no / and no \\")
    if args.teacher and args.loss in ("focal", "lovasz"):
        raise UserError(f"--loss {args.loss} takes no half-hair; with --teacher use dice_bce, dice or bce")
    return args


def newest_run(output_dir: Path, name: str) -> Path:
    """The run folder of this name that was started or resumed last. Raises UserError."""
    runs = []
    for path in output_dir.glob("*/args.json"):
        with contextlib.suppress(UserError):  # another run's broken file is not in the way
            if read_flags(path.parent).get("name") == name:
                runs.append(path)
    if not runs:
        raise UserError(f"--resume: no run named {name} in {output_dir}; name the folder of a run")
    return max(runs, key=lambda path: path.stat().st_mtime).parent


def read_flags(run: Path) -> dict:
    """The flags that a run was started with, from its `args.json`. Raises UserError."""
    try:
        flags = json.loads((run / "args.json").read_bytes().decode(errors="surrogateescape"))
        return {key: value for key, value in flags.items() if key != "resume"} | {"output_dir": run.parent}
    except FileNotFoundError:
        raise UserError(f"--resume {run}: no args.json there; name the folder of a run") from None
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{run / 'args.json'}: cannot be read ({error}); start the run anew") from error


def read_architecture(run: Path) -> dict:
    """The flags that describe the network in a run folder, from its `config.json`. Raises UserError."""
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        flags = {"encoder_type": config["encoder_name"], "decoder_type": config["_model_class"]}
        flags["img_size"] = config["_hair"]["img_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--weights {run}: no config.json of a model there; name the folder of a run") from error
    return flags | {"decoder_channels": config.get("decoder_channels")}


# ---------------------------------------------------------------------------------------------------- devices


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. Raises UserError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # torchrun numbers its processes on a machine
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"--device {name} cannot be used here ({str(error).splitlines()[0]}); try --device cpu"
        ) from error


def keep_freed_memory() -> None:
    """Let glibc keep the large blocks that this process frees, instead of returning them to the kernel. Linux alone.

    A training step on a CPU frees hundreds of MB and asks for as many again, and a loading process a photo's; new pages
    are cleared and mapped one by one, in about a quarter of the step's time (mallopt(3); benchmarks/training.py).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # numbers of the options in malloc.h
        mallopt(trim_threshold, -1)  # never
        mallopt(mmap_threshold, 2**31 - 1)


def half_precision(device: torch.device) -> torch.dtype:
    """bf16 on CPUs and on the GPUs that have it, else fp16."""
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def join_processes(device: torch.device) -> None:
    """Under torchrun, which sets WORLD_SIZE, become one of its processes; else do nothing."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or distributed.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Others wait while the first one builds an index or checks the photos, which can take long.
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2))


def leave_processes() -> None:
    """Undo `join_processes`; else the process may hang when it ends."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """This process's number; the first, 0, is the one that prints and writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def processes() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wait_for_all() -> None:
    """Wait until every process is here."""
    if processes() > 1:
        distributed.barrier()


def total(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, in place, summed over all processes."""
    if processes() > 1:
        distributed.all_reduce(tensor)
    return tensor


def first_alone(function: Callable[[], T]) -> T:
    """Call a function in the first process, then in the others, which find made what it makes.

    Raises the UserError that the first one raises there; the others end with it and say nothing.
    """
    if processes() == 1:
        return function()
    result, failure = None, None
    if rank() == 0:
        try:
            result = function()
        except UserError as error:
            failure = error
    told = [failure is not None]
    distributed.broadcast_object_list(told)
    if failure is not None:
        raise failure
    if told[0]:
        sys.exit(1)
    return cast(T, result if rank() == 0 else function())


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; augmentations have seeds of their own (see dataset.EpochSampler)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


# ---------------------------------------------------------------------------------------------------- files


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, a file or a folder, that takes its place only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder / path.name
        (folder / path.name).replace(path)
    except OSError as error:
        if error.errno and error.filename is None:  # a full disk's error names no file
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `path` only if the block succeeds. Raises UserError where `path` exists."""
    if path.exists():
        raise UserError(f"{path}: is there already; remove it, or choose another --output_dir")
    with atomic(path) as folder:
        folder.mkdir()
        yield folder


def write_json(path: Path, content: dict | list) -> None:
    """Write `content` as readable JSON, atomically."""
    with atomic(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
        temporary.write_bytes(text.encode(errors="surrogateescape"))  # a path's name may be no UTF-8


# ---------------------------------------------------------------------------------------------------- metrics


def scores(tp: torch.Tensor, fp: torch.Tensor, fn: torch.Tensor, tn: torch.Tensor) -> dict[str, float]:
    """Scores of a whole set from its photos' counts, as `smp.metrics.get_stats` gives them.

    Args:
        tp, fp, fn, tn: int64 (photos, 1), pixels of each kind.

    Returns:
        `dice`, `iou`, `precision` and `recall` of the summed counts, `dice_per_photo` as the mean over photos. Where
        there is neither hair nor a predicted pixel, Dice and IoU count as 1; precision without a predicted pixel and
        recall without hair count as 0. All in [0, 1].
    """
    from segmentation_models_pytorch import metrics  # imported late: it takes seconds, and --help needs none of it

    counts = (tp, fp, fn, tn)
    return {
        "dice": metrics.f1_score(*counts, reduction="micro").nan_to_num(1.0).item(),
        "iou": metrics.iou_score(*counts, reduction="micro").nan_to_num(1.0).item(),
        "dice_per_photo": float(metrics.f1_score(*counts, reduction="micro-imagewise", zero_division=1.0)),
        "precision": metrics.precision(*counts, reduction="micro").nan_to_num(0.0).item(),
        "recall": metrics.recall(*counts, reduction="micro").nan_to_num(0.0).item(),
    }


def boundary_f1(found: np.ndarray, hair: np.ndarray) -> float:
    """How well two masks' outlines agree: the boundary F1 of Csurka et al., "What is a good evaluation measure for
    semantic segmentation?", BMVC 2013.

    Args:
        found, hair: bool (H, W).

    Returns:
        In [0, 1]: the harmonic mean of the shares of either outline that lie within 0.75% of the picture's diagonal of
        the other; where a mask has no outline, 1 if the two are equal and else 0.
    """
    radius = max(1, round(0.0075 * float(np.hypot(*hair.shape))))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    masks = [mask.astype(np.uint8) for mask in (found, hair)]
    edges: list[np.ndarray] = [mask - cv2.erode(mask, np.ones((3, 3), np.uint8)) for mask in masks]
    if not edges[0].any() or not edges[1].any():  # the frame is no edge: a mask without one is black, or white
        return float((found == hair).all())
    near = [cv2.dilate(edge, disk) for edge in edges]
    precision, recall = ((edges[one] & near[1 - one]).sum() / edges[one].sum() for one in (0, 1))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


# ---------------------------------------------------------------------------------------------------- schedules

SCHEDULERS = [
    "GradualWarmupSchedulerV2",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ReduceLROnPlateau",
    "none",
]


class GradualWarmupSchedulerV2(GradualWarmupScheduler):
    """warmup-scheduler's linear rise, then a cosine, stepped once after every optimizer step without arguments.

    Mends three faults of the parent: the peak is held for one step only, a multiplier of 1 stays at the base rate
    instead of starting at zero, and `state_dict` holds numbers alone, so that a resumed run follows the same rates.
    """

    def __init__(
        self, optimizer: Optimizer, multiplier: float, warmup_steps: int, after_scheduler: LRScheduler
    ) -> None:
        after_scheduler.base_lrs = [lr * multiplier for lr in after_scheduler.base_lrs]
        super().__init__(optimizer, multiplier, max(warmup_steps, 0), after_scheduler)

    def get_lr(self) -> list[float]:
        if self.last_epoch < self.total_epoch:
            rise = 1 + (self.multiplier - 1) * self.last_epoch / self.total_epoch
            return [lr * rise for lr in self.base_lrs]
        return [lr * self.multiplier for lr in self.base_lrs]

    def step(self) -> None:
        if self.last_epoch < self.total_epoch:
            LRScheduler.step(self)
        else:
            self.after_scheduler.step()
            self._last_lr = self.after_scheduler.get_last_lr()

    def state_dict(self) -> dict:
        return {"last_epoch": self.last_epoch, "after_scheduler": self.after_scheduler.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.last_epoch = state["last_epoch"]
        self._step_count = self.last_epoch + 1  # else torch warns that no optimizer step came before
        self.after_scheduler.load_state_dict(state["after_scheduler"])
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def build_scheduler(
    name: str,
    optimizer: Optimizer,
    epochs: int,
    steps_per_epoch: int,
    warmup_epochs: float,
    factor: float,
    min_lr: float,
) -> LRScheduler | ReduceLROnPlateau | None:
    """Build a schedule by name. All but ReduceLROnPlateau, which steps on each epoch's Dice, step after every batch.

    Without the warm-up of GradualWarmupSchedulerV2 the optimizer's rates are the peak rates.
    """
    steps = epochs * steps_per_epoch
    if name == "GradualWarmupSchedulerV2":
        # The last rate is used by the last optimizer step, which is step number `steps - 1` counted from zero.
        warmup = min(round(warmup_epochs * steps_per_epoch), steps - 1)
        cosine = CosineAnnealingLR(optimizer, T_max=max(steps - 1 - warmup, 1), eta_min=min_lr)
        return GradualWarmupSchedulerV2(optimizer, factor, warmup, cosine)
    if name == "CosineAnnealingLR":
        return CosineAnnealingLR(optimizer, T_max=max(steps - 1, 1), eta_min=min_lr)
    if name == "CosineAnnealingWarmRestarts":
        return CosineAnnealingWarmRestarts(
            optimizer, T_0=max(-(-steps // 7), 1), T_mult=2, eta_min=min_lr
        )  # 1 + 2 + 4 parts, rounded up: a step beyond them would start another at the peak
    if name == "ReduceLROnPlateau":
        return ReduceLROnPlateau(optimizer, mode="max", factor=0.3, patience=2, min_lr=min_lr)
    return None

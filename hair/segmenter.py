"""HairSegmenter: computes for each pixel of a photo the probability that it is hair."""

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from hair.backends import BACKENDS, Network, computes_int8, fingerprint, open_network
from hair.errors import UserError
from hair.geometry import letterbox, preprocess, restore
from hair.looks import look_closer
from hair.photos import read_photo
from hair.refine import refine_edges
from hair.store import find_weights

TTA_SCALES = (1, 0.75, 1.25)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits to probabilities, without overflow for large negative logits."""
    return 0.5 * (np.tanh(0.5 * logits) + 1)


class HairSegmenter:
    """A trained network that computes for each pixel of a photo the probability that it is hair. Threads may share one.

    Args:
        weights: a run folder, with `config.json` and `model.safetensors` or `model.onnx`; a file from `export.py`
            (`.onnx`, `.xml`, `.torchscript`); or a name or an address, see `store.find_weights`. None: the weights that
            come with the project.
        backend: `onnx`, `openvino`, `torch`, or `auto`. `auto` runs the ONNX file, if there is one, with OpenVINO if
            that is installed, else with ONNX Runtime; without an ONNX file it uses torch. On a CPU that computes in
            int8 (see `backends.computes_int8`), `model_int8.onnx` comes before `model.onnx`.
        device: `auto`, `cpu`, or another device of the backend (`cuda`, `mps`; `gpu` for OpenVINO).
        img_size: longer side of the photo at the network's input, in pixels; a multiple of 32. None: the size at which
            the network was trained.
        tta: average over the photo, its mirror image, and both at 3/4 and 5/4 of the size: better, six times slower.
        refine: align the edges of the hair with those of the photo (see `refine.refine_edges`).
        multi_scale: take closer looks at heads that fill only a small part of the photo (see `hair.looks`).
        threads: CPU cores for one call of ONNX Runtime, OpenVINO or LiteRT; None: all. For many photos, several
            calling threads that share the cores are faster than one thread with all cores.

    Attributes:
        backend: the chosen backend.
        network: the file that runs, by what, and in which precision; for people to read.
        facts: the metadata that are stored with the weights.
        img_size: as above.
        threshold: probability from which a pixel counts as hair; stored with the weights.

    Raises:
        FileNotFoundError: no such weights.
        UserError: the weights cannot be loaded, the backend is not installed, the device is unknown, or the size wrong.
    """

    def __init__(  # noqa: PLR0913 (public: users set these by name)
        self,
        weights: str | Path | None = None,
        backend: str = "auto",
        device: str = "auto",
        img_size: int | None = None,
        tta: bool = False,
        refine: bool = False,
        multi_scale: bool = True,
        threads: int | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise UserError(f"--backend {backend}: choose from {', '.join(BACKENDS)}")
        if threads is not None and threads < 1:
            raise UserError(f"threads: {threads} is not a number of cores")
        path = find_weights(weights)
        opener = _open_folder if path.is_dir() else open_network
        self._network = opener(path, backend, device, threads=threads)
        self.facts = self._network.facts
        self.backend = self._network.backend
        self.network = str(self._network)
        self.threshold: float = self.facts["threshold"]
        self.img_size = self.facts["img_size"] if img_size is None else img_size
        self.tta, self.refine, self.multi_scale = tta, refine, multi_scale
        fixed = self.facts.get("fixed_size")
        if not isinstance(self.img_size, int) or self.img_size < 32 or self.img_size % 32:
            raise UserError(f"--img_size {self.img_size} is not a multiple of 32")
        if fixed and self.img_size != fixed:
            raise UserError(f"{path}: was exported for --img_size {fixed} only")
        scales = TTA_SCALES if tta and not fixed else (1,)
        sizes = (_multiple_of_32(self.img_size * scale) for scale in scales)
        self._sizes = list(dict.fromkeys(sizes))  # small sizes may be equal

    def __call__(self, image: np.ndarray | str | Path) -> np.ndarray:
        """Segment one photo.

        Args:
            image: RGB uint8 (H, W, 3), or the path of a file.

        Returns:
            float32 (H, W) in [0, 1], at the size of the photo.

        Raises:
            FileNotFoundError, UserError: an unreadable file, or an array of another shape or type.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray | str | Path]) -> list[np.ndarray]:
        """Segment several photos of any sizes in one run of the network, which is faster on a GPU.

        Args:
            images: RGB uint8 (H, W, 3) or paths; all of them are in memory at once.

        Returns:
            An array float32 (H, W) in [0, 1] for each photo, in the same order.

        Raises:
            FileNotFoundError, UserError: an unreadable file, or an array of another shape or type.
        """
        photos = [image if isinstance(image, np.ndarray) else read_photo(image) for image in images]
        for photo in photos:
            if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
                raise UserError(f"a photo is RGB uint8 (H, W, 3), not {photo.dtype} {photo.shape}")
        if not photos:
            return []
        squares = self._predict_squares(photos)
        return [self._finish(photo, square) for photo, square in zip(photos, squares, strict=True)]

    def _predict_squares(self, photos: Sequence[np.ndarray], enlarged: float = 1) -> np.ndarray:
        """Probabilities float32 (N, S, S) of photos in squares of the network's size times `enlarged`."""
        sizes = self._sizes if enlarged == 1 else [_multiple_of_32(enlarged * size) for size in self._sizes]
        side = sizes[0]
        total, looks = np.zeros((len(photos), side, side), np.float32), 0
        for size in sizes:
            inputs = np.stack([preprocess(photo, size, self.facts["mean"], self.facts["std"]) for photo in photos])
            for mirrored in (False, True) if self.tta else (False,):
                batch = np.ascontiguousarray(inputs[..., ::-1]) if mirrored else inputs
                found = sigmoid(self._network(batch)[:, 0])
                found = found[..., ::-1] if mirrored else found
                if size != side:
                    found = np.stack([cv2.resize(one, (side, side)) for one in np.ascontiguousarray(found)])
                total, looks = total + found, looks + 1
        return total / np.float32(looks)

    def _finish(self, photo: np.ndarray, square: np.ndarray) -> np.ndarray:
        """From a first look's (S, S) to the photo's size, with closer looks and refined edges."""
        full = restore(square, photo.shape)
        if self.multi_scale:
            small = square[letterbox(photo.shape[0], photo.shape[1], self.img_size)]
            look_closer(photo, small, full, self._look)
        return refine_edges(photo, full, self.img_size) if self.refine else full

    def _look(self, part: np.ndarray, enlarged: float) -> np.ndarray:
        """Probabilities float32 (h, w) of a part of a photo; a file exported for one size cannot enlarge it."""
        factor = 1 if self.facts.get("fixed_size") else enlarged
        return restore(self._predict_squares([np.ascontiguousarray(part)], factor)[0], part.shape)


def _multiple_of_32(size: float) -> int:
    return max(32, round(size / 32) * 32)


def _open_folder(folder: Path, backend: str, device: str, threads: int | None) -> Network:
    """Open a run folder: an ONNX file if there is one and the backend allows it, else with PyTorch.

    CPUs that compute in int8 get `model_int8.onnx` if there is one, the others `model.onnx`.
    """
    tensors = folder / "model.safetensors"
    wants_onnx = backend in ("onnx", "openvino")
    files = [path for path in (folder / "model_int8.onnx", folder / "model.onnx") if path.is_file()]
    if len(files) > 1 and not computes_int8(backend, device):
        del files[0]
    if wants_onnx and not files:
        raise FileNotFoundError(f"{folder / 'model.onnx'}: no such file; python export.py --weights {folder} makes it")
    # ONNX Runtime and OpenVINO are fastest on CPUs; other devices use PyTorch unless the user chooses otherwise.
    may_use_onnx = backend == "auto" and (device in ("auto", "cpu") or not tensors.is_file())
    stale = []
    for onnx in files if wants_onnx or may_use_onnx else []:
        network = open_network(onnx, backend, device, threads=threads)
        made_from = network.facts.get("made_from")
        if not tensors.is_file() or made_from in (None, fingerprint(tensors)):
            return network
        stale.append(onnx)
    for onnx in stale:
        if wants_onnx:
            raise UserError(f"{onnx}: is older than {tensors.name}; python export.py --weights {folder} renews it")
        print(f"{onnx}: is older than {tensors.name}, which is used instead; export.py renews it", file=sys.stderr)
    has_config = (folder / "config.json").is_file()
    if not has_config and files:
        raise UserError(
            f"{folder}: has no model for PyTorch, only {files[-1].name}; use --backend onnx or another --weights"
        )
    if not has_config:
        raise FileNotFoundError(f"{folder}: no config.json; --weights names the run folder of a training script")
    return open_network(folder, backend, device)

"""A file of weights becomes a function from prepared photos to logits, by ONNX Runtime, OpenVINO or PyTorch.

Nothing heavy is imported before a file needs it: the ONNX backend runs without PyTorch being installed.
"""

import hashlib
import json
import os
import queue
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

BACKENDS = ("auto", "onnx", "openvino", "torch")
METADATA = "hair"  # key, in an exported file, of the JSON with img_size, mean, std, threshold, decoder, made_from


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Network:
    """Runs a network. Threads may share one.

    Attributes:
        backend: `onnx`, `openvino` or `torch`.
        facts: as stored with the weights: img_size, mean, std, threshold; of an exported file also fixed_size, the
            only size that it takes, or None; decoder; made_from, a fingerprint of the weights.
    """

    backend: str
    facts: dict

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Float32 (N, 3, S, S), normalised, to logits float32 (N, 1, S, S). Raises ValueError where that fails."""
        try:
            return self._run(photos)
        except Exception as error:  # for want of memory, above all; each backend has kinds of its own
            reason = _first_line(error)
            raise ValueError(f"{self.backend} cannot run the network on {photos.shape} numbers ({reason})") from error

    def _run(self, photos: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class OnnxNetwork(Network):
    """An `.onnx` file by ONNX Runtime, a call on `threads` cores. Raises ValueError for what it cannot use."""

    backend = "onnx"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(f"{path}: needs ONNX Runtime: pip install onnxruntime") from error
        providers = ["CPUExecutionProvider"]
        if device in ("auto", "cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        elif device not in ("auto", "cpu"):
            raise ValueError(f"--device {device}: this ONNX Runtime has no such device; try --backend torch")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: all cores
        # Threads that spin while they wait would take the cores from reading and writing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
        except Exception as error:  # the kinds that ONNX Runtime raises are not public
            raise ValueError(f"{path}: cannot be loaded as ONNX ({_first_line(error)})") from error
        self._name = self._session.get_inputs()[0].name
        self.facts = parse_facts(path, self._session.get_modelmeta().custom_metadata_map.get(METADATA))

    def _run(self, photos: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._name: photos})[0]


class OpenvinoNetwork(Network):
    """An `.onnx` or `.xml` file by OpenVINO, a call on `threads` cores. Raises ValueError for what it cannot use.

    `precision` is OpenVINO's name for one, such as "f32".
    """

    backend = "openvino"

    def __init__(
        self, path: Path, device: str = "auto", precision: str | None = None, threads: int | None = None
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ValueError(f"{path}: needs OpenVINO: pip install openvino") from error
        core = openvino.Core()
        place = "CPU" if device == "auto" else device.upper()
        settings: dict[str, str | int | bool] = {"PERFORMANCE_HINT": "LATENCY"}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        calls_at_once = 1
        if threads is not None and place == "CPU":
            calls_at_once = max(1, cores() // threads)
            # Pinned, the threads of several compiled models would share the first core.
            settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        try:
            graph = core.read_model(path)
            self._compile = partial(core.compile_model, graph, place, settings)
            first = self._compile().create_infer_request()
        except RuntimeError as error:
            raise ValueError(f"{path}: OpenVINO cannot run it on {place} ({_first_line(error)})") from error
        # An ONNX file's metadata arrive under "framework".
        keys = [METADATA] if path.suffix == ".xml" else ["framework", METADATA]
        self.facts = parse_facts(path, graph.get_rt_info(keys).astype(str) if graph.has_rt_info(keys) else None)
        # A compiled model runs one call at a time, on its own cores: where calls use few, there are as many models as
        # the cores are for. The last in is the first out: None, a model not yet compiled, waits until all others work.
        self._idle = queue.LifoQueue[Any]()
        for _ in range(calls_at_once - 1):
            self._idle.put(None)
        self._idle.put(first)

    def _run(self, photos: np.ndarray) -> np.ndarray:
        request = self._idle.get()
        try:
            if request is None:
                request = self._compile().create_infer_request()
            return request.infer({0: photos}, share_inputs=True)[0].copy()
        finally:
            self._idle.put(request)


class TorchNetwork(Network):
    """A run folder or a TorchScript file by PyTorch. Raises ValueError for a device that is not there."""

    backend = "torch"

    def __init__(self, model: "nn.Module", facts: dict, device: str = "auto") -> None:
        """Args: `model`, a torch module from (N, 3, S, S) to logits, in eval mode; its `facts`; and where to run it."""
        from utils import UserError, choose_device

        try:
            self._device = choose_device(device)
        except UserError as error:
            raise ValueError(str(error)) from error
        self._model, self.facts = model.to(self._device), facts

    def _run(self, photos: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(photos).to(self._device, memory_format=torch.channels_last)
            return self._model(batch).float().cpu().numpy()


def open_network(
    path: Path,
    backend: str = "auto",
    device: str = "auto",
    precision: str | None = None,
    threads: int | None = None,
) -> Network:
    """Load a network.

    Args:
        path: a run folder (its `config.json` and `model.safetensors`), or an `.onnx`, `.xml` or `.torchscript` file.
        backend: one of BACKENDS; `auto` takes ONNX files to OpenVINO where it is installed, else to ONNX Runtime.
        device: `auto`, `cpu`, or another that the backend has.
        precision: of OpenVINO: `f32`, `bf16` …; what the processor does fastest if None.
        threads: of ONNX Runtime and OpenVINO on a CPU: how many cores one call uses; all if None. Fewer are for
            calling from several threads at once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be loaded or that the backend does not read; an unknown device.
    """
    readers = {".onnx": ("onnx", "openvino"), ".xml": ("openvino",), ".torchscript": ("torch",)}
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    fitting = ("torch",) if path.is_dir() else readers.get(path.suffix, ())
    if backend not in ("auto", *fitting):
        raise ValueError(f"{path}: --backend {backend} does not read it; {' or '.join(fitting) or 'none'} does")
    if not fitting:
        raise ValueError(f"{path}: neither a run folder nor a file of export.py ({', '.join(readers)})")
    chosen = fitting[0] if backend == "auto" else backend
    if backend == "auto" and "openvino" in fitting and device in ("auto", "cpu") and find_spec("openvino"):
        chosen = "openvino"  # on CPUs up to three times as fast, at a quarter of a second more to start
    if chosen == "onnx":
        return OnnxNetwork(path, device, threads)
    if chosen == "openvino":
        return OpenvinoNetwork(path, device, precision, threads)
    if not find_spec("torch"):
        raise ValueError(f"{path}: needs PyTorch: pip install -r requirements.txt")
    return TorchNetwork(*(_load_folder(path) if path.is_dir() else _load_torchscript(path)), device)


def _load_folder(folder: Path) -> "tuple[nn.Module, dict]":
    from models import load_model
    from utils import UserError

    try:
        model, facts = load_model(folder)
    except UserError as error:
        raise ValueError(str(error)) from error
    return model, parse_facts(folder / "config.json", json.dumps(facts))


def _load_torchscript(path: Path) -> "tuple[nn.Module, dict]":
    import warnings

    import torch

    extra = {METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch calls TorchScript deprecated, and still reads it
            model = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be loaded as TorchScript ({_first_line(error)})") from error
    return model, parse_facts(path, extra[METADATA])


def parse_facts(path: Path, text: str | bytes | None) -> dict:
    """The preprocessing facts in a file's metadata. Raises ValueError where they are missing or not whole."""
    try:
        facts = json.loads(text or "{}")
        if not isinstance(facts, dict):
            raise ValueError("its facts are no table")
        if missing := {"img_size", "mean", "std", "threshold"} - facts.keys():
            raise ValueError(f"no {', '.join(sorted(missing))} in it")
    except ValueError as error:
        raise ValueError(f"{path}: not written by this project ({error})") from error
    return facts


def fingerprint(path: Path) -> str:
    """A short hash of a weights file; an exported file keeps it as `made_from`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    # OpenVINO begins with the place in its own source.
    return next((line for line in lines if line and not line.startswith("Exception from")), type(error).__name__)

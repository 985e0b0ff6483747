"""Run networks with ONNX Runtime, OpenVINO, LiteRT or PyTorch.

All but ONNX Runtime are imported only if a file needs them.
"""

import contextlib
import hashlib
import io
import json
import os
import queue
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from hair.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

BACKENDS = ("auto", "onnx", "openvino", "litert", "torch")
READERS = {  # by suffix of the file
    ".onnx": ("onnx", "openvino"),
    ".xml": ("openvino",),
    ".tflite": ("litert",),
    ".torchscript": ("torch",),
}
LITERT_FACTS = "metadata.json"  # the same in the zip file at the end of a .tflite file
METADATA = "hair"  # key of the JSON with img_size, mean, std, threshold, decoder, made_from in an exported file
FACTS = "_hair"  # the same in a run folder's config.json; SMP ignores keys that begin with an underscore


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Network:
    """Runs a network. Threads may share one.

    Attributes:
        backend: `onnx`, `openvino`, `litert` or `torch`.
        path: the file or run folder that it was opened from.
        precision: in which it computes: `f32`, `bf16`, `int8` …
        facts: metadata stored with the weights: img_size, mean, std, threshold. Exported files also have fixed_size
            (the only input size that the file accepts, or None), decoder, made_from (a hash of the weights), and int8
            (true in files of `export.py --int8`).
    """

    backend: str
    facts: dict
    path: Path
    precision = "f32"

    def __str__(self) -> str:
        return f"{self.path}: {self.backend}, {self.precision}"

    def __call__(self, photos: np.ndarray) -> np.ndarray:
        """Float32 (N, 3, S, S), normalised, to logits float32 (N, 1, S, S). Raises UserError if that fails."""
        try:
            return self._run(photos)
        except Exception as error:  # out of memory, above all; each backend raises its own kinds
            reason = _first_line(error)
            raise UserError(
                f"{self.backend} cannot run the network on an input of {photos.shape} ({reason})"
            ) from error

    def _run(self, photos: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class OnnxNetwork(Network):
    """Load an `.onnx` file with ONNX Runtime; each call uses `threads` cores. Raises UserError."""

    backend = "onnx"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        providers = ["CPUExecutionProvider"]
        if device in ("auto", "cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        elif device not in ("auto", "cpu"):
            way_out = "install onnxruntime-gpu in its place, or try" if device == "cuda" else "try"
            raise UserError(f"--device {device}: this ONNX Runtime has no such device; {way_out} --backend torch")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0  # 0: all cores
        # Threads that spin while they wait would slow down the reading and writing of photos.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=providers)
        except Exception as error:  # the kinds that ONNX Runtime raises are not public
            raise UserError(f"{path}: cannot be loaded as ONNX ({_first_line(error)})") from error
        self._name = self._session.get_inputs()[0].name
        self.facts = parse_facts(path, self._session.get_modelmeta().custom_metadata_map.get(METADATA))
        self.precision = "int8" if self.facts.get("int8") else self.precision

    def _run(self, photos: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._name: photos})[0]


class OpenvinoNetwork(Network):
    """Load an `.onnx` or `.xml` file with OpenVINO; each call uses `threads` cores. Raises UserError.

    `precision` is a name of OpenVINO, such as "f32".
    """

    backend = "openvino"

    def __init__(
        self, path: Path, device: str = "auto", precision: str | None = None, threads: int | None = None
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise UserError(f"{path}: needs OpenVINO: pip install openvino") from error
        core = openvino.Core()
        place = "CPU" if device == "auto" else device.upper()
        settings: dict[str, str | int | bool] = {"PERFORMANCE_HINT": "LATENCY"}
        calls_at_once = 1
        if threads is not None and place == "CPU":
            calls_at_once = max(1, cores() // threads)
            # With pinning, the threads of several compiled models would all run on the first core.
            settings |= {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
        try:
            graph = core.read_model(path)
            # OpenVINO puts the metadata of an ONNX file under "framework".
            keys = [METADATA] if path.suffix == ".xml" else ["framework", METADATA]
            self.facts = parse_facts(path, graph.get_rt_info(keys).astype(str) if graph.has_rt_info(keys) else None)
            is_int8 = self.facts.get("int8", False)
            if precision is not None or is_int8:  # beside int8, bf16 is slower than f32
                settings["INFERENCE_PRECISION_HINT"] = precision or "f32"
            self._compile = partial(_compile, core, graph, place, settings)
            size = self.facts["img_size"]
            first = self._compile(size, size)
        except RuntimeError as error:
            raise UserError(f"{path}: OpenVINO cannot run it on {place} ({_first_line(error)})") from error
        hint = first.get_compiled_model().get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = "int8" if is_int8 else hint
        self._calls_at_once, self._lock = calls_at_once, threading.Lock()
        self._idle = {(size, size): self._networks(size, size, first)}

    def _networks(self, height: int, width: int, first: Any = None) -> "_Idle":
        # Nothing here may refer to this object: in a cycle, OpenVINO's objects may be freed in an order that crashes.
        return _Idle(first, partial(self._compile, height, width), self._calls_at_once)

    def _run(self, photos: np.ndarray) -> np.ndarray:
        shape = photos.shape[2:]
        with self._lock:
            if shape not in self._idle:
                self._idle[shape] = self._networks(*shape)
        with self._idle[shape].take() as request:
            return np.concatenate([request.infer({0: photo[None]}, share_inputs=True)[0].copy() for photo in photos])


def _compile(core: Any, graph: Any, place: str, settings: dict, height: int, width: int) -> Any:
    """A network for one photo of one size. OpenVINO 2026.4 computes wrongly in int8 if sizes are left open."""
    fixed = graph.clone()
    fixed.reshape([1, 3, height, width])
    return core.compile_model(fixed, place, settings).create_infer_request()


class _Idle:
    """Networks ready to run. Each runs one call at a time, on its own cores, so there are as many as calls at once.

    Args:
        first: the network to begin with; None: it is made when it is needed.
        make: makes another one, when all others are busy.
        most: how many there may be.
    """

    def __init__(self, first: object, make: Callable[[], Any], most: int) -> None:
        self._make = make
        self._networks = queue.LifoQueue[Any]()  # last in, first out; None: not made yet
        for _ in range(most - 1):
            self._networks.put(None)
        self._networks.put(first)

    @contextlib.contextmanager
    def take(self) -> Iterator[Any]:
        """A network that no other thread has; waits for one if all are busy."""
        network = self._networks.get()
        try:
            if network is None:
                network = self._make()
            yield network
        finally:
            self._networks.put(network)


class LitertNetwork(Network):
    """Load a `.tflite` file, made for one input size, with LiteRT; each call uses `threads` cores. Raises UserError."""

    backend = "litert"

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise UserError(f"{path}: needs LiteRT: pip install ai-edge-litert") from error
        if device not in ("auto", "cpu"):
            raise UserError(f"--device {device}: LiteRT runs on CPUs only here; try --device cpu")
        content, each = path.read_bytes(), threads or cores()

        def make() -> Any:
            interpreter = Interpreter(model_content=content, num_threads=each)
            interpreter.allocate_tensors()
            return interpreter

        try:
            first = make()
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                text = archive.read(LITERT_FACTS)
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be loaded by LiteRT ({_first_line(error)})") from error
        except (zipfile.BadZipFile, KeyError):
            text = None
        self.facts = parse_facts(path, text)
        self.precision = "int8" if self.facts.get("int8") else self.precision
        self._idle = _Idle(first, make, max(1, cores() // each))

    def _run(self, photos: np.ndarray) -> np.ndarray:
        with self._idle.take() as interpreter:
            photo, logits = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
            found = []
            for one in photos.transpose(0, 2, 3, 1):  # telephones hold pictures with the channels last
                interpreter.set_tensor(photo, np.ascontiguousarray(one)[None])
                interpreter.invoke()
                found.append(interpreter.get_tensor(logits)[0].transpose(2, 0, 1))
            return np.stack(found)


class TorchNetwork(Network):
    """Wrap a torch module in eval mode, from (N, 3, S, S) to logits. Raises UserError if the device does not exist."""

    backend = "torch"

    def __init__(self, model: "nn.Module", facts: dict, device: str = "auto") -> None:
        self._device = torch_device(device)
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
        path: a run folder (its `config.json` and `model.safetensors`), or a file with a suffix of READERS.
        backend: one of BACKENDS; `auto` runs ONNX files with OpenVINO if it is installed, else with ONNX Runtime.
        device: `auto`, `cpu`, or another device of the backend.
        precision: precision in OpenVINO: `f32`, `bf16` …; None: the fastest of the processor.
        threads: CPU cores for one call of ONNX Runtime or OpenVINO; None: all. Use fewer if several threads call at
            once.

    Raises:
        FileNotFoundError: no such file.
        UserError: the file cannot be loaded or the backend cannot read it, or the device is unknown.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    chosen = _choose_backend(path, backend, device)
    network: Network
    if chosen == "onnx":
        network = OnnxNetwork(path, device, threads)
    elif chosen == "openvino":
        network = OpenvinoNetwork(path, device, precision, threads)
    elif chosen == "litert":
        network = LitertNetwork(path, device, threads)
    elif not find_spec("torch"):
        raise UserError(f"{path}: needs PyTorch: pip install -r requirements.txt")
    else:
        model, facts = _load_folder(path) if path.is_dir() else _load_torchscript(path)
        network = TorchNetwork(model, facts, device)
    network.path = path
    return network


def computes_int8(backend: str, device: str) -> bool:
    """Whether ONNX files run on a processor that computes in int8, which is faster than any float there.

    Args:
        backend: one of BACKENDS.
        device: as for `open_network`.
    """
    if device not in ("auto", "cpu"):
        return False
    if backend == "onnx" or not find_spec("openvino"):
        return device == "cpu" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers()
    import openvino

    return "INT8" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _choose_backend(path: Path, backend: str, device: str) -> str:
    fitting = ("torch",) if path.is_dir() else READERS.get(path.suffix, ())
    if backend not in ("auto", *fitting):
        raise UserError(f"{path}: --backend {backend} does not read it; {' or '.join(fitting) or 'none'} does")
    if not fitting:
        raise UserError(f"{path}: neither a run folder nor a file of export.py ({', '.join(READERS)})")
    if backend != "auto":
        return backend
    if "openvino" in fitting and device in ("auto", "cpu") and find_spec("openvino"):
        return "openvino"  # on CPUs up to three times as fast, a quarter of a second more to start
    return fitting[0]


def torch_device(name: str) -> "torch.device":
    """A torch device; `auto` chooses CUDA, then MPS, then the CPU. Raises UserError if the device does not exist."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used here ({reason}); try --device cpu") from error


def load_torch_model(folder: Path) -> "tuple[nn.Module, dict]":
    """Load a run folder with SMP: the network in eval mode, channels_last, and its metadata. Raises UserError."""
    config = folder / "config.json"
    if not config.is_file():
        raise UserError(f"{folder}: no config.json; a run folder of train_korean.py or train_celeb.py has one")
    import segmentation_models_pytorch as smp
    import torch

    from hair.half_unet import HalfUnet

    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        facts = dict(settings.get(FACTS, {}))
        is_half = settings.get("_model_class") == HalfUnet.__name__
        load = HalfUnet.from_pretrained if is_half else smp.from_pretrained
        # huggingface_hub prints where it loads from, and SMP prints long warnings before it raises
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            model = load(folder, encoder_weights=None)
    except Exception as error:  # for truncated files or other models, SMP, safetensors and torch raise many types
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{folder}: not a model that can be loaded ({reason})") from error
    return model.eval().to(memory_format=torch.channels_last), facts


def _load_folder(folder: Path) -> "tuple[nn.Module, dict]":
    model, facts = load_torch_model(folder)
    return model, parse_facts(folder / "config.json", json.dumps(facts))


def _load_torchscript(path: Path) -> "tuple[nn.Module, dict]":
    import torch

    extra = {METADATA: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated, but torch still reads it
            model = torch.jit.load(path, map_location="cpu", _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: cannot be loaded as TorchScript ({_first_line(error)})") from error
    return model, parse_facts(path, extra[METADATA])


def parse_facts(path: Path, text: str | bytes | None) -> dict:
    """The preprocessing settings in a file's metadata. Raises UserError if they are missing or incomplete."""
    try:
        facts = json.loads(text or "{}")
        if not isinstance(facts, dict):
            raise ValueError("its metadata are not a table")
        if missing := {"img_size", "mean", "std", "threshold"} - facts.keys():
            raise ValueError(f"no {', '.join(sorted(missing))} in it")
    except ValueError as error:
        raise UserError(f"{path}: not written by this project ({error})") from error
    return facts


def fingerprint(path: Path) -> str:
    """A short hash of a weights file; exported files store it as `made_from`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _first_line(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    # OpenVINO begins with the place in its own source.
    return next((line for line in lines if line and not line.startswith("Exception from")), type(error).__name__)

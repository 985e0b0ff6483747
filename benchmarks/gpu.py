"""What nothing but a GPU can show, in at most eight minutes and without a network: one table, and the same as JSON.

    python -m benchmarks.gpu                        # one NVIDIA GPU; result/gpu.json
    python -m benchmarks.gpu --device cpu --toy     # tries every step, small and on the CPU; its times mean nothing

Each step is a process of its own: one that fails is a line of the table, and the others go on.
"""

import argparse
import contextlib
import csv
import gc
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import torch
from torch import distributed, nn

import models
import train_celeb
from benchmarks.training import OneBatch, plain_step
from dataset import HairDataset, PhotoSet, open_data, training_set
from hair import errors
from hair.backends import OnnxNetwork, TorchNetwork, cores, load_torch_model
from hair.cli import HelpFormatter, number
from hair.errors import UserError
from hair.files import write_json
from hair.geometry import preprocess
from hair.photos import read_photo
from hair.segmenter import sigmoid
from hair.store import DEFAULT_WEIGHTS
from tools.make_sample import make_celeb
from training.checkpoint import LAST, TrainingState
from training.engine import Compute, autocast, train_one_epoch
from training.exporting import time_in_turns
from training.flags import TrainingPlan, parse_training, plan_from
from training.losses import build_loss
from training.processes import leave_processes
from training.setup import build_loaders, build_state, distribute

ROOT = Path(__file__).resolve().parents[1]
DEMO_PHOTOS = [ROOT / "demo" / f"{number}.jpg" for number in (1, 2, 3)]
CPU = torch.device("cpu")
LEAST_SPEEDUP = 2.5  # of training, over the plain loop in float32
LAST_LOSSES = 10  # whose mean is compared; single ones depend on the photos of a batch
# Relative tolerances for the loss of the first step, and for the mean of the last ten of fifty. The first shows the
# precision of one pass through the network: TF32, in which cuDNN computes float32 convolutions, and fp16 keep 10 bits
# of a number, bf16 keeps 7. Each step then multiplies the differences of the one before. On a CPU, noise of 2^-11 on
# all weights gave 0.01% and 1.1%, noise of 2^-8 gave 0.06% and 1.0%, and bf16 gave 0.05% and 0.4%.
TOLERANCES = {"float32": (0.005, 0.05), "fp16": (0.005, 0.05), "bf16": (0.02, 0.05)}
RESUMED = 0.05  # the same for the last epoch of a resumed run: the GPU adds in another order in each run
LEAST_AGREEMENT = 0.999  # IoU of a mask and that of PyTorch in float32 on the CPU
PRELOADED = ["train_celeb", "benchmarks.training", "training.exporting", "training.fit"]  # what takes seconds to import
LEAST_SECONDS = 5  # with less than this left, no step is begun
MEMORY_SHARE = 0.02  # of the GPU's memory, in which no training fits


@dataclass(frozen=True)
class Size:
    """How much a step does."""

    photos: int  # that are drawn
    pixels: int  # of a training step, and of the drawn photos
    batch: int
    steps: int  # that are timed, after a fifth of them to warm up
    encoders: tuple[str, str]
    compared_pixels: int  # where losses count, not times: the CPU has to keep up
    compared_batch: int
    compared_steps: int
    inference_pixels: int
    inference_batches: tuple[int, int]


REAL = Size(64, 512, 16, 30, ("timm-efficientnet-b0", "se_resnext50_32x4d"), 128, 8, 50, 384, (1, 32))
TOY = Size(24, 32, 2, 1, ("tu-test_efficientnet", "tu-test_resnet"), 32, 2, 4, 64, (1, 2))


@dataclass(frozen=True)
class Bench:
    """What the steps share.

    Attributes:
        device: by torch's name.
        size: of the steps.
        data: folder of drawn photos and masks.
        folder: for what a step writes.
    """

    device: torch.device
    size: Size
    data: Path
    folder: Path

    @property
    def is_toy(self) -> bool:
        """Whether times mean nothing."""
        return self.size.steps == TOY.steps

    def photos(self, count: int) -> PhotoSet:
        """The drawn photos, repeated until there are `count`."""
        index = open_data(self.data)
        return PhotoSet([index], [np.resize(np.arange(len(index)), count)])

    def flags(self, encoder: str, pixels: int, batch: int) -> list[str]:
        """The flags of a training without downloads."""
        return [
            f"--data_dir={self.data}",
            f"--encoder_type={encoder}",
            "--encoder_weights=none",
            f"--img_size={pixels}",
            f"--batch_size={batch}",
            "--scheduler=none",
            "--encoder_lr=3e-4",
            f"--device={self.device}",
        ]

    def synchronize(self) -> None:
        """Wait until the GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak_memory(self) -> str:
        """The most memory that tensors took since the last call."""
        if self.device.type != "cuda":
            return "memory not measured"
        gc.collect()  # networks that are no longer used
        peak = torch.cuda.max_memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        return f"{peak / 2**30:.2f} GiB at most"


@dataclass(frozen=True)
class Row:
    """A line of the table. `reached` is None where nothing is required, or where times mean nothing."""

    what: str
    measured: str
    required: str = ""
    reached: bool | None = None

    def line(self) -> str:
        """It as Markdown."""
        reached = {True: "yes", False: "NO", None: ""}[self.reached]
        return f"| {self.what} | {self.measured} | {self.required} | {reached} |"


def make_plan(*flags: str) -> TrainingPlan:
    """The plan of `python train_celeb.py flags…`."""
    return plan_from(parse_training(train_celeb.build_parser(), flags))


def has_precision(bench: Bench, name: str) -> bool:
    """Whether the device computes in float32, fp16 or bf16."""
    return name != "bf16" or bench.device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def half_precision_as(name: str) -> contextlib.AbstractContextManager:
    """Let `--apex` take bf16, or what it takes on a GPU that does not compute in bf16. Without a GPU it decides."""
    return mock.patch.object(torch.cuda, "is_bf16_supported", return_value=name == "bf16")


def as_loader(batches: list, data: HairDataset) -> OneBatch:
    """Batches in memory as `training.engine` takes them."""
    loader = OneBatch(batches)
    loader.dataset = data
    return loader


# ---------------------------------------------------------------------------------------------------- training


def name_device(bench: Bench) -> Iterator[Row]:
    """What is measured."""
    if bench.device.type != "cuda":
        yield Row("device", f"{bench.device}, {cores()} cores, {platform.machine()}")
    else:
        facts = torch.cuda.get_device_properties(bench.device)
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        memory = f"{facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}.{facts.minor}"
        yield Row("device", f"{facts.name}, {memory}, {'bf16' if bf16 else 'no bf16'}; {cores()} CPU cores")
    cuda = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
    yield Row("software", f"torch {torch.__version__}, {cuda}, ONNX Runtime {onnxruntime.__version__} ({providers})")


def without_dropout(model: nn.Module) -> None:
    """Switch dropout and stochastic depth off: a GPU's random numbers are not the CPU's."""
    for module in model.modules():
        for name in ("p", "drop_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def losses_of(bench: Bench, device: torch.device, batches: OneBatch, *flags: str) -> np.ndarray:
    """The losses of training on batches, in float32 unless the flags say otherwise; float64 (batches,)."""
    size = bench.size
    plan = make_plan(*bench.flags(size.encoders[0], size.compared_pixels, size.compared_batch), *flags)
    state, facts = build_state(plan, device, size.compared_batch * len(batches))
    without_dropout(state.model)
    loss_fn, losses = build_loss(plan.loss), []

    def recorded(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses.append(loss_fn(logits, targets))
        return losses[-1]

    compute = Compute(device, models.Normalise(facts["mean"], facts["std"]).to(device), recorded, plan.apex)
    train_one_epoch(state, batches, compute, plan)
    return torch.stack(losses).detach().double().cpu().numpy()


def compare_losses(bench: Bench) -> Iterator[Row]:
    """The first steps of a training on the device and on the CPU: same weights, photos and augmentation."""
    size = bench.size
    plan = make_plan(*bench.flags(size.encoders[0], size.compared_pixels, size.compared_batch))
    data = training_set(bench.photos(size.compared_batch * size.compared_steps), "light", size.compared_pixels)
    batches = as_loader(list(build_loaders(plan, data, data, CPU)[0]), data)
    expected = losses_of(bench, CPU, batches)
    yield Row(f"loss on the CPU, steps 1 to {len(expected)}", f"from {expected[0]:.4f} to {expected[-1]:.4f}")
    for name, (first, last) in TOLERANCES.items():
        what = f"loss in {name} against the CPU's: first, mean of the last {LAST_LOSSES}"
        required = f"within {100 * first:g}%, {100 * last:g}%"
        if not has_precision(bench, name):
            yield Row(what, "this GPU does not compute in it", required)
            continue
        try:
            with half_precision_as(name):
                found = losses_of(bench, bench.device, batches, *([] if name == "float32" else ["--apex"]))
        except UserError as error:  # a loss that is not finite
            yield Row(what, str(error), required, False)
            continue
        off = [abs(found[0] / expected[0] - 1), abs(found[-LAST_LOSSES:].mean() / expected[-LAST_LOSSES:].mean() - 1)]
        measured = f"{100 * off[0]:.3f}%, {100 * off[1]:.2f}%"
        yield Row(what, measured, required, bool(off[0] <= first and off[1] <= last))


@contextlib.contextmanager
def strict_float32() -> Iterator[None]:
    """Compute float32 convolutions in float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


class Timed:
    """A network's training steps on a batch in pinned memory, timed in several ways."""

    def __init__(self, bench: Bench, encoder: str) -> None:
        """Args: the `bench`, and the `encoder` of the Unet."""
        self.bench, self.encoder, size = bench, encoder, bench.size
        self.workers = 0 if bench.is_toy else cores()
        self.data = training_set(bench.photos(size.batch * size.steps), "light", size.pixels)
        plan = self.plan()
        self.batch = next(iter(build_loaders(plan, self.data, self.data, bench.device)[0]))
        self.compute(plan)  # imports and creates the context, so that neither is timed

    def plan(self, *flags: str) -> TrainingPlan:
        """The plan of a training."""
        size = self.bench.size
        own = self.bench.flags(self.encoder, size.pixels, size.batch)
        return make_plan(*own, f"--num_workers={self.workers}", *flags)

    def compute(self, plan: TrainingPlan) -> Compute:
        """How photos become a loss."""
        normalise = models.Normalise(*models.normalisation(self.encoder, None)).to(self.bench.device)
        return Compute(self.bench.device, normalise, build_loss(plan.loss), plan.apex)

    def rate(self, steps: Callable[[int], object]) -> float:
        """Photos a second of a function that does a number of steps."""
        size = self.bench.size
        steps(max(1, size.steps // 5))
        self.bench.synchronize()
        self.bench.peak_memory()
        start = time.perf_counter()
        steps(size.steps)
        self.bench.synchronize()
        return size.batch * size.steps / (time.perf_counter() - start)

    def plainly(self, is_half: bool = False) -> float:
        """By a loop as one would write it first: float32, the default memory format, each loss is read."""
        device = self.bench.device
        model = models.build_model(self.encoder, "Unet").to(device, memory_format=torch.contiguous_format)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        compute = self.compute(self.plan())
        images, masks, _ = self.batch
        images = images.contiguous()

        def steps(count: int) -> None:
            for _ in range(count):
                with autocast(device, is_half):
                    plain_step(model, optimizer, compute, images.to(device), masks.to(device))

        return self.rate(steps)

    def here(self, *flags: str) -> float:
        """By `training.engine`, which computes in channels_last."""
        plan = self.plan(*flags)
        state, compute = self.state(plan), self.compute(plan)

        def steps(count: int) -> None:
            state.batch, state.loss_sum = 0, 0.0
            train_one_epoch(state, as_loader([self.batch] * count, self.data), compute, plan)

        return self.rate(steps)

    def with_loader(self, *flags: str) -> float:
        """The same, with photos from the disk."""
        plan = self.plan(*flags)
        state, compute = self.state(plan), self.compute(plan)
        loader = build_loaders(plan, self.data, self.data, self.bench.device)[0]

        def steps(_: int) -> None:
            state.batch, state.loss_sum = 0, 0.0
            loader.go_to(0, 0)
            train_one_epoch(state, loader, compute, plan)

        return self.rate(steps)

    def state(self, plan: TrainingPlan) -> TrainingState:
        """A network before its first step."""
        return build_state(plan, self.bench.device, len(self.data))[0]

    def against(self, rate: float, plain: float, required: float | None = None) -> tuple[str, str, bool | None]:
        """What a row says of photos a second and, for the ratio to the plain loop's, what is required and whether it is
        reached.
        """
        measured = f"{rate:.0f} photos/s, {rate / plain:.2f} × the plain loop, {self.bench.peak_memory()}"
        if required is None:
            return measured, "", None
        return measured, f"≥ {required:g} ×", None if self.bench.is_toy else rate >= required * plain


def time_training(bench: Bench, encoder: str) -> Iterator[Row]:
    """Training steps of a Unet against the plain loop, and what the loader adds to them."""
    timed, size = Timed(bench, encoder), f"{bench.size.pixels} px, batch {bench.size.batch}"
    with strict_float32():
        plain = timed.plainly()
    yield Row(f"{encoder} at {size}: plain loop in float32", f"{plain:.0f} photos/s, {bench.peak_memory()}")
    yield Row("  plain loop, TF32 in convolutions (torch's default)", *timed.against(timed.plainly(), plain))
    for name in ("bf16", "fp16"):
        if not has_precision(bench, name):
            yield Row(f"  --apex in {name}", "this GPU does not compute in it")
            continue
        with half_precision_as(name):
            yield Row(f"  plain loop in {name}", *timed.against(timed.plainly(is_half=True), plain))
            rate = timed.here("--apex")
            yield Row(f"  --apex in {name}, channels_last", *timed.against(rate, plain, LEAST_SPEEDUP))
    rate, loaded = timed.here("--apex"), timed.with_loader("--apex")
    measured = f"{loaded:.0f} photos/s, the loader takes {100 * max(0.0, 1 - loaded / rate):.0f}% of the time"
    yield Row(f"  --apex --num_workers {timed.workers}, photos from the disk", measured)


def time_small_encoder(bench: Bench) -> Iterator[Row]:
    """`time_training` of the encoder that is the default."""
    yield from time_training(bench, bench.size.encoders[0])


def time_large_encoder(bench: Bench) -> Iterator[Row]:
    """`time_training` of one with five times its parameters."""
    yield from time_training(bench, bench.size.encoders[1])


def compiling(bench: Bench) -> contextlib.AbstractContextManager:
    """At toy size torch.compile compiles nothing, which would take a minute."""
    return torch.compiler.set_stance("force_eager") if bench.is_toy else contextlib.nullcontext()


def time_compiled(bench: Bench) -> Iterator[Row]:
    """`--compile` against the same without it."""
    timed = Timed(bench, bench.size.encoders[0])
    plain = timed.here("--apex")
    with compiling(bench):
        start = time.perf_counter()
        rate = timed.here("--apex", "--compile")
        whole = time.perf_counter() - start
    warm_up = max(0.0, whole - bench.size.batch * bench.size.steps / rate)
    measured = f"{rate:.0f} photos/s, {rate / plain:.2f} × as without it, {bench.peak_memory()}"
    yield Row(f"{timed.encoder}, --apex --compile", f"{measured}; ready after {warm_up:.0f} s")


# ---------------------------------------------------------------------------------------------------- runs


def start(folder: Path, *flags: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    """Start `python train_celeb.py flags…` in a folder, by a launcher if there is one; it prints to out.txt there."""
    with (folder / "out.txt").open("ab") as out:
        command = [sys.executable, *launcher, str(ROOT / "train_celeb.py"), *flags]
        return subprocess.Popen(command, cwd=folder, stdout=out, stderr=subprocess.STDOUT)


def last_line(folder: Path) -> str:
    """What a run printed last."""
    lines = (folder / "out.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait for a run. Raises UserError where it fails."""
    status = process.wait()
    if status:
        raise UserError(f"train_celeb.py ended with status {status}: {last_line(folder)}")


def last_loss(folder: Path) -> float:
    """The training loss of a run's last epoch."""
    (log,) = folder.glob("weights/*/log.csv")
    with log.open(newline="") as file:
        return float(list(csv.DictReader(file))[-1]["loss"])


def kill_and_resume(bench: Bench) -> Iterator[Row]:
    """A run that is killed within an epoch and resumed, against one that was left alone."""
    flags = [*bench.flags(bench.size.encoders[0], bench.size.compared_pixels, 2), "--apex", "--epochs=3"]
    whole, killed = bench.folder / "whole", bench.folder / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    finish(start(whole, *flags), whole)
    process = start(killed, *flags, "--save_every=0")
    try:
        _wait_for_checkpoint(process, killed)
    finally:
        process.kill()
        process.wait()
    (log,) = killed.glob("weights/*/log.csv")
    finish(start(killed, f"--resume={log.parent}"), killed)
    lines = (killed / "out.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    resumed = next((line for line in lines if line.startswith("resuming in epoch")), "did not resume within an epoch")
    found, expected = last_loss(killed), last_loss(whole)
    measured = f"{resumed}; last loss {found:.5f}, of the run left alone {expected:.5f}"
    is_near = abs(found / expected - 1) <= RESUMED and resumed.startswith("resuming")
    yield Row("a run killed within an epoch and resumed", measured, f"within {100 * RESUMED:g}%", is_near)


def _wait_for_checkpoint(process: subprocess.Popen, folder: Path) -> None:
    """Wait until a run has saved within its second epoch. Raises UserError where it ends before."""
    epoch_end = None
    while process.poll() is None:
        for log in folder.glob("weights/*/log.csv"):
            saved = log.with_name(LAST).stat().st_mtime_ns if log.with_name(LAST).exists() else None
            epoch_end = epoch_end or saved
            if saved and saved != epoch_end:
                return
        time.sleep(0.002)
    raise UserError(f"the run ended before it could be killed: {last_line(folder)}")


def run_distributed(bench: Bench) -> Iterator[Row]:
    """torchrun with one process, and training through NCCL (gloo on a CPU) in a group of one."""
    size, folder = bench.size, bench.folder / "torchrun"
    folder.mkdir()
    flags = bench.flags(size.encoders[0], size.compared_pixels, size.compared_batch)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    finish(start(folder, *flags, "--apex", "--epochs=1", launcher=launcher), folder)
    yield Row("torchrun --nproc_per_node=1 train_celeb.py", last_line(folder).partition(";")[0])
    backend = "nccl" if bench.device.type == "cuda" else "gloo"
    store = distributed.FileStore(str(bench.folder / "store"), 1)
    distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        if bench.device.type == "cuda":
            torch.cuda.set_device(bench.device)
        plan = make_plan(*flags, "--apex")
        data = training_set(bench.photos(3 * size.compared_batch), "light", size.compared_pixels)
        state, facts = build_state(plan, bench.device, len(data))
        with mock.patch("training.setup.world_size", return_value=2):  # as it wraps the network of one of several
            state.network = distribute(state.model, bench.device, compiled=False)
        normalise = models.Normalise(facts["mean"], facts["std"]).to(bench.device)
        compute = Compute(bench.device, normalise, build_loss(plan.loss), plan.apex)
        loss = train_one_epoch(state, build_loaders(plan, data, data, bench.device)[0], compute, plan)
        value = torch.ones(1, device=bench.device)
        distributed.all_reduce(value)
        distributed.broadcast(value, 0)
        distributed.broadcast_object_list([True])
        distributed.barrier()
        yield Row(
            f"DistributedDataParallel by {backend} in a group of one", f"3 steps, loss {loss:.4f}; all calls work"
        )
    finally:
        leave_processes()


def run_out_of_memory(bench: Bench) -> Iterator[Row]:
    """What a training says that does not fit into the GPU's memory."""
    flags = [*bench.flags(bench.size.encoders[0], bench.size.pixels, bench.size.batch), "--epochs=1"]
    flags.append(f"--output_dir={bench.folder / 'full'}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "argv", ["train_celeb.py", *flags]))
        if bench.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(MEMORY_SHARE, bench.device)
        else:
            failure = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has no more.")
            stack.enter_context(mock.patch.object(torch.optim.AdamW, "step", side_effect=failure))
        try:
            errors.run(train_celeb.main)
            said, is_one_line = "it fitted after all", False
        except SystemExit as end:
            said = str(end.code)
            is_one_line = isinstance(end.code, str) and "\n" not in said
        except RuntimeError as error:
            said, is_one_line = f"a trace that ends with: {type(error).__name__}: {str(error).splitlines()[0]}", False
    yield Row("out of memory", said, "one line with the way out", is_one_line)


# ---------------------------------------------------------------------------------------------------- inference


def time_inference(bench: Bench) -> Iterator[Row]:
    """The included model from prepared photos to logits, both in the computer's memory."""
    model, facts = load_torch_model(DEFAULT_WEIGHTS)
    cpu = TorchNetwork(model, facts, "cpu")
    pixels, (_, largest) = bench.size.inference_pixels, bench.size.inference_batches
    demo = [preprocess(read_photo(path), pixels, facts["mean"], facts["std"]) for path in DEMO_PHOTOS]
    photos = np.resize(np.stack(demo), (largest, *demo[0].shape))
    expected = sigmoid(cpu(photos)) >= facts["threshold"]
    device = str(bench.device)
    networks = {"PyTorch": TorchNetwork(load_torch_model(DEFAULT_WEIGHTS)[0], facts, device)}
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    onnx_device = bench.device.type if has_cuda else "cpu"
    networks[f"ONNX Runtime on {onnx_device}"] = OnnxNetwork(DEFAULT_WEIGHTS / "model.onnx", onnx_device)
    if bench.device.type == "cuda" and not has_cuda:
        yield Row("ONNX Runtime", "has no CUDA provider here (pip install onnxruntime-gpu), so it is timed on the CPU")
    with compiling(bench):
        compiled = torch.compile(load_torch_model(DEFAULT_WEIGHTS)[0], dynamic=True)
        networks["torch.compile"] = TorchNetwork(compiled, facts, device)
        for count in bench.size.inference_batches:
            times = time_in_turns(networks, photos[:count])
            for name, ms in times.items():
                found = sigmoid(networks[name](photos[:count])) >= facts["threshold"]
                both, either = (found & expected[:count]).sum(), (found | expected[:count]).sum()
                agreement = both / either if either else 1.0
                measured = f"{ms:.1f} ms, {1000 * count / ms:.0f} photos/s; IoU with the CPU's mask {agreement:.4f}"
                what = f"inference at {pixels} px, batch {count}: {name}"
                yield Row(what, measured, f"IoU ≥ {LEAST_AGREEMENT}", bool(agreement >= LEAST_AGREEMENT))


# ---------------------------------------------------------------------------------------------------- the table


Step = Callable[[Bench], Iterator[Row]]
STEPS: tuple[Step, ...] = (  # what matters most comes first, in case the time runs out
    name_device,
    time_small_encoder,
    compare_losses,
    kill_and_resume,
    time_inference,
    run_distributed,
    run_out_of_memory,
    time_large_encoder,
    time_compiled,
)


def run_step(step: Step, bench: Bench, seconds: float) -> list[Row]:
    """Run a step in a process of its own, for so long at most. What it has measured until it fails counts."""
    title = step.__name__.replace("_", " ")
    if seconds < LEAST_SECONDS:
        return [Row(title, "skipped: the time is used up")]
    shutil.rmtree(bench.folder, ignore_errors=True)
    bench.folder.mkdir(parents=True)
    context = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    context.set_forkserver_preload(PRELOADED)  # no process inherits the state of a GPU, and imports are done once
    process = context.Process(target=_write_rows, args=(step, bench))
    process.start()
    try:
        process.join(seconds)
    finally:
        is_late = process.exitcode is None
        with contextlib.suppress(ProcessLookupError):  # all that it has started
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        process.join()
    rows = _read_rows(bench)
    if is_late:
        rows.append(Row(title, f"stopped after {seconds:.0f} s: the time is used up"))
    elif process.exitcode:
        rows.append(Row(title, f"FAILED: the process ended with status {process.exitcode}", "", False))
    return rows


def _write_rows(step: Step, bench: Bench) -> None:
    """What the process of a step does: a line of JSON for each row, and all else that is printed to log.txt."""
    if hasattr(os, "setsid"):
        os.setsid()
    with (bench.folder / "log.txt").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    multiprocessing.set_start_method(
        None, force=True
    )  # else loaders' workers would come from a fork server of their own
    with (bench.folder / "rows.jsonl").open("a", encoding="utf-8") as file:

        def write(row: Row) -> None:
            print(json.dumps(asdict(row)), file=file, flush=True)

        try:
            for row in step(bench):
                write(row)
        except Exception as error:  # whatever it is, it is a row, and the other steps go on
            traceback.print_exc()
            reason = (str(error).strip().splitlines() or [""])[0]
            write(Row(step.__name__.replace("_", " "), f"FAILED: {type(error).__name__}: {reason}", "", False))


def _read_rows(bench: Bench) -> list[Row]:
    path = bench.folder / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Row(**json.loads(line)) for line in lines]


def main() -> None:
    """Print the table and write it as JSON. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --toy")
    parser.add_argument("--toy", action="store_true", help="small networks and photos, to try the steps")
    parser.add_argument(
        "--batch_size", type=number(int, 2), help="of the timed training; fewer fit a small GPU (default: 16)"
    )
    parser.add_argument("--minutes", type=number(float, 0), default=8, help="the time that all steps have together")
    parser.add_argument("--output", type=Path, default=Path("result/gpu.json"), help="the table as JSON")
    args = parser.parse_args()
    device = torch.device("cuda:0" if args.device == "cuda" else args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU that this PyTorch can use, so nothing was measured; to try the steps: --device cpu --toy")
        return
    end = time.monotonic() + 60 * args.minutes
    size, rows = TOY if args.toy else REAL, []
    size = replace(size, batch=args.batch_size or size.batch)
    print("| what | measured | required | reached |\n| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        folder = Path(name)
        make_celeb(folder / "photos", size.photos, size.pixels)
        for step in STEPS:
            found = run_step(step, Bench(device, size, folder / "photos", folder / "step"), end - time.monotonic())
            rows += found
            print("\n".join(row.line() for row in found), flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, {"device": args.device, "toy": args.toy, "rows": [asdict(row) for row in rows]})
    print(f"\n{args.output}")


if __name__ == "__main__":
    errors.run(main)

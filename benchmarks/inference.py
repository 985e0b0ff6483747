"""How long inference takes, as ratios between things that take turns in one run.

    python -m benchmarks.inference
    python -m benchmarks.inference --weights weights/<run> --rounds 5

The run folder needs `model.onnx` (export.py). Absolute times depend on the machine and its load. Ratios between medians
of measurements taken in turns hardly do.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch

from hair import HairSegmenter, read_photo
from hair.backends import load_torch_model, open_network
from hair.cli import HelpFormatter, name_results, number, process_files, threads_for
from hair.colors import parse_color
from hair.dye import Dye
from hair.effects import Looks, draw_overlay
from hair.errors import run
from hair.files import encode_picture, write_bytes, write_png
from hair.geometry import preprocess
from hair.results import Results
from hair.segmenter import sigmoid
from hair.store import DEFAULT_WEIGHTS
from hair.video import VideoPlan
from training.exporting import plain_layout, time_in_turns

ROOT = Path(__file__).resolve().parents[1]
LARGE_SIDE = 3464  # of a square photo of 12 megapixels
# Runs a script and then prints its memory. Not wait4's ru_maxrss, which counts what this process, with torch loaded,
# was before the new program replaced it.
PRINT_STATUS = """
import atexit, pathlib, runpy, sys
status = pathlib.Path("/proc/self/status")
sys.argv.pop(0)
atexit.register(lambda: status.exists() and print(status.read_text()))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_process(weights: Path, rounds: int) -> None:
    """The whole of `python inference.py --num 1`: seconds and, on Linux, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        script = [str(ROOT / "inference.py"), "--num", "1", "--weights", str(weights), "--output_dir", folder]
        start = partial(subprocess.run, [sys.executable, *script], check=True, capture_output=True)
        times = [seconds(start) for _ in range(rounds + 1)]
        command = [sys.executable, "-c", PRINT_STATUS, *script]
        out = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"VmHWM:\s*(\d+) kB", out.stdout)
    peak = f"{int(found[1]) / 1024:.0f} MB" if found else "memory unknown"
    print(f"python inference.py --num 1: {np.median(times[1:]):.2f} s, {peak}")


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write RGB uint8 (H, W, 3) in the format of the path's suffix, with the default quality."""
    write_bytes(path, encode_picture(picture, path.suffix))


def measure_large(weights: Path, rounds: int) -> None:
    """A 12-megapixel JPEG file to an overlay on disk, without loading the network, in steps."""
    segmenter = HairSegmenter(weights)
    photo = read_photo(ROOT / "demo" / "1.jpg")
    photo = cv2.resize(photo, (LARGE_SIDE, LARGE_SIDE), interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "large.jpg"
        cv2.imwrite(str(path), photo[..., ::-1])
        steps: dict[str, list[float]] = {"read": [], "network": [], "draw": [], "write": []}
        formats: dict[str, list[float]] = {".jpg": [], ".webp": []}
        for _ in range(rounds + 1):
            marks = [time.perf_counter()]
            image = read_photo(path)
            marks.append(time.perf_counter())
            mask = segmenter(image) >= segmenter.threshold
            marks.append(time.perf_counter())
            overlay = draw_overlay(image, mask)
            marks.append(time.perf_counter())
            write_png(path.with_suffix(".png"), overlay)
            marks.append(time.perf_counter())
            for step, duration in zip(steps, np.diff(marks), strict=True):
                steps[step].append(float(duration))
            for suffix, times in formats.items():
                times.append(seconds(partial(save_picture, path.with_suffix(suffix), overlay)))
    medians = {step: float(np.median(values[1:])) for step, values in steps.items()}
    opencv = np.median([seconds(partial(cv2.imencode, ".png", overlay)) for _ in range(rounds)])
    size = len(encode_picture(overlay)) / len(cv2.imencode(".png", overlay)[1])
    parts = ", ".join(f"{step} {value:.2f}" for step, value in medians.items())
    print(f"12 megapixels to overlay on disk, {segmenter.backend}: {sum(medians.values()):.2f} s ({parts})")
    for suffix, times in formats.items():
        total = sum(medians.values()) - medians["write"] + float(np.median(times[1:]))
        share = len(encode_picture(overlay, suffix)) / len(encode_picture(overlay))
        ratio = total / sum(medians.values())
        print(f"  to {suffix} instead of PNG: {total:.2f} s, {ratio:.2f} × the time, {share:.2f} × the size")
    print(f"  PNG on disk {opencv / medians['write']:.1f} × as fast as OpenCV's in memory, {size:.2f} × its size")


def measure_overlap(weights: Path, count: int) -> None:
    """A folder of photos, several at a time, compared with its slowest step alone."""
    segmenter = HairSegmenter(weights)
    source = read_photo(ROOT / "demo" / "2.jpg")
    overlay = draw_overlay(source, segmenter(source) >= segmenter.threshold)
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        paths = [output / f"{i}.jpg" for i in range(count)]
        for path in paths:
            cv2.imwrite(str(path), source[..., ::-1])
        steps = {
            "read": sum(seconds(partial(read_photo, path)) for path in paths),
            "network": sum(seconds(partial(segmenter, source)) for _ in paths),
            "write": sum(seconds(partial(write_png, path.with_suffix(".png"), overlay)) for path in paths),
        }
        segmenter = HairSegmenter(weights, threads=threads_for(paths))
        kinds, looks = ("overlay", "mask"), Looks(segmenter.threshold, Dye((parse_color("auburn"),)))
        results, plan = Results(kinds, looks), VideoPlan(kinds, looks)
        call = partial(process_files, name_results(paths, output), segmenter, results, plan)
        with contextlib.redirect_stdout(None):
            together = seconds(call)
    parts = ", ".join(f"{step} {value:.2f}" for step, value in steps.items())
    ratio = together / max(steps.values())
    print(f"{count} photos: {together:.2f} s, {ratio:.2f} × the slowest step alone ({parts} s)")


def on_arrays(model: torch.nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """A model as a function from float32 (N, 3, S, S) to logits (N, 1, S, S)."""

    def call(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(inputs)).numpy()

    return call


def measure_backends(weights: Path, size: int, rounds: int) -> None:
    """One prepared photo by each backend, compared with PyTorch in float32 with its default memory format."""
    onnx = weights / "model.onnx"
    model, facts = load_torch_model(weights)
    networks: dict[str, Callable] = {
        "PyTorch": on_arrays(plain_layout(model)),
        "PyTorch channels_last": on_arrays(model),
        "ONNX Runtime": open_network(onnx, "onnx", "cpu"),
    }
    if find_spec("openvino"):
        for precision in ("f32", "bf16"):
            networks[f"OpenVINO {precision}"] = open_network(onnx, "openvino", "cpu", precision)
    photo = read_photo(ROOT / "demo" / "1.jpg")
    inputs = preprocess(photo, size, facts["mean"], facts["std"])[None]
    times = time_in_turns(networks, inputs, rounds)
    reference = sigmoid(networks["PyTorch"](inputs)) >= facts["threshold"]
    print(f"one photo of {size}×{size}:")
    for name, ms in times.items():
        mask = sigmoid(networks[name](inputs)) >= facts["threshold"]
        dice = 2 * np.count_nonzero(mask & reference) / max(1, mask.sum() + reference.sum())
        print(f"  {name:22} {ms:6.0f} ms  {times['PyTorch'] / ms:5.1f} × as fast  Dice with PyTorch's mask {dice:.4f}")


def main() -> None:
    """Print the measurements. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="a run folder with model.onnx")
    parser.add_argument("--img_size", type=number(int, 32), default=512, help="pixels")
    parser.add_argument("--rounds", type=number(int, 1), default=7, help="of each measurement, after one to warm up")
    parser.add_argument("--photos", type=number(int, 1), default=200, help="number of photos in the folder")
    args = parser.parse_args()
    measure_process(args.weights, args.rounds)
    measure_large(args.weights, args.rounds)
    measure_overlap(args.weights, args.photos)
    measure_backends(args.weights, args.img_size, args.rounds)


if __name__ == "__main__":
    run(main)

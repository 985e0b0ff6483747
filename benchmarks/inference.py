"""How long inference takes, as ratios between things that take turns in one run.

    python benchmarks/inference.py
    python benchmarks/inference.py --weights weights/<run> --rounds 5

The run folder needs `model.onnx` (export.py). Absolute times depend on the machine and on what else it does; ratios
of medians taken in turns hardly do.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import export  # noqa: E402
import geometry  # noqa: E402
import inference  # noqa: E402
from backends import open_network  # noqa: E402


def measure_process(weights: Path, rounds: int) -> None:
    """The whole of `python inference.py --num 1`: seconds and, where there is /proc, peak memory."""
    # Not wait4's ru_maxrss: it counts what this process, with torch loaded, was before the new program replaced it.
    status = "import atexit, pathlib, runpy, sys; status = pathlib.Path('/proc/self/status'); sys.argv.pop(0); "
    status += "atexit.register(lambda: status.exists() and print(status.read_text())); "
    status += "runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [str(ROOT / "inference.py"), "--num", "1", "--weights", str(weights)]
    seconds, peak = [], "memory unknown"
    with tempfile.TemporaryDirectory() as folder:
        arguments += ["--output_dir", folder]
        for _ in range(rounds + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
        out = subprocess.run([sys.executable, "-c", status, *arguments], check=True, capture_output=True, text=True)
    if found := re.search(r"VmHWM:\s*(\d+) kB", out.stdout):
        peak = f"{int(found[1]) / 1024:.0f} MB"
    print(f"python inference.py --num 1: {np.median(seconds[1:]):.2f} s, {peak}")


def measure_backends(weights: Path, size: int, rounds: int) -> None:
    """One prepared photo through each backend, against PyTorch's float32 with its default layout and channels_last."""
    import models

    onnx = weights / "model.onnx"
    model, _ = models.load_model(weights)
    plain, last = export.plain_layout(model), model

    def eager(network: Callable) -> Callable:
        import torch

        def run(photo: np.ndarray) -> np.ndarray:
            with torch.inference_mode():
                return network(torch.from_numpy(photo)).numpy()

        return run

    networks = {"PyTorch": eager(plain), "PyTorch channels_last": eager(last)}
    networks["ONNX Runtime"] = open_network(onnx, "onnx", "cpu")
    if find_spec("openvino"):
        for precision in ("f32", "bf16"):
            networks[f"OpenVINO {precision}"] = open_network(onnx, "openvino", "cpu", precision)
    facts = networks["ONNX Runtime"].facts
    photo = inference.read_photo(ROOT / "demo" / "1.jpg")
    inputs = geometry.preprocess(photo, size, facts["mean"], facts["std"])[None]
    times = export.time_in_turns(networks, inputs, rounds)
    reference = inference.sigmoid(networks["PyTorch"](inputs)) >= facts["threshold"]
    print(f"one photo of {size}×{size}:")
    for name, ms in times.items():
        mask = inference.sigmoid(networks[name](inputs)) >= facts["threshold"]
        dice = 2 * np.count_nonzero(mask & reference) / max(1, mask.sum() + reference.sum())
        print(f"  {name:22} {ms:6.0f} ms  {times['PyTorch'] / ms:5.1f} × as fast  Dice with PyTorch's mask {dice:.4f}")


def measure_large(weights: Path, rounds: int) -> None:
    """A 12-megapixel JPEG to an overlay on disk, after the start, in steps."""
    segmenter = inference.HairSegmenter(weights)
    photo = cv2.resize(inference.read_photo(ROOT / "demo" / "1.jpg"), (3464, 3464), interpolation=cv2.INTER_CUBIC)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "large.jpg"
        cv2.imwrite(str(path), photo[..., ::-1])
        steps: dict[str, list[float]] = {"read": [], "network": [], "draw": [], "write": []}
        for _ in range(rounds + 1):
            marks = [time.perf_counter()]
            image = inference.read_photo(path)
            marks.append(time.perf_counter())
            mask = segmenter(image) >= segmenter.threshold
            marks.append(time.perf_counter())
            overlay = inference.render.draw_overlay(image, mask)
            marks.append(time.perf_counter())
            inference.render.write_png(path.with_suffix(".png"), overlay)
            marks.append(time.perf_counter())
            for step, seconds in zip(steps, np.diff(marks), strict=True):
                steps[step].append(float(seconds))
    medians = {step: float(np.median(values[1:])) for step, values in steps.items()}
    plain = []
    for _ in range(rounds):
        start = time.perf_counter()
        png = cv2.imencode(".png", overlay)[1]
        plain.append(time.perf_counter() - start)
    faster, room = np.median(plain) / medians["write"], len(inference.render.encode(overlay)) / len(png)
    parts = ", ".join(f"{step} {value:.2f}" for step, value in medians.items())
    print(f"12 megapixels to overlay on disk, {segmenter.backend}: {sum(medians.values()):.2f} s ({parts})")
    print(f"  its PNG on disk {faster:.1f} × as fast as OpenCV makes one in memory, in {room:.2f} of the room")


def measure_overlap(weights: Path, photos: int) -> None:
    """A folder of photos, all at once, against its slowest stage alone."""
    segmenter = inference.HairSegmenter(weights)
    source = inference.read_photo(ROOT / "demo" / "2.jpg")
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.jpg" for number in range(photos)]
        for path in paths:
            cv2.imwrite(str(path), source[..., ::-1])
        arguments = inference.build_parser().parse_args(["--output_dir", name])
        arguments.threshold = segmenter.threshold
        mask = segmenter(source) >= segmenter.threshold
        overlay = inference.render.draw_overlay(source, mask)
        stages: dict[str, Callable] = {
            "read": inference.read_photo,
            "network": lambda _: segmenter(source),
            "write": lambda path: inference.render.write_png(path.with_suffix(".png"), overlay),
        }
        seconds = {}
        for stage, run in stages.items():
            start = time.perf_counter()
            for path in paths:
                run(path)
            seconds[stage] = time.perf_counter() - start
        segmenter = inference.HairSegmenter(weights, threads=inference.threads_for(paths))
        start = time.perf_counter()
        with contextlib.redirect_stdout(None):
            inference.process(paths, segmenter, arguments)
        together = time.perf_counter() - start
    parts = ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())
    ratio = together / max(seconds.values())
    print(f"{photos} photos: {together:.2f} s, {ratio:.2f} × the slowest stage alone ({parts} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=inference.DEFAULT_WEIGHTS, help="a run folder with model.onnx")
    parser.add_argument("--img_size", type=int, default=512, help="(default: 512)")
    parser.add_argument("--rounds", type=int, default=7, help="of each measurement, after one to warm up (default: 7)")
    parser.add_argument("--photos", type=int, default=200, help="in the folder (default: 200)")
    args = parser.parse_args()
    measure_process(args.weights, args.rounds)
    measure_large(args.weights, args.rounds)
    measure_overlap(args.weights, args.photos)
    measure_backends(args.weights, args.img_size, args.rounds)


if __name__ == "__main__":
    main()

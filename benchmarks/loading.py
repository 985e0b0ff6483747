"""How fast, and in how much memory, the Korean data set opens and loads at its real size.

python benchmarks/loading.py        # Linux; makes 256,679 rows (1.9 GB of CSV) in a temporary folder, takes minutes

The photos are drawn and hard-linked, the polygons drawn and repeated: time and memory are as with the real ones. Files
come from the page cache. Wall-clock times are of this machine with whatever else it is doing; CPU times and ratios to
the plain way (pandas `apply`, `ast.literal_eval` for every polygon), measured in the same run, tell more.
"""
# ruff: noqa: E402 - the project's folder must be on the path first

import argparse
import ast
import csv
import itertools
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "data")]

import cv2
import numpy as np
import pandas as pd
from make_sample import draw_head
from torch.utils.data import DataLoader
from tqdm import tqdm

from augment import train_transform
from dataset import HairDataset, PhotoSet, build_loader, open_korean, read_image

ROWS, FILES, COLUMNS, SIZE = 256_679, 37, 136, 512
PHOTOS_OF_A_PERSON = 100
HEAD = ("", "id", "path", "source", "polygon1", "polygon2", "height", "width", "sex", "length", "curl", "age")
HEAD += ("horizontal", "vertical", "color", "bang", "loss", "side", "basestyle", "before-after")


def make_full_size(root: Path, rows: int) -> int:
    """Write photos and CSV files as large as the real ones; returns the bytes of the CSV files."""
    rng = np.random.default_rng(0)
    originals = root / "drawn"
    originals.mkdir()
    for number in range(40):
        image = cv2.GaussianBlur(draw_head(rng, SIZE)[0], (0, 0), 1.0)
        cv2.imwrite(str(originals / f"{number}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    hair, face = ([_polygon_text(rng, points) for _ in range(300)] for points in (105, 32))
    exif = [f"exif {number % 7}" for number in range(COLUMNS - len(HEAD))]
    header = [*HEAD, *(f"exifdata.field_{number}" for number in range(len(exif)))]
    csv_bytes = 0
    for file_number, part in enumerate(tqdm(np.array_split(np.arange(rows), FILES), desc="make", unit="file")):
        folder = root / "dataset" / f"partition{file_number}"
        folder.mkdir(parents=True)
        file = root / "dataset" / f"dataindex_{file_number:02d}.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(header)
            for row in part.tolist():
                person = row // PHOTOS_OF_A_PERSON
                name = f"AP{person:06d}-{row % PHOTOS_OF_A_PERSON:03d}.jpg"
                (folder / name).hardlink_to(originals / f"{row % 40}.jpg")
                path = f"/main/dataset/{folder.name}/{'images/' if row % 2 else ''}{name}"
                polygons = hair[rng.integers(300)], face[rng.integers(300)]
                frame = (f"{SIZE}.0", f"{SIZE}.0")
                length, curl = ("장발", "단발", "여숏", "중발")[person % 4], "SCX"[person % 3]
                style = ("여남"[person % 2], length, curl, 20 + person % 50)
                rest = (row % 360, "중", "적갈색", "풀뱅", "탈모아님", "원블럭", "댄디", "after")
                writer.writerow((row, f"{row:032x}", path, f"AP{person:06d}", *polygons, *frame, *style, *rest, *exif))
        csv_bytes += file.stat().st_size
    return csv_bytes


def _polygon_text(rng: np.random.Generator, points: int) -> str:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    reach = SIZE * 0.35 * (1 + 0.3 * rng.random(points))
    outline = np.float32(SIZE / 2 + np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1))
    return str([[{"x": float(x), "y": float(y)} for x, y in outline]])


# ---------------------------------------------------------------------------------------------------- measuring


def fresh(function: Callable, *args: object) -> dict[str, float]:
    """Run a measurement in a new process, so that no other's memory counts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def megabytes(file: str, field: str, process: int | str = "self") -> float:
    """A figure in kB from the process's /proc file, in MB."""
    line = next(line for line in Path(f"/proc/{process}/{file}").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure_open(root: Path) -> dict[str, float]:
    """Open the data set, building the index where there is none: wall and CPU seconds, peak and imports in MB."""
    imports = megabytes("status", "VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    open_korean(root)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak": megabytes("status", "VmHWM"), "imports": imports}


def measure_split(root: Path) -> dict[str, float]:
    """Seconds for the folds, and the bytes that a spawned worker is sent."""
    index = open_korean(root)
    start = time.perf_counter()
    rows = index.split(0, 5)["train"]
    wall = time.perf_counter() - start
    return {"wall": wall, "pickle": len(pickle.dumps(PhotoSet([index], [rows])))}


def measure_plain(root: Path) -> dict[str, float]:
    """The plain way on one CSV file: CPU seconds and MB of Python objects for each row."""
    file = root / "dataset" / "dataindex_00.csv"
    memory, cpu = megabytes("status", "VmRSS"), time.process_time()
    frame = pd.read_csv(file)
    parsed = frame["polygon1"].apply(ast.literal_eval)
    cpu, memory = time.process_time() - cpu, megabytes("status", "VmRSS") - memory
    return {"cpu": cpu / len(parsed), "memory": memory / len(parsed)}


def measure_mask(root: Path) -> dict[str, float]:
    """Median CPU milliseconds for one mask, from the index and the plain way from the CSV's text."""
    index, shape = open_korean(root), (SIZE, SIZE)
    rng = np.random.default_rng(1)
    texts = pd.read_csv(root / "dataset" / "dataindex_00.csv", usecols=["polygon1"], nrows=300)["polygon1"]

    def plain(text: str) -> np.ndarray:
        mask = np.zeros(shape, np.uint8)
        for curve in ast.literal_eval(text):
            cv2.fillPoly(mask, [np.array([(point["x"], point["y"]) for point in curve], np.int32)], 1)
        return mask

    def median(function: Callable, items: list) -> float:
        times = []
        for item in items:
            start = time.process_time()
            function(item)
            times.append(1000 * (time.process_time() - start))
        return statistics.median(times)

    rows = rng.integers(len(index), size=2000).tolist()
    return {"index": median(lambda row: index.mask(row, shape), rows), "plain": median(plain, texts.tolist())}


def _loader(root: Path, strength: str, workers: int, photos: int | None = None) -> DataLoader:
    index = open_korean(root)
    rows = np.random.default_rng(2).permutation(len(index))[:photos]
    transform = train_transform(strength, SIZE)
    return build_loader(HairDataset(PhotoSet([index], [rows]), transform), 8, workers, seed=0)


def measure_workers(root: Path, method: str) -> dict[str, float]:
    """MB of its own (Private_Dirty) that a second worker takes; the mapped index is one copy in the page cache.

    `imports` is what a process of the same kind has that only imported `dataset`: a forked one shares them.
    """
    context = get_context(method)
    idle = context.Process(target=time.sleep, args=(60,))
    idle.start()
    loader = _loader(root, "light", workers=2)
    loader.multiprocessing_context = context
    batches = iter(loader)
    list(itertools.islice(batches, 40))
    imports = megabytes("smaps_rollup", "Private_Dirty", idle.pid)
    worker = megabytes("smaps_rollup", "Private_Dirty", batches._workers[1].pid)
    idle.kill()
    return {"worker": worker, "imports": imports, "added": worker - imports}


def measure_rate(root: Path, strength: str, photos: int) -> dict[str, float]:
    """Photos a second, and CPU ms a photo, of one worker and of decoding alone, in turns, a core for each."""
    cv2.setNumThreads(0)  # decoding has one core, as the worker has
    loader = _loader(root, strength, 1, photos)
    list(loader)  # starts the worker, fills the page cache
    worker, rounds = loader._iterator._workers[0].pid, 3
    worker_cpu, decode_cpu, decode, load = -_cpu_seconds(worker), 0.0, 0.0, 0.0
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        for i in range(photos):
            read_image(loader.dataset.photos.path(i))
        decode, decode_cpu = decode + time.perf_counter() - start, decode_cpu + time.process_time() - start_cpu
        start = time.perf_counter()
        list(loader)
        load += time.perf_counter() - start
    worker_cpu += _cpu_seconds(worker)
    count = rounds * photos
    kilobytes = np.mean([loader.dataset.photos.path(i).stat().st_size for i in range(photos)]) / 1024
    rates = {"decode": count / decode, "load": count / load, "kilobytes": float(kilobytes)}
    return rates | {"decode_ms": 1000 * decode_cpu / count, "worker_ms": 1000 * worker_cpu / count}


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------------------------------------- the table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="fewer for a quick look (default: the real number)")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="loading-") as folder:
        root = Path(folder)
        csv_bytes = make_full_size(root, rows)
        print(f"{rows:,} rows, {csv_bytes / 1e9:.2f} GB in {FILES} CSV files of {COLUMNS} columns", flush=True)
        build, again = fresh(measure_open, root), fresh(measure_open, root)
        folds, plain, mask = fresh(measure_split, root), fresh(measure_plain, root), fresh(measure_mask, root)
        workers = {method: fresh(measure_workers, root, method) for method in ("fork", "spawn")}
        rates = {strength: fresh(measure_rate, root, strength, min(rows, 400)) for strength in ("light", "heavy")}
    table = [
        ("build", "60 s", f"{build['wall']:.1f} s ({build['cpu']:.1f} s of CPU)"),
        ("  the plain way, from one CSV file", "", f"{plain['cpu'] * rows:.0f} s of CPU, {_times(plain, build, rows)}"),
        ("build, peak memory", "1500 MB", f"{build['peak']:.0f} MB, {build['imports']:.0f} of them imports"),
        ("  the plain way, from one CSV file", "", f"{plain['memory'] * rows:.0f} MB of Python objects"),
        ("open again", "1 s", f"{again['wall']:.3f} s"),
        ("  folds", "", f"{folds['wall']:.1f} s; a spawned worker is sent {folds['pickle'] / 1e6:.2f} MB"),
        ("one sample's mask", "0.3 ms", f"{mask['index']:.3f} ms of CPU"),
        (
            "  the plain way",
            "",
            f"{mask['plain']:.3f} ms of CPU, {mask['plain'] / mask['index']:.0f} times as long",
        ),
    ]
    for method, memory in workers.items():
        figures = f"{memory['added']:.0f} MB ({memory['worker']:.0f} of its own, imports {memory['imports']:.0f})"
        table.append((f"a further worker, {method}", "60 MB", figures))
    for strength, rate in rates.items():
        figures = f"{rate['load'] / rate['decode']:.2f} ({rate['load']:.0f} of {rate['decode']:.0f} photos/s, "
        figures += f"JPEG files of {rate['kilobytes']:.0f} kB); "
        figures += f"by CPU {rate['decode_ms'] / rate['worker_ms']:.2f} "
        figures += f"({rate['decode_ms']:.1f} ms to {rate['worker_ms']:.1f} ms)"
        table.append((f"1 worker over decoding alone, {strength}", "0.33" if strength == "light" else "", figures))
    for line in [("what", "must reach", "measured"), ("---",) * 3, *table]:
        print("| " + " | ".join(line) + " |")


def _times(plain: dict[str, float], build: dict[str, float], rows: int) -> str:
    return f"{plain['cpu'] * rows / build['cpu']:.0f} times as long"


if __name__ == "__main__":
    main()

"""How fast, and in how much memory, the Korean data set opens and loads at its real size.

python -m benchmarks.loading        # Linux; writes 256,679 rows (1.9 GB of CSV) to a temporary folder; takes minutes

The photos are drawn and hard-linked, the polygons drawn and repeated: time and memory are those of the real ones. Files
come from the page cache. Wall-clock times depend on the machine and its load. CPU times, and ratios to a plain
implementation (pandas `apply`, `ast.literal_eval` for every polygon) in the same run, say more.
"""

import argparse
import ast
import csv
import itertools
import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset import PhotoSet, build_loader, training_set
from hair import read_photo
from hair.cli import HelpFormatter, number
from hair.errors import run
from tools.make_sample import draw_head
from training.korean import open_korean

ROWS, FILES, COLUMNS, SIZE = 256_679, 37, 136, 512  # of the real data set
PHOTOS_OF_A_PERSON = 100
DRAWN = 40  # photos, which all rows share
POLYGONS = 300  # hair and face polygons, which all rows share
HAIR_POINTS, FACE_POINTS = 105, 32  # of a polygon
ROUNDS = 3  # of loading, in turns with decoding alone
RATES = (("light", 512), ("light", 256), ("heavy", 512))  # augmentation and pixels of the loaders that are timed
HEAD = ("", "id", "path", "source", "polygon1", "polygon2", "height", "width", "sex", "length", "curl", "age")
HEAD += ("horizontal", "vertical", "color", "bang", "loss", "side", "basestyle", "before-after")


def make_full_size(root: Path, rows: int) -> int:
    """Write photos and CSV files as large as the real ones. Returns the bytes of the CSV files."""
    rng = np.random.default_rng(0)
    originals = root / "drawn"
    originals.mkdir()
    for i in range(DRAWN):
        image = cv2.GaussianBlur(draw_head(rng, SIZE)[0], (0, 0), 1.0)
        cv2.imwrite(str(originals / f"{i}.jpg"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    hair, face = ([_polygon_text(rng, points) for _ in range(POLYGONS)] for points in (HAIR_POINTS, FACE_POINTS))
    exif = [f"exif {i % 7}" for i in range(COLUMNS - len(HEAD))]
    header = [*HEAD, *(f"exifdata.field_{i}" for i in range(len(exif)))]
    csv_bytes = 0
    for part, part_rows in enumerate(tqdm(np.array_split(np.arange(rows), FILES), desc="make", unit="file")):
        folder = root / "dataset" / f"partition{part}"
        folder.mkdir(parents=True)
        file = root / "dataset" / f"dataindex_{part:02d}.csv"
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(header)
            for row in part_rows.tolist():
                person = row // PHOTOS_OF_A_PERSON
                name = f"AP{person:06d}-{row % PHOTOS_OF_A_PERSON:03d}.jpg"
                (folder / name).hardlink_to(originals / f"{row % DRAWN}.jpg")
                path = f"/main/dataset/{folder.name}/{'images/' if row % 2 else ''}{name}"
                polygons = hair[rng.integers(POLYGONS)], face[rng.integers(POLYGONS)]
                frame = (f"{SIZE}.0", f"{SIZE}.0")
                length, curl = ("장발", "단발", "여숏", "중발")[person % 4], "SCX"[person % 3]
                style = ("여남"[person % 2], length, curl, 20 + person % 50)
                rest = (row % 360, "중", "적갈색", "풀뱅", "탈모아님", "원블럭", "댄디", "after")
                writer.writerow((row, f"{row:032x}", path, f"AP{person:06d}", *polygons, *frame, *style, *rest, *exif))
        csv_bytes += file.stat().st_size
    return csv_bytes


def _polygon_text(rng: np.random.Generator, points: int) -> str:
    """A random outline as the CSV files write it."""
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    reach = SIZE * 0.35 * (1 + 0.3 * rng.random(points))
    outline = np.float32(SIZE / 2 + np.stack([np.cos(angle) * reach, np.sin(angle) * reach], 1))
    return str([[{"x": float(x), "y": float(y)} for x, y in outline]])


# ---------------------------------------------------------------------------------------------------- measuring


def in_new_process(function: Callable, *args: object) -> dict[str, float]:
    """Run a measurement in a new process, so that no other measurement's memory counts."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def megabytes(file: str, field: str, process: int | str = "self") -> float:
    """A field in kB of a process's file in /proc, in MB."""
    line = next(line for line in Path(f"/proc/{process}/{file}").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure_open(root: Path) -> dict[str, float]:
    """Open the data set, building the index if there is none: wall and CPU seconds, peak and imports in MB."""
    imports = megabytes("status", "VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    open_korean(root)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak": megabytes("status", "VmHWM"), "imports": imports}


def measure_split(root: Path) -> dict[str, float]:
    """Seconds for the folds, and the bytes that a spawned worker receives."""
    index = open_korean(root)
    start = time.perf_counter()
    rows = index.split(0, 5)["train"]
    wall = time.perf_counter() - start
    return {"wall": wall, "pickle": len(pickle.dumps(PhotoSet([index], [rows])))}


def measure_plain(root: Path) -> dict[str, float]:
    """The plain implementation on one CSV file: CPU seconds and MB of Python objects for each row."""
    file = root / "dataset" / "dataindex_00.csv"
    memory, cpu = megabytes("status", "VmRSS"), time.process_time()
    frame = pd.read_csv(file)
    parsed = frame["polygon1"].apply(ast.literal_eval)
    cpu, memory = time.process_time() - cpu, megabytes("status", "VmRSS") - memory
    return {"cpu": cpu / len(parsed), "memory": memory / len(parsed)}


def plain_mask(text: str) -> np.ndarray:
    """A mask from a CSV file's text, uint8 {0, 1} (SIZE, SIZE)."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    for curve in ast.literal_eval(text):
        cv2.fillPoly(mask, [np.array([(point["x"], point["y"]) for point in curve], np.int32)], 1)
    return mask


def median_cpu(function: Callable, items: list) -> float:
    """Median CPU milliseconds of a call."""
    times = []
    for item in items:
        start = time.process_time()
        function(item)
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def measure_mask(root: Path) -> dict[str, float]:
    """Median CPU milliseconds for one mask, from the index and by the plain implementation."""
    index = open_korean(root)
    rows = np.random.default_rng(1).integers(len(index), size=2000).tolist()
    texts = pd.read_csv(root / "dataset" / "dataindex_00.csv", usecols=["polygon1"], nrows=300)["polygon1"].tolist()
    from_index = partial(index.mask, shape=(SIZE, SIZE))
    return {"index": median_cpu(from_index, rows), "plain": median_cpu(plain_mask, texts)}


def _loader(root: Path, strength: str, size: int, workers: int, photos: int | None = None) -> DataLoader:
    index = open_korean(root)
    rows = np.random.default_rng(2).permutation(len(index))[:photos]
    return build_loader(training_set(PhotoSet([index], [rows]), strength, size), 8, workers, seed=0)


def measure_workers(root: Path, method: str) -> dict[str, float]:
    """MB of memory of its own (Private_Dirty) that a second worker needs; all share one copy of the mapped index.

    `imports` is that of a process of the same kind that only imported `dataset`; a forked one shares them.
    """
    context = get_context(method)
    idle = context.Process(target=time.sleep, args=(60,))
    idle.start()
    loader = _loader(root, "light", SIZE, workers=2)
    loader.multiprocessing_context = context
    batches = iter(loader)
    list(itertools.islice(batches, 40))
    imports = megabytes("smaps_rollup", "Private_Dirty", idle.pid)
    worker = megabytes("smaps_rollup", "Private_Dirty", batches._workers[1].pid)
    idle.kill()
    return {"worker": worker, "imports": imports, "added": worker - imports}


def measure_rate(root: Path, strength: str, size: int, photos: int) -> dict[str, float]:
    """One worker compared with decoding alone, in turns, on one core each: photos a second, CPU ms a photo."""
    cv2.setNumThreads(0)  # decoding gets one core, as the worker does
    loader = _loader(root, strength, size, 1, photos)
    list(loader)  # starts the worker, fills the page cache
    worker = loader._iterator._workers[0].pid
    worker_cpu, decode_cpu, decode, load = -_cpu_seconds(worker), 0.0, 0.0, 0.0
    for _ in range(ROUNDS):
        start, start_cpu = time.perf_counter(), time.process_time()
        for i in range(photos):
            read_photo(loader.dataset.photos.path(i))
        decode, decode_cpu = decode + time.perf_counter() - start, decode_cpu + time.process_time() - start_cpu
        start = time.perf_counter()
        list(loader)
        load += time.perf_counter() - start
    worker_cpu += _cpu_seconds(worker)
    count = ROUNDS * photos
    kilobytes = np.mean([loader.dataset.photos.path(i).stat().st_size for i in range(photos)]) / 1024
    rates = {"decode": count / decode, "load": count / load, "kilobytes": float(kilobytes)}
    return rates | {"decode_ms": 1000 * decode_cpu / count, "worker_ms": 1000 * worker_cpu / count}


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------------------------------------- the table


def measure_index(root: Path, rows: int) -> list[tuple[str, str, str]]:
    """Lines of the table about opening the data set and its masks."""
    build, again = in_new_process(measure_open, root), in_new_process(measure_open, root)
    folds, plain = in_new_process(measure_split, root), in_new_process(measure_plain, root)
    mask = in_new_process(measure_mask, root)
    plain_cpu = plain["cpu"] * rows
    return [
        ("build", "60 s", f"{build['wall']:.1f} s ({build['cpu']:.1f} s of CPU)"),
        ("  plain, from one CSV file", "", f"{plain_cpu:.0f} s of CPU, {plain_cpu / build['cpu']:.0f} × as long"),
        ("build, peak memory", "1500 MB", f"{build['peak']:.0f} MB, {build['imports']:.0f} of them imports"),
        ("  plain, from one CSV file", "", f"{plain['memory'] * rows:.0f} MB of Python objects"),
        ("open again", "1 s", f"{again['wall']:.3f} s"),
        ("  folds", "", f"{folds['wall']:.1f} s; a spawned worker receives {folds['pickle'] / 1e6:.2f} MB"),
        ("one photo's mask", "0.3 ms", f"{mask['index']:.3f} ms of CPU"),
        ("  plain", "", f"{mask['plain']:.3f} ms of CPU, {mask['plain'] / mask['index']:.0f} × as long"),
    ]


def worker_line(method: str, memory: dict[str, float]) -> tuple[str, str, str]:
    """Line of the table about what `measure_workers` gives."""
    figures = f"{memory['added']:.0f} MB ({memory['worker']:.0f} of its own, imports {memory['imports']:.0f})"
    return f"another worker, {method}", "60 MB", figures


def rate_line(strength: str, size: int, rate: dict[str, float]) -> tuple[str, str, str]:
    """Line of the table about what `measure_rate` gives."""
    figures = (
        f"{rate['load'] / rate['decode']:.2f} ({rate['load']:.0f} of {rate['decode']:.0f} photos/s, "
        f"JPEG files of {rate['kilobytes']:.0f} kB); by CPU {rate['decode_ms'] / rate['worker_ms']:.2f} "
        f"({rate['decode_ms']:.1f} ms to {rate['worker_ms']:.1f} ms)"
    )
    required = "0.33" if (strength, size) == ("light", SIZE) else ""
    return f"1 worker at {size} px relative to decoding alone, {strength}", required, figures


def main() -> None:
    """Print the table. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--rows", type=number(int, FILES), default=ROWS, help="number of rows; fewer for a quick look")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="loading-") as folder:
        root = Path(folder)
        csv_bytes = make_full_size(root, rows)
        print(f"{rows:,} rows, {csv_bytes / 1e9:.2f} GB in {FILES} CSV files of {COLUMNS} columns", flush=True)
        table = measure_index(root, rows)
        for method in ("fork", "spawn"):
            table.append(worker_line(method, in_new_process(measure_workers, root, method)))
        for strength, size in RATES:
            rate = in_new_process(measure_rate, root, strength, size, min(rows, 400))
            table.append(rate_line(strength, size, rate))
    for line in [("what", "must reach", "measured"), ("---", "---", "---"), *table]:
        print("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    run(main)

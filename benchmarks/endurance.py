"""Whether a run of days stays as small as it began: memory and files of a training over thousands of steps (Linux).

python -m benchmarks.endurance                        # 5,000 steps of a tiny network on drawn heads
python -m benchmarks.endurance --steps 500
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.loading import megabytes
from hair.cli import HelpFormatter, number
from hair.errors import UserError, run
from tools.make_sample import make_celeb

ROOT = Path(__file__).resolve().parents[1]
BATCH, PHOTOS = 2, 40
WARM_UP = 0.2  # share of the steps before memory is compared: caches fill in it
FLAGS = ("--encoder_type", "tu-test_efficientnet", "--decoder_type", "FPN", "--encoder_weights", "none")
FLAGS += ("--img_size", "64", "--augment", "heavy", "--ema", "0.9", "--save_every", "0.1")


def workers(process: int) -> list[int]:
    """The processes that a training has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = path.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended
            continue
        if parent == str(process):
            found.append(int(path.parent.name))
    return found


def train(folder: Path, steps: int, num_workers: int) -> np.ndarray:
    """Train, and measure at each epoch's end.

    Returns:
        float64 (epochs, 3): finished steps, MB of the training, MB of its workers: memory of their own (Private_Dirty),
        because the share of a library that counts for one process depends on who else runs.

    Raises:
        UserError: the training failed.
    """
    make_celeb(folder / "data")
    script = [sys.executable, str(ROOT / "train_celeb.py"), "--data_dir", str(folder / "data")]
    steps_an_epoch = (PHOTOS - 4 - PHOTOS // 5) // BATCH  # 4 of the drawn heads are bald and left out
    epochs = -(-steps // steps_an_epoch)
    rest = ["--batch_size", BATCH, "--epochs", epochs, "--num_workers", num_workers, "--output_dir", folder / "weights"]
    command = [*script, *FLAGS, *map(str, rest)]
    samples = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as training:
        for line in training.stdout or ():
            if "steps an epoch" in line:
                steps_an_epoch = int(line.partition(" steps an epoch")[0].split()[-1])
            if line.startswith("epoch ") and training.poll() is None:
                pids = [training.pid, *workers(training.pid)]
                try:
                    sizes = [megabytes("smaps_rollup", "Private_Dirty", pid) for pid in pids]
                except OSError:  # it is at its end
                    continue
                samples.append(((len(samples) + 1) * steps_an_epoch, sizes[0], sum(sizes[1:])))
                if sys.stderr.isatty():
                    print(f"\r{samples[-1][0]} steps", end="", file=sys.stderr, flush=True)
    if training.returncode:
        raise UserError(f"the training failed with exit status {training.returncode}")
    return np.array(samples)


def slope(samples: np.ndarray, column: int) -> float:
    """MB per 1,000 steps after the warm-up, by least squares."""
    used = samples[samples[:, 0] > WARM_UP * samples[-1, 0]]
    return float(np.polyfit(used[:, 0] / 1000, used[:, column], 1)[0])


def main() -> None:
    """Print a table. Raises UserError where the training fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--steps", type=number(int, 100), default=5000, help="optimizer steps")
    parser.add_argument("--num_workers", type=number(int, 0), default=2, help="processes that load photos")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="endurance-") as name:
        folder = Path(name)
        samples = train(folder, args.steps, args.num_workers)
        print(f"{samples[-1, 0]:.0f} steps, {len(samples)} epochs, each with its validation and checkpoint")
        print("| process | at the beginning | after the warm-up | at the end | slope |\n|---|---|---|---|---|")
        for column, title in ((1, "training"), (2, f"{args.num_workers} workers")):
            first, warm, last = (samples[i, column] for i in (0, int(WARM_UP * len(samples)), -1))
            growth = slope(samples, column)
            print(f"| {title} | {first:.0f} MB | {warm:.0f} MB | {last:.0f} MB | {growth:+.2f} MB per 1,000 steps |")
        print("| file | size |\n|---|---|")
        run_folder = next((folder / "weights").iterdir())
        for path in sorted(run_folder.iterdir()):
            files = path.rglob("*") if path.is_dir() else [path]
            print(f"| {path.name} | {sum(file.stat().st_size for file in files if file.is_file()) / 1e6:.2f} MB |")


if __name__ == "__main__":
    run(main)

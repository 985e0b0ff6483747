"""Whoever asks a training to stop, and whenever: its state is that of the last step, one line says so, none is lost."""

import contextlib
import os
import random
import signal
import sys
import time
from multiprocessing import Process
from pathlib import Path

import pytest
import torch

from hair.errors import run as run_main
from tests.scripts import RUN, TINY, run, start
from tests.training.hooks import contents, own_group, record_rates
from training import stops
from training.stops import stoppable

WORKERS = ["--num_workers", 2, "--save_every", 0]


def as_a_job() -> None:
    """A process group of its own, and a record of the steps."""
    own_group()
    record_rates()


def helpers(process: int) -> list[int]:
    """The other processes of its group: workers, and what starts them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == process and state != "Z" and path.parent.name != str(process):
                found.append(int(path.parent.name))
    return found


def wait_for_helpers(process: int) -> None:
    """Wait until all have ended. PyTorch's workers look every 5 seconds whether the training is there."""
    until = time.monotonic() + 60
    while helpers(process):
        assert time.monotonic() < until, "orphans"
        time.sleep(0.05)


def wait_for_steps(process: Process, folder: Path, steps: int) -> None:
    while not (folder / "rates.txt").exists() or len((folder / "rates.txt").read_text().splitlines()) < steps:
        assert process.is_alive(), (folder / "out.txt").read_text()
        time.sleep(0.02)


def check_stopped(folder: Path, process: Process, number: int) -> None:
    """Check the exit status, what was printed, and that the checkpoint is of the very last step."""
    out = (folder / "out.txt").read_text()
    assert "Traceback" not in out and "Exception" not in out and "error" not in out, out
    if process.exitcode == -number:  # before the training had begun
        assert not out
        return
    assert process.exitcode == 128 + number, out
    lines = [line for line in out.replace("\r", "\n").splitlines() if line.startswith("stopped")]
    assert len(lines) == 1, out
    done = len((folder / "rates.txt").read_text().splitlines()) if (folder / "rates.txt").exists() else 0
    last = folder / RUN / "last.pth"
    if last.exists():
        content = torch.load(last, weights_only=True)
        assert content["epoch"] * 3 + -(-content["batch"] // 3) == done, lines  # 3 steps an epoch, 3 batches a step
        assert lines[0].endswith("with --resume") or lines == ["stopped before the first step"]
    else:
        assert not done and lines == ["stopped before the first step"]


@pytest.fixture(scope="module")
def whole(celeb: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The run folder of a run in one go, and its seconds."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, *TINY, *WORKERS, "--epochs", 2, "--data_dir", celeb) == 0, (folder / "out.txt").read_text()
    first, last = (folder / RUN / name for name in ("args.json", "log.csv"))
    return folder / RUN, last.stat().st_mtime - first.stat().st_mtime


def test_signals_to_the_whole_group(whole: tuple[Path, float], celeb: Path, tmp_path: Path) -> None:
    flags = [*TINY, *WORKERS, "--epochs", 2, "--data_dir", celeb]
    for number, steps in ((signal.SIGTERM, 1), (signal.SIGHUP, 4)):
        process = start(tmp_path, *flags, hook=as_a_job)
        wait_for_steps(process, tmp_path, steps)
        assert len(helpers(process.pid)) >= 2
        os.killpg(process.pid, number)
        if number == signal.SIGTERM:  # timeout(1) sends it to its child and then to the group
            time.sleep(0.01)
            os.killpg(process.pid, number)
        process.join()
        check_stopped(tmp_path, process, number)
        wait_for_helpers(process.pid)
        (tmp_path / "out.txt").unlink()
        flags = ["--resume"]
    assert run(tmp_path, "--resume", hook=record_rates) == 0
    assert len((tmp_path / "rates.txt").read_text().splitlines()) == 6, "no step is lost or done twice"
    assert contents(tmp_path / RUN) == contents(whole[0])


@pytest.mark.slow
def test_twenty_random_moments(whole: tuple[Path, float], celeb: Path, tmp_path: Path) -> None:
    moments, count, stopped = random.Random(1), 0, []
    while count < 20:
        folder = tmp_path / str(count)
        folder.mkdir()
        flags = [*TINY, *WORKERS, "--epochs", 2, "--data_dir", celeb]
        while True:
            process = start(folder, *flags, hook=as_a_job)
            process.join(whole[1] * moments.uniform(0.1, 1))
            if process.exitcode == 0:
                break
            if process.exitcode is None and count < 20:
                number = moments.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
                os.killpg(process.pid, number)
                count += 1
            process.join()
            if process.exitcode == 0:  # it was at its end
                break
            check_stopped(folder, process, number)
            stopped.append((folder / "out.txt").read_text().splitlines()[-1:])
            (folder / "out.txt").unlink()
            flags = ["--resume"] if (folder / RUN / "args.json").exists() else flags
        assert contents(folder / RUN) == contents(whole[0])
        assert len((folder / "rates.txt").read_text().splitlines()) == 6
    print(*stopped, sep="\n")


def test_workers_end_with_a_training_that_is_killed(celeb: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *TINY, *WORKERS, "--data_dir", celeb, hook=as_a_job)
    wait_for_steps(process, tmp_path, 1)
    assert len(helpers(process.pid)) >= 2
    process.kill()
    process.join()
    wait_for_helpers(process.pid)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_before_the_first_step(kind: int, capfd: pytest.CaptureFixture) -> None:
    before = {number: signal.getsignal(number) for number in stops.STOP_SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def main() -> None:
        with stoppable():
            try:
                signal.raise_signal(kind)
            finally:
                signal.raise_signal(kind)  # a second one does not disturb the end
                raise RuntimeError("a library's own error about it")

    try:
        with pytest.raises(SystemExit) as end:
            run_main(main)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert end.value.code == 128 + kind and "Traceback" not in capfd.readouterr().err


def test_what_is_ignored_stays_ignored() -> None:
    """As SIGHUP is with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_output_without_a_reader_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python train_celeb.py | tee log` loses tee by Ctrl-C."""
    reader, writer = os.pipe()
    os.close(reader)
    before = {number: signal.getsignal(number) for number in stops.STOP_SIGNALS}
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        try:
            with pytest.raises(KeyboardInterrupt), stoppable():
                print("epoch 1", flush=True)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        print("stopped", flush=True, file=stream)  # nobody reads it, and nothing breaks

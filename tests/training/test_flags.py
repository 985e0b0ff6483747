"""Flags and their defaults, what follows from them, and the files that flags are read from."""

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

import train_celeb
import train_korean
from hair.errors import UserError
from hair.files import write_json
from hair.store import DEFAULT_WEIGHTS
from tests.conftest import ROOT
from training import fit, flags
from training.flags import KoreanPlan, TrainingPlan

DEFAULTS = {
    "img_size": 512,
    "num_workers": 0,
    "encoder_type": "timm-efficientnet-b0",
    "decoder_type": "Unet",
    "scheduler": "GradualWarmupSchedulerV2",
    "min_lr": 1e-6,
    "batch_size": 4,
    "weight_decay": 1e-6,
    "apex": False,
    "encoder_lr": 3e-5,
    "decoder_lr": None,
    "data_dir": ["data/CelebAMask-HQ"],
    "hair_label": [],
    "exclude": None,
    "log": "tensorboard",
    "output_dir": Path("weights"),
    "name": "celeb",
    "epochs": 20,
    "warmup_epochs": 1,
    "warmup_factor": 10,
    "encoder_weights": "imagenet",
    "loss": "dice_bce",
    "fold": 0,
    "n_folds": 5,
    "grad_accum": 1,
    "max_grad_norm": 5,
    "resume": None,
    "device": "auto",
    "limit": None,
    "size_epochs": None,
    "augment": "light",
    "backgrounds": [],
    "decoder_channels": None,
    "weights": None,
    "teacher": [],
    "freeze_encoder_epochs": 0,
    "patience": 0,
    "ema": 0,
    "compile": False,
    "seed": 42,
    "save_every": 15,
}


def parser() -> ArgumentParser:
    return flags.training_parser("usage", "data/CelebAMask-HQ", "celeb")


def parse(*words: object) -> Namespace:
    return flags.parse_training(parser(), [str(word) for word in words])


def test_default_of_every_flag() -> None:
    assert vars(parser().parse_args([])) == DEFAULTS | {"config": None}


def test_a_plan_has_every_flag() -> None:
    """And no other field: `args.json` is written from it, and read by runs of other versions."""
    args = parse()
    assert vars(flags.plan_from(args)) == vars(args) == DEFAULTS | {"img_size": [512], "size_epochs": [20]}


def test_apex_is_a_switch() -> None:
    assert parser().parse_args(["--apex"]).apex is True
    assert parser().parse_args(["--no-apex"]).apex is False


def test_what_follows_from_other_flags() -> None:
    args = parse("--epochs", 7)
    assert (args.img_size, args.size_epochs) == ([512], [7])
    args = parse("--img_size", 256, 512, "--size_epochs", 15, 3)
    assert args.epochs == 18


def test_weights_and_teachers_may_be_names() -> None:
    args = parse("--weights", "wild")
    assert args.weights == DEFAULT_WEIGHTS and args.encoder_type == "timm-tf_efficientnet_lite0"
    assert flags.run_of("wild") == DEFAULT_WEIGHTS and flags.run_of("weights/wild") == Path("weights/wild")
    with pytest.raises(UserError, match="hf://owner"):
        parse("--weights", "hf://owner")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--img_size 256 512", "--size_epochs needs as many numbers"),
        ("--img_size 250", "--img_size 250 is not a multiple of 32"),
        ("--img_size 64 --size_epochs 2", "--size_epochs goes with several --img_size"),
        ("--fold 5", "--fold 5 is out of range"),
        ("--teacher a --loss lovasz", "--loss lovasz needs masks of 0 and 1"),
        ("--resume nowhere", r"no args\.json there"),
        ("--name a/b", "--name a/b: becomes part of a folder name"),
    ],
)
def test_flags_that_do_not_go_together(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(*words.split())


def test_epochs_beside_several_sizes() -> None:
    assert parse("--img_size", 64, 96, "--size_epochs", 3, 9).epochs == 12
    with pytest.raises(UserError, match="--size_epochs sets"):
        parse("--img_size", 64, 96, "--size_epochs", 3, 9, "--epochs", 30)


def test_the_size_of_each_epoch() -> None:
    plan = flags.plan_from(parse("--img_size", 64, 96, 128, "--size_epochs", 1, 2, 1))
    assert [plan.size_at(epoch) for epoch in range(5)] == [64, 96, 96, 128, 128]


def test_a_resumed_run_keeps_its_fold(tmp_path: Path) -> None:
    write_json(tmp_path / "args.json", vars(parse("--fold", 2, "--encoder_lr", 1e-3)))
    args = parse("--resume", tmp_path, "--encoder_lr", 1e-5, "--data_dir", "moved")
    assert (args.fold, args.n_folds, args.decoder_lr) == (2, 5, None), "the decoder's rate follows the encoder's"
    assert flags.plan_from(args).decoder_rate == 1e-5
    assert parse("--resume", tmp_path, "--fold", 2, "--epochs", 30).size_epochs == [30]
    for flag, value, was in (("--fold", 1, 2), ("--fold", "all", 2), ("--n_folds", 4, 5)):
        with pytest.raises(UserError, match=rf"{tmp_path}: was started with {flag} {was}; resume with the same"):
            parse("--resume", tmp_path, flag, value)


def test_resume_alone_takes_the_newest_run_of_just_this_name(tmp_path: Path) -> None:
    for number, (folder, name) in enumerate([("a_celeb", "celeb"), ("b_my_celeb", "my_celeb"), ("c", "x[1]")]):
        write_json(tmp_path / folder / "args.json", {"name": name})
        os.utime(tmp_path / folder / "args.json", (number, number))
    (tmp_path / "d_celeb").mkdir()
    (tmp_path / "d_celeb" / "args.json").write_text("{")
    assert [flags.newest_run(tmp_path, name).name for name in ("celeb", "x[1]")] == ["a_celeb", "c"]
    with pytest.raises(UserError, match="no run named mine"):
        flags.newest_run(tmp_path, "mine")


@pytest.mark.parametrize(
    "words", ["--seed 4294967296", "--epochs 0", "--batch_size 1", "--encoder_lr -1", "--fold x", "--loss cosine"]
)
def test_flags_out_of_range(words: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(words.split())
    assert stop.value.code == 2
    assert words.split()[0] in capsys.readouterr().err


def test_every_training_flag_says_what_it_does() -> None:
    actions = parser()._actions
    assert len(actions) > 25
    assert all(action.help for action in actions)


@pytest.mark.parametrize("text", ["", "[]", "3", '"머리"', "{", '{"encoder_name": 1}', "null"])
def test_flags_files_of_other_forms(tmp_path: Path, text: str) -> None:
    for name, read in {"args.json": flags.read_flags, "config.json": flags.read_architecture}.items():
        (tmp_path / name).write_text(text)
        if name == "args.json" and text.startswith('{"'):
            continue
        with pytest.raises(UserError) as error:
            read(tmp_path)
        assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


# ---------------------------------------------------------------------------------------------------- scripts


@pytest.fixture
def plan_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingPlan]:
    """Let a training script parse flags; what it would train by."""

    def parsed(script: object, *words: object) -> TrainingPlan:
        seen: list[TrainingPlan] = []
        monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
        monkeypatch.setattr(fit, "train", lambda plan, open_indexes: seen.append(plan))
        script.main()
        return seen[0]

    return parsed


def test_presets_are_printed_and_flags_win(plan_of: Callable[..., TrainingPlan], capsys: pytest.CaptureFixture) -> None:
    light, heavy = (plan_of(train_korean, "--preset", name) for name in ("light", "heavy"))
    assert (light.epochs, light.augment, light.name) == (10, "light", "light")
    assert light.encoder_type == "timm-efficientnet-b0"
    assert (heavy.epochs, heavy.augment, heavy.name) == (20, "heavy", "heavy")
    mine = plan_of(train_korean, "--epochs", 3, "--preset", "heavy", "--augment", "none")
    assert (mine.epochs, mine.augment, mine.encoder_type) == (3, "none", heavy.encoder_type)
    with pytest.raises(SystemExit):
        plan_of(train_korean, "--help")
    text = " ".join(capsys.readouterr().out.split())
    for preset in train_korean.PRESETS.values():
        assert all(f"--{key} {value}" in text for key, value in preset.items())


def test_the_plan_of_each_script(plan_of: Callable[..., TrainingPlan]) -> None:
    """With the flags of its own, which `args.json` holds as well."""
    korean = plan_of(train_korean, "--filter", "age < 30", "--strict")
    assert isinstance(korean, KoreanPlan) and (korean.preset, korean.filter, korean.strict) == (None, "age < 30", True)
    assert (korean.data_dir, korean.name) == (["data/ganhackerton"], "light")
    celeb = plan_of(train_celeb)
    assert type(celeb) is TrainingPlan and (celeb.data_dir, celeb.name) == (["data/CelebAMask-HQ"], "celeb")
    assert vars(korean).keys() - vars(celeb).keys() == {"preset", "filter", "strict"}


@pytest.mark.parametrize("script", ["train_celeb.py", "train_korean.py", "evaluate.py", "export.py"])
def test_help_is_quick(script: str) -> None:
    """Torch and what needs it take seconds to import."""
    heavy = ["torch", "segmentation_models_pytorch", "timm", "albumentations", "pandas", "sklearn"]
    program = (
        "import runpy, sys\n"
        "try:\n"
        f"    runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code)\n"
        f"print([name for name in {heavy} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("usage: ") and done.stdout.splitlines()[-2:] == ["0", "[]"]


# ---------------------------------------------------------------------------------------------------- files, services


def test_a_config_gives_flags_and_the_command_line_wins(
    plan_of: Callable[..., TrainingPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "# a comment\ndata_dir: [mine, 'street:0.3']\nepochs: 7\nencoder_lr: 1e-4\napex: yes\nteacher: []\n"
        "encoder_weights: none\nname: 007\ndecoder_lr: null\ncompile: false\nimg_size: 256\n"
    )
    plan = plan_of(train_celeb, "--config", file, "--epochs", 3)
    assert (plan.data_dir, plan.epochs, plan.encoder_lr, plan.apex) == (["mine", "street:0.3"], 3, 1e-4, True)
    assert (plan.encoder_weights, plan.name, plan.decoder_lr, plan.img_size) == ("none", "007", None, [256])
    file.write_text("preset: heavy\nepochs: 5\nfilter: age < 30\nstrict: true\n")
    korean = plan_of(train_korean, "--config", file)
    assert (korean.encoder_type, korean.epochs, korean.strict) == ("se_resnext101_32x4d", 5, True)


def test_the_flags_of_a_run_are_a_config(plan_of: Callable[..., TrainingPlan], tmp_path: Path) -> None:
    first = plan_of(
        train_celeb, "--img_size", 256, 384, "--size_epochs", 3, 2, "--apex", "--teacher", "a", "--name", "x"
    )
    write_json(tmp_path / "args.json", vars(first) | {"resume": None})
    assert plan_of(train_celeb, "--config", tmp_path / "args.json") == first
    again = plan_of(train_celeb, "--config", tmp_path / "args.json", "--img_size", 64, "--epochs", 9)
    assert (again.img_size, again.size_epochs, again.epochs, again.name) == ([64], [9], 9, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "there is no flag epoch; the nearest is epochs"),
        ("lr: 3", "there is no flag lr; the nearest is"),
        ("config: other.yaml", "there is no flag config"),
        ("epochs: many", "argument --epochs: "),
        ("loss: [dice, bce]", "loss takes one value"),
        ("loss: hinge", "argument --loss: invalid choice: 'hinge'"),
        ("apex: maybe", "apex is maybe, but can be true or false"),
        ("train: {epochs: 3}", "there is no flag train"),
        ("data_dir: {a: 1}", "data_dir takes values"),
        ("- epochs", "holds no flags"),
        ("", "holds no flags"),
        ("a: [", r"cannot be read \(while parsing"),
    ],
)
def test_a_wrong_config_is_one_line(
    plan_of: Callable[..., TrainingPlan], tmp_path: Path, text: str, message: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=rf"--config .*run\.yaml: {message}") as error:
        plan_of(train_celeb, "--config", file)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"gone\.json: cannot be read"):
        plan_of(train_celeb, "--config", tmp_path / "gone.json")


def test_a_log_whose_package_is_missing_names_the_command(plan_of: Callable[..., TrainingPlan], monkeypatch) -> None:
    monkeypatch.setattr(flags.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"--log wandb: the package is not installed; pip install wandb"):
        plan_of(train_celeb, "--log", "wandb")

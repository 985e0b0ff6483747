"""The command line of `hair` and of `inference.py`: flags, exit statuses and what goes where."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import inference
from hair import UserError, cli
from hair.errors import run
from hair.results import KINDS
from tests.conftest import ROOT
from tests.pictures import GOOD, Bright, one_line, write

# `cli`, the fixture that runs a script, goes by the name of the module: the tests below have it as a parameter.
command_line = cli


@pytest.fixture
def hair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the `hair` command in an empty folder, in this process and without a network."""
    monkeypatch.setattr(command_line, "HairSegmenter", lambda **_: Bright())
    monkeypatch.chdir(tmp_path)

    def call(*flags: object) -> None:
        monkeypatch.setattr(sys, "argv", ["hair", *map(str, flags)])
        command_line.command()

    return call


# ---------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    "flags",
    [
        ["a.png", "b.png", "c.png"],
        ["--input", "a.png", "b.png", "c.png"],
        ["a.png", "--input", "b.png", "c.png"],
        ["--input", "b.png", "c.png", "--refine", "a.png"],
        ["a.png", "b.png", "--refine", "c.png"],
        ["a.png", "--save", "mask", "--input", "b.png", "c.png"],
        ["--refine", "a.png", "--input", "b.png", "--", "c.png"],
        ["a.png", "?.png", "--input", "a.png"],
    ],
)
def test_paths_and_input_mix(hair: Callable[..., None], tmp_path: Path, flags: list[str]) -> None:
    write(tmp_path, {f"{name}.png": GOOD["png.jpg"] for name in "abc"})
    hair(*flags)
    expected = {f"{name}_mask.png" for name in "abc"}
    assert {path.name for path in (tmp_path / "result").glob("*_mask.png")} == expected


def test_without_a_path_hair_shows_its_usage(hair: Callable[..., None], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        hair()
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("usage: ") and "name a photo, a folder or a video" in told
    with pytest.raises(SystemExit) as stop:
        hair("--refine", "--save", "mask")
    assert stop.value.code == 2


def test_only_with_demo_photos_is_there_a_number(hair: Callable[..., None], capsys: pytest.CaptureFixture) -> None:
    assert "--num" not in command_line.build_parser().format_help()
    assert "--num" in inference.build_parser().format_help()
    with pytest.raises(SystemExit) as stop:
        hair("--num", "1")
    assert stop.value.code == 2 and "--num" in capsys.readouterr().err


def test_inference_takes_a_demo_photo_where_none_is_named(
    hair: Callable[..., None], tmp_path: Path, monkeypatch
) -> None:
    for flags, stem in (([], "1"), (["--num", "2"], "2"), (["--num", "2", "mine.png"], "mine")):
        write(tmp_path, {"mine.png": GOOD["png.jpg"]})
        monkeypatch.setattr(sys, "argv", ["inference.py", *flags, "--output_dir", stem])
        inference.main()
        assert sorted(path.name for path in (tmp_path / stem).iterdir()) == [f"{stem}_mask.png", f"{stem}_overlay.png"]


def test_both_commands_have_the_same_flags() -> None:
    ours, theirs = (
        set(parser._option_string_actions) for parser in (command_line.build_parser(), inference.build_parser())
    )
    assert theirs - ours == {"--num"} and not ours - theirs


# ---------------------------------------------------------------------------------------------------- whole runs


def test_batch_goes_on_after_a_bad_file(cli, tmp_path: Path, weights: Path, head: np.ndarray) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "b.webp"):
        Image.fromarray(head).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no photo")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    kinds = ["overlay", "mask", "alpha", "recolor", "contour", "json"]
    result = cli("inference.py", "--weights", weights, "--input", folder, "--save", *kinds, "--backend", "onnx")
    assert result.returncode == 1
    assert "bad.jpg" in result.stderr and "1 of 4" in result.stderr and "Traceback" not in result.stderr
    written = sorted(path.name for path in (tmp_path / "result").iterdir())
    suffixes = [f"{kind}.{KINDS[kind]}" for kind in kinds]
    assert written == sorted(f"{stem}_{suffix}" for stem in ("a", "a-2", "b") for suffix in suffixes)
    mask = cv2.imread(str(tmp_path / "result" / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (96, 96) and set(np.unique(mask)) <= {0, 255}
    assert json.loads((tmp_path / "result" / "b_json.json").read_text())["file"] == "b.webp"
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "none.jpg"], "none.jpg: no such file"),
        (["--input", "*.jpg"], "nothing matches"),
        (["--input", ""], "--input: an empty name"),
        (["--num", "99"], "99.jpg: no such file"),
        (["--threshold", "2"], "--threshold"),
        (["--color", "loud"], "--color loud"),
        (["--color", "rgb(300,0,0)"], "--color rgb(300,0,0)"),
        (["--weights", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(cli, weights: Path, flags: list[str], message: str) -> None:
    result = cli("inference.py", *([] if "--weights" in flags else ["--weights", weights]), *flags)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "flags", [["--every", "0"], ["--smooth", "0.96"], ["--smooth", "-1"], ["--threshold", "0"], ["--threshold", "nan"]]
)
def test_numbers_out_of_range_are_one_line(hair: Callable[..., None], tmp_path: Path, flags: list[str]) -> None:
    write(tmp_path, {"a.png": GOOD["png.jpg"]})
    with pytest.raises(SystemExit) as stop:
        hair("a.png", *flags)
    one_line(stop, flags[0])
    assert not (tmp_path / "result").exists()


def test_main_is_one_line_for_a_loop(hair: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    for flags in (["--input", "a"], ["--input", "a/b.jpg"], ["--input", "a", "--output_dir", "a"]):
        with pytest.raises(SystemExit) as stop:
            hair(*flags)
        one_line(stop, "a")


def test_each_failure_has_a_line_of_its_own(hair: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path, {"a.png": GOOD["png.jpg"], "bad.jpg": b"no photo"})
    with pytest.raises(SystemExit) as stop:
        hair("a.png", "bad.jpg", "*.bmp")
    lines = stop.value.code.splitlines()
    assert [line.startswith("error: ") for line in lines] == [True] * 3
    assert "*.bmp" in lines[0] and "bad.jpg" in lines[1] and lines[2] == "error: 2 of 3 inputs failed"
    assert (tmp_path / "result" / "a_mask.png").is_file()


def test_many_photos_share_the_cores_between_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "cores", lambda: 8)
    photos = [Path(f"{number}.jpg") for number in range(command_line.MANY)]
    assert command_line.threads_for(photos) == 8 // command_line.WORKERS
    assert command_line.threads_for(photos[1:]) is None
    assert command_line.threads_for([*photos, Path("clip.mp4")]) is None


# ---------------------------------------------------------------------------------------------------- run


def test_an_error_of_the_user_is_one_line_on_standard_error(capsys: pytest.CaptureFixture) -> None:
    for error in (UserError("data: no such folder"), FileNotFoundError("data: no such folder")):

        def main(error: Exception = error) -> None:
            raise error

        with pytest.raises(SystemExit) as stop:
            run(main)
        assert stop.value.code == "error: data: no such folder"


def test_ctrl_c_is_a_word_and_status_130(capsys: pytest.CaptureFixture) -> None:
    def main() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stop:
        run(main)
    assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), KeyError("a bug")])
def test_an_error_that_no_user_can_mend_keeps_its_trace(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error), match="a bug"):
        run(main)


def test_a_closed_pipe_ends_without_a_word() -> None:
    program = "from hair.errors import run\nrun(lambda: [print('x' * 100) for _ in range(10_000)])"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


# ---------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (int, "0", "0 is out of range: it must be at least 1"),
        (int, "1.5", "invalid int value: '1.5'"),
        (float, "inf", "inf is out of range"),
        (float, "nan", "nan is out of range"),
        (float, "many", "invalid float value: 'many'"),
    ],
)
def test_a_number_is_within_its_limits(kind: type, text: str, message: str, capsys: pytest.CaptureFixture) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--flag", type=command_line.number(kind, 1))
    assert parser.parse_args(["--flag", "2"]).flag == 2
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--flag", text])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_number_between_two_limits() -> None:
    parse = command_line.number(float, 0, 1)
    assert (parse("0"), parse("1"), parse("0.5")) == (0, 1, 0.5)
    for text in ("-0.1", "1.1"):
        with pytest.raises(argparse.ArgumentTypeError, match="between 0 and 1"):
            parse(text)


def test_help_shows_each_default_once() -> None:
    parser = argparse.ArgumentParser(description="one\ntwo", formatter_class=command_line.HelpFormatter)
    for flag, default in (("--zero", 0), ("--none", None), ("--empty", []), ("--word", "auto")):
        parser.add_argument(flag, default=default, help="what it does")
    parser.add_argument("--switch", action="store_true", help="what it does")
    parser.add_argument("--said", default=3, help="what it does (default: three)")
    lines = parser.format_help().splitlines()
    assert {"one", "two"} <= set(lines)
    shown = {line.split()[0]: line.partition("what it does")[2].strip() for line in lines if "what it does" in line}
    expected = {"--zero": "(default: 0)", "--word": "(default: auto)", "--said": "(default: three)"}
    assert shown == {"--none": "", "--empty": "", "--switch": "", **expected}


def test_every_flag_says_what_it_does() -> None:
    for parser in (command_line.build_parser(), inference.build_parser()):
        assert len(parser._actions) > 15
        assert all(action.help for action in parser._actions)

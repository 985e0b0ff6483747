"""The command line of `hair` and of `inference.py`: flags, exit statuses and what goes where."""

import argparse
import io
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
from hair.colors import parse_color
from hair.dye import Dye, recolor
from hair.errors import run
from hair.photos import read_photo
from hair.results import KINDS
from tests.conftest import ROOT
from tests.pictures import GOOD, SIZE, Bright, one_line, write

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


DYED = ("--save", "mask", "recolor")


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
        [*DYED, "--color", "copper", "a.png", "b.png", "c.png"],
        ["c.png", *DYED, "--color", "copper", "blond", "a.png", "b.png"],
        [*DYED, "--color", "dark_brown", "#ff0000", "b.png", "--input", "a.png", "c.png"],
        ["--input", "a.png", "--input", "b.png", *DYED, "--color", "rgb(1,2,3)", "c.png"],
    ],
)
def test_paths_and_input_mix(hair: Callable[..., None], tmp_path: Path, flags: list[str]) -> None:
    write(tmp_path, {f"{name}.png": GOOD["png.jpg"] for name in "abc"})
    hair(*flags)
    expected = {f"{name}_mask.png" for name in "abc"}
    assert {path.name for path in (tmp_path / "result").glob("*_mask.png")} == expected


@pytest.mark.parametrize(
    ("flags", "colors"),
    [
        ((), ["auburn"]),
        (("--color", "copper"), ["copper"]),
        (("--color", "copper", "blond"), ["copper", "blond"]),
        (("--color", "copper", "#c0a27a", "red.png"), ["copper", "blond"]),
    ],
)
def test_colors_end_where_a_photo_begins(
    hair: Callable[..., None], tmp_path: Path, flags: tuple[str, ...], colors: list[str]
) -> None:
    write(tmp_path, {f"{name}.png": GOOD["png.jpg"] for name in ("me", "red")})
    hair("me.png", "--save", "recolor", *flags)
    photo = read_photo(tmp_path / "me.png")
    expected = recolor(photo, Bright()(photo), 0.5, Dye(tuple(map(parse_color, colors))))
    names = {path.name for path in (tmp_path / "result").iterdir()}
    assert names == {"me_recolor.png"} | ({"red_recolor.png"} if "red.png" in flags else set())
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "result" / "me_recolor.png")), expected)


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
        (["--color", "copper"], "--color is for dyed hair; add --save recolor"),
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


# ---------------------------------------------------------------------------------------------------- results


@pytest.fixture
def holiday(tmp_path: Path) -> Path:
    """Photos of one name in several folders, as phones and cameras make them."""
    for folder in ("a", "b", "b/c"):
        write(tmp_path / "holiday" / folder, {"IMG_0001.jpg": GOOD["머리 사진 1.jpg"]})
    write(tmp_path / "holiday", {"IMG_0001.jpg": GOOD["머리 사진 1.jpg"]})
    return tmp_path / "holiday"


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_recursive_keeps_folders(hair: Callable[..., None], holiday: Path, tmp_path: Path) -> None:
    hair("holiday", "--recursive", "--save", "overlay")
    expected = ["IMG_0001", "a/IMG_0001", "b/IMG_0001", "b/c/IMG_0001"]
    assert files_in(tmp_path / "result") == sorted(f"{name}_overlay.png" for name in expected)
    hair("holiday/b", "holiday/a/IMG_0001.jpg", "--recursive", "--save", "mask", "--output_dir", "named")
    names = ["IMG_0001", "IMG_0001-2", "c/IMG_0001"]
    assert files_in(tmp_path / "named") == sorted(f"{name}_mask.png" for name in names)
    hair("holiday/*", "--recursive", "--save", "mask", "--output_dir", "glob")
    assert files_in(tmp_path / "glob") == sorted(f"{name}_mask.png" for name in expected)


def test_without_recursive_equal_names_get_numbers(hair: Callable[..., None], holiday: Path, tmp_path: Path) -> None:
    hair("holiday/a", "holiday/b", "--save", "mask")
    assert files_in(tmp_path / "result") == ["IMG_0001-2_mask.png", "IMG_0001_mask.png"]


def test_recursive_into_the_folder_itself(hair: Callable[..., None], holiday: Path) -> None:
    before = files_in(holiday)
    for _ in range(2):
        hair("holiday", "--recursive", "--save", "mask", "--output_dir", "holiday", "--skip_existing")
        results = [name.replace(".jpg", "_mask.png") for name in before]
        assert files_in(holiday) == sorted(before + results)


@pytest.mark.parametrize(
    "flags",
    [
        ["holiday", "--recursive"],
        ["holiday/a", "holiday/b"],
        ["holiday/a", "holiday/b", "--output_dir", "holiday/b"],
        ["holiday/b/IMG_0001.jpg", "holiday/a/IMG_0001.jpg", "--format", "jpg"],
        ["holiday", "--recursive", "--format", "webp", "--save", "alpha", "recolor", "contour", "json"],
        ["holiday", "--recursive", "--format", "jpg", "--save", "alpha", "recolor", "rle"],
    ],
)
def test_a_second_run_skips_what_is_there(
    hair: Callable[..., None], holiday: Path, monkeypatch: pytest.MonkeyPatch, capsys, flags: list[str]
) -> None:
    hair(*flags, "--skip_existing")
    first = {path: path.stat().st_mtime_ns for path in holiday.parent.rglob("*") if path.is_file()}
    count = len(capsys.readouterr().out.splitlines())
    monkeypatch.setattr(command_line, "HairSegmenter", lambda **_: pytest.fail("nothing is left to do"))
    hair(*flags, "--skip_existing")
    assert {path: path.stat().st_mtime_ns for path in holiday.parent.rglob("*") if path.is_file()} == first
    assert capsys.readouterr().out == f"{count} of {count} inputs skipped: their results exist\n"


def test_a_second_run_skips_videos(hair: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    clip = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, SIZE[::-1])
    for _ in range(3):
        clip.write(np.full((*SIZE, 3), 200, np.uint8))
    clip.release()
    write(tmp_path, {"clip.jpg": GOOD["png.jpg"]})
    for flags in (["--save", "overlay", "mask"], ["--save", "mask", "json"]):
        hair("clip.avi", "clip.jpg", *flags)
        capsys.readouterr()
        hair("clip.avi", "clip.jpg", *flags, "--skip_existing")
        assert capsys.readouterr().out == "2 of 2 inputs skipped: their results exist\n"
    hair("clip.avi", "--save", "recolor", "--skip_existing")
    assert (tmp_path / "result" / "clip_recolor.mp4").is_file()


def test_only_what_is_missing_is_made_and_under_its_own_number(
    hair: Callable[..., None], holiday: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folders = ["holiday/a", "holiday/b", "holiday/b/c"]
    hair(*folders)
    result = tmp_path / "result"
    (result / "IMG_0001-2_mask.png").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in result.iterdir()}
    capsys.readouterr()
    hair(*folders, "--skip_existing")
    skipped, line = capsys.readouterr().out.splitlines()
    assert skipped.startswith("2 of 3 inputs skipped") and line.startswith("holiday/b/IMG_0001.jpg: ")
    after = {path.name: path.stat().st_mtime_ns for path in result.iterdir()}
    assert set(after) == {*before, "IMG_0001-2_mask.png"}
    assert {name for name in before if before[name] != after[name]} == {"IMG_0001-2_overlay.png"}


def test_another_format_or_kind_is_not_skipped(hair: Callable[..., None], holiday: Path, tmp_path: Path) -> None:
    hair("holiday/a", "--save", "overlay")
    hair("holiday/a", "--save", "overlay", "recolor", "--format", "jpg", "--skip_existing")
    hair("holiday/a", "--save", "overlay", "json", "--skip_existing")
    names = ["overlay.png", "overlay.jpg", "recolor.jpg", "json.json"]
    assert files_in(tmp_path / "result") == sorted(f"IMG_0001_{name}" for name in names)


@pytest.mark.parametrize("folder", ["me.png", "me.png/found"])
def test_a_file_in_place_of_the_output_folder_is_one_line(
    hair: Callable[..., None], tmp_path: Path, folder: str
) -> None:
    write(tmp_path, {"me.png": GOOD["png.jpg"]})
    with pytest.raises(SystemExit) as stop:
        hair("me.png", "--output_dir", folder)
    one_line(stop, f"--output_dir {folder}: a file is in the way")


def test_mistakes_are_reported_though_all_else_is_skipped(hair: Callable[..., None], holiday: Path) -> None:
    hair("holiday/a")
    with pytest.raises(SystemExit) as stop:
        hair("holiday/a", "none.jpg", "*.bmp", "--skip_existing")
    assert [line.partition(": ")[0] for line in stop.value.code.splitlines()] == ["error"] * 3
    assert "none.jpg: no such file" in stop.value.code and "2 of 3 inputs failed" in stop.value.code


def test_a_photo_called_like_a_result_is_not_skipped_where_it_is_named(
    hair: Callable[..., None], tmp_path: Path
) -> None:
    write(tmp_path, {"me.jpg": GOOD["png.jpg"], "me_mask.png": GOOD["png.jpg"]})
    hair("me.jpg", "me_mask.png", "--output_dir", ".", "--save", "mask", "--skip_existing")
    assert files_in(tmp_path) == ["me-2_mask.png", "me.jpg", "me_mask.png", "me_mask_mask.png"]


# ---------------------------------------------------------------------------------------------------- pipes


@pytest.fixture
def piped(tmp_path: Path, weights: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run the command in a process of its own, with bytes for its standard input and from its standard output."""

    def call(*flags: object, data: bytes = b"") -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / "inference.py"), "--weights", str(weights), "--backend", "onnx"]
        command += map(str, flags)
        return subprocess.run(command, cwd=tmp_path, input=data, capture_output=True, timeout=300)

    return call


def test_pipes(piped, tmp_path: Path) -> None:
    done = piped("-", "--save", "alpha", "--output", "-", data=GOOD["turned 6 RGB.jpg"])
    picture = Image.open(io.BytesIO(done.stdout))
    assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", SIZE[::-1])
    assert done.returncode == 0 and list(tmp_path.glob("result*")) == []
    assert done.stderr.decode().startswith("-: ") and done.stderr.decode().endswith(" hair -> standard output\n")


@pytest.fixture
def stdin_stdout(hair: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capfdbinary) -> Callable[..., tuple]:
    """As `piped`, in this process and by `Bright`: (what went to standard output, standard error as text)."""

    def call(*flags: object, data: bytes = b"") -> tuple[bytes, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        hair(*flags)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return out, err.decode()

    return call


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_goes_to_standard_output(stdin_stdout, tmp_path: Path, kind: str) -> None:
    for name in ("png", "jpg", "webp"):
        flags = ("--save", kind, "--format", name)
        out, err = stdin_stdout("--input", "-", *flags, "--output", "-", data=GOOD["png.jpg"])
        assert not (tmp_path / "result").exists()
        assert len(err.splitlines()) == 1 and err.startswith("-: ")
        line, _ = stdin_stdout("-", *flags, "--output_dir", "files", data=GOOD["png.jpg"])
        file = Path(line.decode().split(" -> ")[1].strip())
        assert file.name.startswith(f"stdin_{kind}.") and line.decode().startswith("-: ")
        assert out == (tmp_path / file).read_bytes()
        if kind in ("contour", "rle", "json"):
            facts = json.loads(out)
            assert (facts if kind == "json" else facts["images"][0])["width"] == SIZE[1]
        else:
            assert Image.open(io.BytesIO(out)).size == SIZE[::-1] or kind == "palette"


def test_a_file_goes_to_standard_output_too(stdin_stdout, tmp_path: Path) -> None:
    write(tmp_path, {"me.png": GOOD["png.jpg"]})
    out, err = stdin_stdout("me.png", "--save", "overlay", "--output", "-", "--format", "jpg", "--skip_existing")
    assert Image.open(io.BytesIO(out)).format == "JPEG" and err.startswith("me.png: ")


def test_standard_input_beside_files(stdin_stdout, tmp_path: Path) -> None:
    write(tmp_path, {"me.png": GOOD["png.jpg"]})
    for _ in range(2):  # another photo may come in the second time
        out, _ = stdin_stdout("me.png", "-", "--save", "mask", "json", "--skip_existing", data=GOOD["png.jpg"])
        assert b"-: " in out
    assert files_in(tmp_path / "result") == [f"{stem}_{end}" for stem in ("me", "stdin") for end in ENDS]
    assert json.loads((tmp_path / "result" / "stdin_json.json").read_text())["file"] == "stdin"


ENDS = ("json.json", "mask.png")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-", "--output", "-"], "--output - takes one kind"),
        (["-", "--output", "-", "--save", "mask", "json"], "--output - takes one kind"),
        (["-", "a.png", "--output", "-", "--save", "mask"], "takes one photo, but 2 inputs are given"),
        (["a.png", "none*.jpg", "--output", "-", "--save", "mask"], "takes one photo, but 2 inputs are given"),
        ([".", "--output", "-", "--save", "mask"], "takes one photo, but 2 inputs are given"),
        (["clip.mp4", "--output", "-", "--save", "mask"], "clip.mp4 is a video"),
        (["0", "--output", "-", "--save", "mask"], "0 is a video"),
        (["a.png", "--output", "found", "--save", "mask"], "--output found: only - is allowed"),
        (["none.jpg", "--output", "-", "--save", "mask"], "none.jpg: no such file"),
        (["-", "--output", "-", "--save", "mask"], "error: -: cannot be read as a photo"),
        (["-"], "error: -: cannot be read as a photo"),
    ],
)
def test_mistakes_with_pipes_are_one_line(stdin_stdout, tmp_path: Path, capfdbinary, flags, message: str) -> None:
    write(tmp_path, {"a.png": GOOD["png.jpg"], "b.png": GOOD["png.jpg"]})
    for data in (b"", b"no photo", GOOD["png.jpg"][:60]) if flags[0] == "-" else (b"",):
        with pytest.raises(SystemExit) as stop:
            stdin_stdout(*flags, data=data)
        one_line(stop, message)
        sys.stdout.flush()
        assert capfdbinary.readouterr() == (b"", b"")


class Terminal(io.TextIOWrapper):
    """A terminal in the place of standard input or output."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_no_place_for_pictures(hair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"a.png": GOOD["png.jpg"]})
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    for flags, message in (
        (("a.png", "--save", "mask", "--output", "-"), "standard output is the terminal"),
        (("-", "--save", "json"), "standard input, which is the terminal"),
    ):
        with pytest.raises(SystemExit) as stop:
            hair(*flags)
        one_line(stop, message)
    hair("a.png", "--save", "json", "--output", "-")
    assert json.loads(sys.stdout.buffer.getvalue())["file"] == "a.png", "text is for a terminal, too"


def test_standard_input_has_an_end(stdin_stdout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hair.results.LONGEST_INPUT", 100)
    with pytest.raises(SystemExit) as stop:
        stdin_stdout("-", "--save", "json", "--output", "-", data=GOOD["png.jpg"])
    one_line(stop, "-: more than")


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

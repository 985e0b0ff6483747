"""Every file is in exactly one share, which depends on its name alone; a cut-off run of a share goes on."""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hair import cli
from hair.errors import UserError
from hair.shards import Shard, parse_shard
from tests.pictures import GOOD, Bright, write

NAMES = [Path("a", f"{number}.jpg") for number in range(1000)] + [Path("머리.jpg"), Path("a b.jpg")]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_name_is_in_one_share(count: int) -> None:
    shares = [[name for name in NAMES if Shard(number, count).has(name)] for number in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert all(0.7 < len(share) * count / len(NAMES) < 1.3 for share in shares)


def test_a_share_is_the_same_everywhere_and_for_ever() -> None:
    """Changing it would repeat photos in a folder that is half done."""
    assert [name.stem for name in NAMES[:12] if Shard(2, 3).has(name)] == ["7", "8", "10"]
    composed, decomposed = Path("\uba38\ub9ac.jpg"), Path("\u1106\u1165\u1105\u1175.jpg")
    assert Shard(1, 2).has(composed) == Shard(1, 2).has(decomposed)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/", "/2", "-1/2", "a/b", "1/0", "1.5/2", "1/2/3"])
def test_a_wrong_share_is_told(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="is not K/N"):
        parse_shard(text)


@pytest.fixture
def hair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the command in a folder with photos in `holiday`."""
    monkeypatch.setattr("hair.cli.HairSegmenter", lambda **_: Bright())
    monkeypatch.chdir(tmp_path)
    for folder in ("holiday", "holiday/a", "holiday/b"):
        write(Path(folder), {f"{number}.jpg": GOOD["png.jpg"] for number in range(6)})

    def run(*flags: str) -> None:
        monkeypatch.setattr(sys, "argv", ["hair", *flags])
        cli.main()

    return run


def results(folder: str = "result") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*_mask*"))


def test_shares_together_do_what_one_run_does(hair, capsys: pytest.CaptureFixture) -> None:
    for flags in (["holiday/a", "holiday/b"], ["holiday", "--recursive"]):
        hair(*flags, "--save", "mask", "--output_dir", "whole")
        made = []
        for number in (1, 2, 3):
            hair(*flags, "--save", "mask", "--shard", f"{number}/3", "--output_dir", f"part{number}")
            assert f"share {number}/3: " in capsys.readouterr().out
            made += results(f"part{number}")
        assert sorted(made) == results("whole")
        for folder in ("whole", "part1", "part2", "part3"):
            shutil.rmtree(folder, ignore_errors=True)


def test_a_share_is_the_same_wherever_the_folder_lies(hair) -> None:
    hair("holiday", "--recursive", "--save", "mask", "--shard", "1/2")
    first = results()
    shutil.rmtree("result")
    Path("disk").mkdir()
    Path("holiday").rename("disk/photos")
    hair(str(Path("disk/photos").resolve()), "--recursive", "--save", "mask", "--shard", "1/2")
    assert results() == first and 0 < len(first) < 18


def test_a_share_goes_on_where_it_was_cut_off(hair, capsys: pytest.CaptureFixture) -> None:
    flags = ["holiday", "--recursive", "--save", "mask", "--shard", "1/2", "--skip_existing"]
    hair(*flags)
    everything = results()
    kept = Path("result", everything[1])
    kept.unlink()
    before = {name: Path("result", name).stat().st_mtime_ns for name in results()}
    capsys.readouterr()
    hair(*flags)
    assert results() == everything
    assert {name: Path("result", name).stat().st_mtime_ns for name in before} == before
    assert f"{len(before)} of {len(everything)} inputs skipped" in capsys.readouterr().out


def test_results_of_other_shares_beside_the_photos_are_not_inputs(hair) -> None:
    for number in (1, 2):
        hair("holiday/a", "--save", "mask", "--shard", f"{number}/2", "--output_dir", "holiday/a")
    assert results("holiday/a") == [f"{number}_mask.png" for number in range(6)]


def test_an_empty_share_is_no_error(hair, capsys: pytest.CaptureFixture) -> None:
    hair("holiday/a/1.jpg", "--shard", "1/100")
    hair("holiday/a/1.jpg", "--shard", "2/100")
    assert "share 1/100: 0 of 1 inputs" in capsys.readouterr().out and not Path("result").exists()
    with pytest.raises(UserError, match="--output - takes one"):
        hair("holiday/a/1.jpg", "--shard", "1/2", "--output", "-")

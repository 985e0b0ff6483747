"""All files are checked before a training, and what was complete is not read again until it changes."""

import os
from pathlib import Path

import numpy as np
import pytest

from hair.errors import UserError
from tests.pictures import write_picture
from training import checks
from training.folders import open_folder

ROWS = range(10)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files that are read."""
    names: list[str] = []
    check_picture = checks.check_picture

    def recorded(path: Path) -> tuple[int, int]:
        names.append(f"{path.parent.name}/{path.name}")
        return check_picture(path)

    monkeypatch.setattr(checks, "check_picture", recorded)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    return names


def memory(folder: Path) -> Path:
    return checks._memory(folder)


def test_complete_files_are_read_once_and_changed_ones_again(pairs: Path, read: list[str]) -> None:
    index = open_folder(pairs)
    checks.check_rows(index, ROWS)
    assert len(read) == 20 and not any(memory(pairs).is_relative_to(folder) for folder in (pairs, Path.cwd()))
    read.clear()
    checks.check_rows(index, ROWS)
    assert not read
    photo = pairs / "image" / "3.png"
    times = photo.stat().st_atime_ns, photo.stat().st_mtime_ns
    write_picture(photo, np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
    os.utime(photo, ns=times)  # another size, the same time
    os.utime(pairs / "mask" / "4.png", ns=(0, 0))  # another time, the same size
    checks.check_rows(index, ROWS)
    assert read == ["image/3.png", "mask/4.png"]
    read.clear()
    checks.check_rows(index, ROWS)
    assert not read


def test_a_file_that_breaks_later_is_found(pairs: Path, read: list[str]) -> None:
    index = open_folder(pairs)
    checks.check_rows(index, ROWS)
    photo = pairs / "image" / "7.png"
    photo.write_bytes(photo.read_bytes()[:40])
    read.clear()
    for _ in range(2):  # what is broken is not remembered
        with pytest.raises(UserError, match=r"7\.png"):
            checks.check_rows(index, ROWS)
    assert read == ["image/7.png"] * 2
    write_picture(pairs / "image" / "2.png", np.zeros((64, 64, 3), np.uint8))
    for _ in range(2):  # complete, but no photo of its mask
        with pytest.raises(UserError, match=r"2\.png: the mask is 64×48, but its photo is 64×64"):
            checks.check_rows(index, ROWS)
    (pairs / "mask" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png: no such file"):
        checks.check_rows(index, ROWS)


def test_part_of_a_data_set_keeps_what_is_known_of_the_rest(pairs: Path, read: list[str]) -> None:
    index = open_folder(pairs)
    for rows, count in ((range(6), 12), (range(4, 10), 8), (ROWS, 0)):
        checks.check_rows(index, rows)
        assert len(read) == count
        read.clear()


def test_data_sets_have_memories_of_their_own(pairs: Path, celeb: Path, read: list[str]) -> None:
    for folder, count in ((pairs, 20), (celeb, 20), (pairs, 0), (celeb, 0)):
        checks.check_rows(open_folder(folder), ROWS)
        assert len(read) == count, folder
        read.clear()


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "text", "a folder"])
def test_a_damaged_memory_is_ignored(pairs: Path, read: list[str], damage: str) -> None:
    index = open_folder(pairs)
    checks.check_rows(index, ROWS)
    path = memory(pairs)
    whole = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    else:
        wrong = {
            "empty": b"",
            "cut": whole[:-100],
            "changed": whole[:-1] + bytes([whole[-1] ^ 1]),
            "text": b"no memory",
        }
        path.write_bytes(wrong[damage])
    read.clear()
    checks.check_rows(index, ROWS)
    assert len(read) == 20


def test_without_a_place_for_the_memory_everything_is_checked(
    pairs: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(pairs / "image" / "0.png"))
    for _ in range(2):
        checks.check_rows(open_folder(pairs), ROWS)
    assert len(read) == 40


def test_memories_that_nobody_uses_are_deleted(pairs: Path, read: list[str]) -> None:
    folder = checks.user_cache() / "checked"
    folder.mkdir(parents=True)
    for name, age in (("old", 1.1), ("young", 0.9)):
        (folder / name).touch()
        then = (folder / name).stat().st_mtime - age * checks.KEPT
        os.utime(folder / name, (then, then))
    checks.check_rows(open_folder(pairs), ROWS)
    assert {path.name for path in folder.iterdir()} == {"young", memory(pairs).name}


def test_processes_find_the_first_broken_file(pairs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checks, "PARALLEL_FROM", 1)
    monkeypatch.setattr(checks, "CHUNK", 2)
    index = open_folder(pairs)
    checks.check_rows(index, ROWS)
    whole = memory(pairs).read_bytes()
    assert len(whole) == checks.DIGEST + 20 * checks.SEEN.itemsize
    memory(pairs).unlink()
    for number in (5, 8):
        (pairs / "image" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"5\.png") as error:
        checks.check_rows(index, ROWS)
    assert "\n" not in str(error.value)
    assert len(checks._read(memory(pairs))) >= 8, "what came before it is remembered"

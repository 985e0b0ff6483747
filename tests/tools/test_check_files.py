"""What must not be committed is refused."""

import sys

import pytest

from tools import check_files


def check(monkeypatch, *names: str) -> list[str]:
    """What the script says of files."""
    monkeypatch.setattr(sys, "argv", ["check_files", *names])
    try:
        check_files.main()
    except SystemExit as stop:
        return stop.code.splitlines()
    return []


def test_photos_and_large_notebooks_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large.ipynb").write_bytes(b" " * check_files.MAX_NOTEBOOK)
    (tmp_path / "small.ipynb").write_bytes(b" ")
    assert not check(monkeypatch, "demo/1.jpg", "small.ipynb", "render.py")
    named = ["data/mine/1.JPG", "large.ipynb", "mask.png"]
    said = check(monkeypatch, *named, "demo/2.jpg")
    assert [line.partition(":")[0] for line in said] == named


@pytest.mark.parametrize("name", ["demo.jpg", "docs/demo/1.jpg"])
def test_demo_photos_lie_in_the_folder_demo_at_the_top(name, monkeypatch):
    assert check(monkeypatch, name)

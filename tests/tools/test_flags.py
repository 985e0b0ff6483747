"""Tables of flags are compared and renewed; whether those of docs/ are up to date is tested in test_docs.py."""

import sys
from pathlib import Path

import pytest

from tools import flags


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A page that is up to date and one that is not."""
    text = flags.update(flags.PAGES[0].read_text(encoding="utf-8"))
    paths = [tmp_path / "new.md", tmp_path / "old.md"]
    paths[0].write_text(text, encoding="utf-8")
    paths[1].write_text(text.replace("| `--epochs` | `20` |", "| `--epochs` | `21` |"), encoding="utf-8")
    monkeypatch.setattr(flags, "PAGES", paths)
    return paths


def test_a_page_that_is_out_of_date_is_named(pages, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flags"])
    with pytest.raises(SystemExit) as stop:
        flags.main()
    assert stop.value.code == "out of date: old.md; python -m tools.flags --write"


def test_pages_are_updated_once(pages, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["flags", "--write"])
    flags.main()
    assert capsys.readouterr().out == "updated: old.md\n"
    assert pages[0].read_bytes() == pages[1].read_bytes()
    flags.main()
    assert not capsys.readouterr().out


def test_korean_flags_are_those_that_differ():
    table = flags.table("train_korean.py")
    assert "`--preset`" in table and "`--data_dir DIR …`" in table
    assert "--epochs`" not in table and "--encoder_lr`" not in table
    assert "`light`: `--name light --epochs 10" in table

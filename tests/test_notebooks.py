"""Both notebooks run from top to bottom on drawn data, and hold nothing that must not be published."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT
from tools.check_files import MAX_NOTEBOOK

NOTEBOOKS = ["preprocess-CelebAMask-HQ.ipynb", "visualization.ipynb"]


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch):
    """Run a notebook with folders in environment variables; returns its cells. A failing cell raises."""

    def run(name: str, **folders: Path) -> list:
        for variable in ("CELEB_DIR", "OUTPUT_DIR", "KOREAN_DIR"):
            monkeypatch.setenv(variable, str(folders.get(variable, "missing")))
        notebook = nbformat.read(ROOT / name, as_version=4)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
        return notebook.cells

    return run


def printed(cells: list) -> str:
    """All text of the outputs."""
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures(cells: list) -> int:
    """Number of figures in the outputs."""
    return sum("image/jpeg" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def test_preprocess_makes_pairs_and_a_table(celeb, tmp_path, execute):
    text = printed(execute("preprocess-CelebAMask-HQ.ipynb", CELEB_DIR=celeb, OUTPUT_DIR=tmp_path))
    assert re.search(r"^hair +36$", text, re.M) and re.search(r"^no hair, left out +4$", text, re.M)
    assert re.search(r"^all +40$", text, re.M) and "reads 36 photos" in text
    photos, masks = ({path.stem for path in (tmp_path / part).iterdir()} for part in ("image", "mask"))
    assert photos == masks and len(photos) == 36


def test_visualization_draws_both_data_sets(celeb, korean, tmp_path, execute):
    copy = shutil.copytree(korean, tmp_path / "korean", ignore=shutil.ignore_patterns("hair_index"))
    cells = execute("visualization.ipynb", CELEB_DIR=celeb, KOREAN_DIR=copy)
    text = printed(cells)
    assert pictures(cells) == 9
    assert re.search(r"^CelebAMask-HQ +36 +36$", text, re.M) and re.search(r"^Korean +36 +36$", text, re.M)
    assert "leaves the frame" in text and "Glyph" not in text  # matplotlib warns of letters that a font lacks


def test_visualization_draws_one_data_set_alone(celeb, execute):
    cells = execute("visualization.ipynb", CELEB_DIR=celeb)
    assert pictures(cells) == 4 and "leaves the frame" not in printed(cells)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_of_drawn_data(name):
    """Small, complete, without error, warning or a path of somebody's machine."""
    file = ROOT / name
    cells = nbformat.read(file, as_version=4).cells
    assert file.stat().st_size < MAX_NOTEBOOK
    assert all(output.output_type != "error" for cell in cells for output in cell.get("outputs", []))
    text = printed(cells)
    assert re.search(r"\b36\b", text)  # drawn photos with hair
    assert not re.search(r"(^|[\s'\"])(/|~|\w:\\)", text) and "Warning" not in text

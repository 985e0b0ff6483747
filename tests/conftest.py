"""Drawn data in all layouts; `cli` runs a script as a user would."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.pictures import write_picture
from tools.make_sample import make_celeb, make_korean

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder for caches that is not the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def celeb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CelebAMask-HQ's raw layout: 40 photos of 128 px, masks of 64 px, 4 heads bald."""
    root = tmp_path_factory.mktemp("celeb")
    make_celeb(root)
    return root


@pytest.fixture(scope="session")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Korean layout: 12 people with 3 photos each of 128 px."""
    root = tmp_path_factory.mktemp("korean")
    make_korean(root)
    return root


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A folder with image/ and mask/: 10 photos of 64×48, left half hair."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255
    for number in range(10):
        write_picture(tmp_path / "image" / f"{number}.png", np.full((48, 64, 3), 20 * number, np.uint8))
        write_picture(tmp_path / "mask" / f"{number}.png", mask)
    return tmp_path


@pytest.fixture
def cli(tmp_path: Path):
    """Run `python script flags…` in an empty folder."""

    def run(script: str, *flags: object) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / script), *map(str, flags)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that anyone may enter; meanwhile this process, if it is root's, may become a user without rights."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    was = os.geteuid()
    try:
        yield folder
    finally:
        os.seteuid(was)
        shutil.rmtree(folder)

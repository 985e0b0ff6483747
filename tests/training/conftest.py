"""Photos for the tests of the package `training`."""

from pathlib import Path

import pytest

from dataset import PhotoSet, open_folder, split


@pytest.fixture
def photos(celeb: Path) -> tuple[PhotoSet, PhotoSet]:
    """Sixteen drawn heads to train on and four to validate on."""
    return split([open_folder(celeb)], 0, 5, 20)

"""What the wheel holds besides code is where the installed package looks for it; `.ci/run` checks a wheel itself."""

import tomllib
from pathlib import Path

from hair import store
from tests.conftest import ROOT
from tools import check_wheel

BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
INCLUDED = BUILD["wheel"]["force-include"]  # path in the checkout to path in the wheel


def test_the_default_weights_lie_where_the_installed_package_looks():
    expected = store.INSTALLED_WEIGHTS.relative_to(store.PACKAGE.parent)
    assert {Path(target).parent for target in INCLUDED.values()} == {expected}
    assert {(ROOT / source).parent for source in INCLUDED} == {store.DEFAULT_WEIGHTS}
    assert {Path(target).name for target in INCLUDED.values()} == {"model.onnx", "README.md"}


def test_included_files_exist_and_are_in_the_source_archive_too():
    for source, target in INCLUDED.items():
        assert (ROOT / source).is_file() and Path(source).name == Path(target).name
        assert f"/{source}" in BUILD["sdist"]["include"]
    assert all((ROOT / name.removeprefix("/")).exists() for name in BUILD["sdist"]["include"])


def test_the_check_asks_for_them():
    assert set(INCLUDED.values()) <= set(check_wheel.NEEDED)
    size = sum((ROOT / source).stat().st_size for source in INCLUDED)
    assert size < check_wheel.MOST_BYTES

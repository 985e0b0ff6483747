"""Masks made on a Ray cluster are those of HairSegmenter."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hair import HairSegmenter, read_photo
from hair.errors import UserError
from hair.outlines import run_lengths
from tests.conftest import ROOT
from tests.pictures import write_picture
from tools import ray_segment
from tools.make_sample import draw_head


@pytest.mark.slow
def test_two_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    rng = np.random.default_rng(0)
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for number in range(40):
        folder = tmp_path / "photos" / ("deep" if number % 2 else ".")
        write_picture(folder / f"{number}.png", draw_head(rng, 64 + number)[0])
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"not a photo")
    command = [sys.executable, "-m", "tools.ray_segment", str(tmp_path / "photos"), str(tmp_path / "masks")]
    env = os.environ | {"RAY_ADDRESS": "local", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run([*command, "--workers", "2"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "41 photos, 1 of them could not be read" in result.stdout
    rows = parquet.read_table(tmp_path / "masks").to_pylist()
    assert len({row["path"] for row in rows}) == len(rows) == 41
    segment = HairSegmenter(threads=1)
    for row in rows:
        if Path(row["path"]).name == "broken.jpg":
            assert row["error"].startswith(row["path"]) and not row["counts"]
            continue
        mask = segment(read_photo(row["path"])) >= segment.threshold
        assert {"size": [row["height"], row["width"]], "counts": row["counts"]} == run_lengths(mask)
        assert not row["error"]


def test_mistakes_are_found_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "photos" / "1.png", np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr(sys, "argv", ["ray_segment", str(tmp_path / "photos"), str(tmp_path)])
    with pytest.raises(UserError, match="already has files"):
        ray_segment.main()
    monkeypatch.setattr(sys, "argv", ["ray_segment", str(tmp_path / "photos"), str(tmp_path / "masks")])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        ray_segment.main()

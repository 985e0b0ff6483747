"""A run from its start to its end, on one fold and on all."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dataset import PhotoSet, open_folder
from hair.errors import UserError
from tests.pictures import write
from tests.scripts import TINY, run
from tests.training.hooks import break_after_check
from tests.training.states import make_plan
from training import fit


def test_networks_that_cannot_be_are_refused_before_photos_are_read() -> None:
    plan = make_plan("--encoder_type", "tu-hrnet_w18_small", "--decoder_type", "DeepLabV3Plus")
    with pytest.raises(UserError, match="do not go together"):
        fit.train(plan, lambda: pytest.fail("photos are read"))


def test_early_stopping() -> None:
    plan = make_plan("--img_size", 64, 96, "--size_epochs", 3, 9, "--patience", 2)
    dice = [0.9, 0.8, 0.8, 0.5, 0.6, 0.6, 0.5]
    history = [{"epoch": i + 1, "img_size": 64 if i < 3 else 96, "valid_dice": d} for i, d in enumerate(dice)]
    ends = [fit.is_finished(plan, SimpleNamespace(epoch=n, history=history[:n])) for n in range(8)]
    assert ends == [False] * 7 + [True], "only at the last size, two epochs after its best"
    again = [*history, {"epoch": 8, "img_size": 64, "valid_dice": 0.7}]
    assert [fit.best_row(rows)["epoch"] for rows in (history[:3], history, again)] == [1, 5, 8]


def test_all_folds(celeb: Path, tmp_path: Path) -> None:
    flags = ["--data_dir", celeb, "--fold", "all", "--n_folds", 2, "--epochs", 1]
    assert run(tmp_path, *TINY, *flags) == 0, (tmp_path / "out.txt").read_text()
    folder = next((tmp_path / "weights").iterdir())
    table = pd.read_csv(folder / "folds.csv", index_col="fold")
    logs = [pd.read_csv(folder / f"{folder.name.replace('celeb', f'fold{k}')}" / "log.csv") for k in range(2)]
    dice = [log["valid_dice"][0] for log in logs]
    assert table["valid_dice"].tolist() == pytest.approx([*dice, sum(dice) / 2, abs(dice[0] - dice[1]) / 2**0.5])
    assert dice[0] != dice[1]
    before = (folder / "folds.csv").read_bytes()
    assert run(tmp_path, "--resume") == 0
    assert (tmp_path / "out.txt").read_text().count("nothing to do") == 2
    assert (folder / "folds.csv").read_bytes() == before


def test_the_second_run_changes_nothing(
    celeb: Path, tmp_path: Path, photos: tuple[PhotoSet, PhotoSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are started on the same new folder, and the other one is faster while this one builds its network."""
    plan = make_plan(*TINY, "--data_dir", celeb, "--output_dir", tmp_path)
    folder, build = fit.run_folder(plan, plan.name), fit.build_state

    def slow(*given: object) -> tuple:
        write(folder, {"args.json": b"the other's"})
        return build(*given)

    monkeypatch.setattr(fit, "build_state", slow)
    with pytest.raises(UserError, match="already contains a run"):
        fit.fit(plan, folder, *photos)
    assert list(tmp_path.iterdir()) == [folder]
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("args.json", b"the other's")]


def test_a_photo_that_breaks_in_training_is_one_line(pairs: Path) -> None:
    """In a process that loads photos, whose error PyTorch passes on with its trace."""
    index = open_folder(pairs)
    photo = index.photo(index.split(0, 5)["train"][0])
    flags = ["--data_dir", pairs, "--limit", 10, "--num_workers", 2]
    assert run(pairs, *TINY, *flags, hook=partial(break_after_check, photo)) == 1
    out = (pairs / "out.txt").read_text()
    assert "Traceback" not in out and "worker process" not in out
    last = out.splitlines()[-1].rpartition("\r")[2]
    assert last.startswith(f"error: {photo}: cannot be read as a photo")

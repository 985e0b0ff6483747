"""Which photos of which data sets a run takes: weights, and photos that are left out."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dataset
from hair.errors import UserError
from tests.scripts import RUN, TINY, run
from tests.training.hooks import contents, interrupt_in_validation, kill_in_save
from tests.training.states import build_state, make_plan
from training.sources import excluded_rows, read_names, source_of

# ---------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("text", "folder", "weight"),
    [
        ("street", "street", 1),
        ("street:0.3", "street", 0.3),
        ("data/street/:2", "data/street", 2),
        ("C:\\data", "C:\\data", 1),
        ("C:\\data:0.5", "C:\\data", 0.5),
        ("C:/data/street", "C:/data/street", 1),
        ("a:b", "a:b", 1),
        ("a:b:1e-1", "a:b", 0.1),
        (":0.5", ":0.5", 1),
    ],
)
def test_a_number_after_a_colon_is_a_weight(text: str, folder: str, weight: float) -> None:
    assert source_of(text) == (Path(folder), weight)


def test_a_folder_with_a_colon_in_its_name_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "take:2").mkdir()
    assert source_of(f"{tmp_path}/take:2") == (tmp_path / "take:2", 1)
    assert source_of(f"{tmp_path}/take:2:0.5") == (tmp_path / "take:2", 0.5)
    for number in ("0", "-1", "inf", "nan"):
        with pytest.raises(UserError, match=rf"--data_dir mine:{number}: the weight {number} must be above 0"):
            source_of(f"mine:{number}")


def test_weights_say_how_often_photos_are_drawn(pairs: Path) -> None:
    index = dataset.open_folder(pairs)
    photos = dataset.PhotoSet([index, index, index], [np.arange(10), np.arange(4), np.arange(3)], [1, 0.5, 2.4])
    assert photos.drawn == 10 + 2 + 7
    epochs = []
    for epoch in range(12):
        sampler = dataset.EpochSampler(photos, seed=1)
        sampler.epoch = epoch
        drawn = np.bincount([i for i, _ in sampler], minlength=17)
        assert (drawn[:10] == 1).all() and drawn[10:14].sum() == 2 and drawn[14:].sum() == 7
        assert drawn[10:14].max() == 1 and set(drawn[14:]) == {2, 3}
        epochs.append(tuple(drawn[10:]))
    assert len(set(epochs)) > 5, "not the same part each time"
    sampler = dataset.EpochSampler(photos, seed=1, batch_size=2)
    whole = list(sampler)
    sampler.start = 6
    assert list(sampler) == whole[6:] and len(whole) == 18
    plain = dataset.PhotoSet([index], [np.arange(10)])
    assert list(dataset.EpochSampler(plain, seed=3)) == list(dataset.EpochSampler(10, seed=3)), (
        "as it was before weights"
    )


def test_a_run_with_weights_resumes_exactly_and_only_with_the_same(celeb: Path, pairs: Path, tmp_path: Path) -> None:
    flags = [*TINY, "--epochs", 2, "--limit", 24, "--data_dir", celeb]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    assert run(whole, *flags, f"{pairs}:0.5") == 0
    assert run(parts, *flags, f"{pairs}:0.5", "--save_every", 0, hook=kill_in_save_4) < 0
    assert torch.load(parts / RUN / "last.pth", weights_only=True)["recipe"]["sampling"] == [1.0, 0.5]
    assert run(parts, "--resume", "--data_dir", celeb, f"{pairs}:0.6") == 1
    out = (parts / "out.txt").read_text()
    assert "stopped within an epoch with weights of --data_dir [1.0, 0.5], but now it is [1.0, 0.6]" in out
    assert run(parts, "--resume", hook=interrupt_in_validation) == 130
    assert run(parts, "--resume") == 0
    assert contents(parts / RUN) == contents(whole / RUN)


def kill_in_save_4() -> None:
    kill_in_save(4)


def test_weights_of_one_are_no_change_for_earlier_runs() -> None:
    assert "sampling" not in build_state(make_plan(*TINY, "--data_dir", "a", "b:1")).recipe


# ---------------------------------------------------------------------------------------------------- left out


def test_names_are_the_lines_of_a_text_or_a_column_of_a_csv(tmp_path: Path) -> None:
    text, table = tmp_path / "wrong.txt", tmp_path / "wrong.csv"
    text.write_text("# reported by users\n00481\n\n  a, b.jpg \n머리.jpg\n", encoding="utf-8-sig")
    assert read_names(text) == ["00481", "a, b.jpg", "머리.jpg"]
    table.write_text("score,photo\n0.1,481\n0.2,\n", encoding="utf-8")
    assert read_names(table) == ["481"]
    table.write_text('"a, b.jpg",1\n2.jpg,3\n', encoding="utf-8")
    assert read_names(table) == ["a, b.jpg", "2.jpg"]
    for content in ("", "# nothing\n", "photo\n"):
        table.write_text(content)
        with pytest.raises(UserError, match=r"wrong\.csv: names no photos"):
            read_names(table)
    with pytest.raises(UserError, match=r"gone\.csv: cannot be read"):
        read_names(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["7"], [7]),
        (["007", "7.png"], [7]),
        (["image/3.png", "5"], [3, 5]),
        (["image\\3"], [3]),
        (["{root}/image/3.png"], [3]),
    ],
)
def test_photos_are_named_in_many_ways(pairs: Path, tmp_path: Path, names: list[str], rows: list[int]) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text("\n".join(names).format(root=pairs))
    index = dataset.open_folder(pairs)
    found, other = excluded_rows([index, dataset.open_folder(pairs)], file)
    assert found.tolist() == other.tolist() == rows


def test_names_of_no_photo_are_counted_and_are_an_error_alone(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file, index = tmp_path / "wrong.txt", dataset.open_folder(pairs)
    file.write_text("7.jpg\nelsewhere/3.png\n04790\n2\n")
    assert excluded_rows([index], file)[0].tolist() == [2]
    assert "wrong.txt: 3 names match no photo, such as 7.jpg" in capsys.readouterr().err
    file.write_text("04790\n")
    with pytest.raises(UserError, match=r"wrong\.txt: none of its names matches a photo of --data_dir, such as 04790"):
        excluded_rows([index], file)


def test_photos_that_are_left_out_move_no_other_to_another_fold(pairs: Path, tmp_path: Path) -> None:
    file, index = tmp_path / "wrong.txt", dataset.open_folder(pairs)
    file.write_text("0\n1\n2\n")
    for fold in range(5):
        before, after = (
            dataset.split([index], fold, 5),
            dataset.split([index], fold, 5, None, excluded_rows([index], file)),
        )
        for one, other in zip(before, after, strict=True):
            assert other.row.tolist() == [row for row in one.row.tolist() if row > 2]


def test_train_and_evaluate_leave_photos_out(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.csv").write_text("path,agreement\n1,0.1\n2,0.2\n3,0.2\n")
    assert run(tmp_path, *TINY, "--epochs", 1, "--data_dir", pairs, "--exclude", "wrong.csv") == 0
    assert "6 photos to train on, 1 to validate on" in (tmp_path / "out.txt").read_text()
    assert run(tmp_path, "--data_dir", pairs, "--split", "all", "--exclude", "wrong.csv", script="evaluate") == 0
    assert "| 7 |" in (tmp_path / "out.txt").read_text()

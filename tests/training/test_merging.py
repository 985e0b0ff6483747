"""The scores of a data set from those of its shares are the scores of one run over all of it."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluate
from hair.errors import UserError
from tests.pictures import Bright


class Noisy(Bright):
    """Errs differently for each photo."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        errors = np.random.default_rng(int(image.sum())).random(image.shape[:2]) < 0.2
        return np.abs(super().__call__(image) - errors)


@pytest.fixture
def scored(tmp_path: Path, korean: Path, monkeypatch: pytest.MonkeyPatch):
    """Run evaluate.py on photos with labels, at `place`, and return its JSON."""
    monkeypatch.setattr("hair.cli.HairSegmenter", lambda **_: Noisy())
    monkeypatch.chdir(tmp_path)
    for place in ("data", "elsewhere/data"):
        shutil.copytree(korean, place)

    def evaluated(*flags: str, place: str = "data") -> dict | list:
        chosen = [] if "--merge" in flags else ["--data_dir", place, "--split", "all"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *chosen, *flags])
        evaluate.main()
        return json.loads(Path(flags[flags.index("--json") + 1]).read_text())

    return evaluated


def shares(scored, *flags: str, count: int = 3) -> list[str]:
    """The files of all shares; every second one is made where the data set lies elsewhere."""
    names = []
    for number in range(1, count + 1):
        names.append(f"part-{number}.json")
        place = "data" if number % 2 else "elsewhere/data"
        scored("--shard", f"{number}/{count}", "--json", names[-1], *flags, place=place)
    return names


@pytest.mark.parametrize(("flags", "count"), [(["--by", "length"], 3), (["--filter", "length == '단발'"], 8)])
def test_merged_shares_are_one_run(scored, capsys: pytest.CaptureFixture, flags: list[str], count: int) -> None:
    """Some of the 8 shares are empty."""
    whole = scored(*flags, "--json", "whole.json")
    table = capsys.readouterr().out
    names = shares(scored, *flags, count=count)
    counts = [json.loads(Path(name).read_text())["jobs"][0]["sums"]["photos"] for name in names]
    assert (min(counts) == 0) == (count == 8)
    capsys.readouterr()
    merged = scored("--merge", *reversed(names), "--json", "merged.json")
    assert capsys.readouterr().out == table
    rows = [(whole, merged)] if isinstance(whole, dict) else list(zip(whole, merged, strict=True))
    assert len(rows) > 1 or count == 8
    for one, other in rows:
        means = {key: pytest.approx(one[key], abs=1e-12) for key in ("dice_per_photo", "boundary_f1")}
        assert other == {**one, **means}
        assert 0 < one["dice"] < 1


def test_what_does_not_go_together_is_told(scored) -> None:
    names = shares(scored)
    with pytest.raises(UserError, match=r"1 of 3 shares are missing: 2/3"):
        scored("--merge", names[0], names[2], "--json", "merged.json")
    shutil.copy(names[0], "again.json")
    with pytest.raises(UserError, match=r"again.json: is share 1/3, and so is part-1.json"):
        scored("--merge", *names, "again.json", "--json", "merged.json")
    scored("--shard", "3/3", "--json", names[2], "--threshold", "0.3")
    with pytest.raises(UserError, match=r"part-3.json: was made with another --threshold than part-1.json"):
        scored("--merge", *names, "--json", "merged.json")
    scored("--shard", "3/4", "--json", names[2])
    with pytest.raises(UserError, match="another number of shares"):
        scored("--merge", *names, "--json", "merged.json")
    shutil.copytree("data", "other")
    scored("--shard", "3/3", "--json", names[2], place="other")
    with pytest.raises(UserError, match="another --weights or --data_dir"):
        scored("--merge", *names, "--json", "merged.json")
    scored("--json", "whole.json")
    with pytest.raises(UserError, match=r"whole.json: was not written by evaluate.py --shard"):
        scored("--merge", "whole.json", "--json", "merged.json")
    assert not Path("merged.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--shard", "1/2"], "--json FILE"),
        (["--shard", "1/2", "--json", "a.json", "--worst", "3"], "without --worst"),
        (["--merge", "a.json", "--data_dir", "data"], "either --data_dir, or --merge"),
    ],
)
def test_flags_of_shares_that_do_not_go_together(scored, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        scored(*flags)

"""The scores of shares of a data set in files, and the scores of all of it from these files.

A file contains sums, not means, so the scores are those of one run over all photos.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from hair.errors import UserError
from hair.files import write_json
from hair.shards import Shard
from training.scoring import NO_LABEL, Scored


def write_share(path: Path, shard: Shard, settings: dict, scored: Sequence[Scored]) -> None:
    """Write the sums of one share.

    Args:
        path: the JSON file.
        shard: which share.
        settings: flags that must be the same for all shares.
        scored: for each pair of weights and data set.

    Raises:
        OSError: the file cannot be written.
    """
    jobs = [vars(one) for one in scored]
    write_json(path, {"shard": str(shard), "settings": settings, "jobs": jobs})


def merge(paths: Sequence[Path]) -> tuple[dict, list[Scored]]:
    """The settings of all shares, and the sums of all photos, from the files of `write_share`.

    Raises:
        UserError: a file that is not one of `write_share`, shares that are missing or given twice, or files of
            different flags, weights or data.
    """
    files = [_read(path) for path in paths]
    first = files[0]
    count = first["shard"].partition("/")[2]
    seen: dict[str, Path] = {}
    for path, file in zip(paths, files, strict=True):
        if (twice := seen.setdefault(file["shard"], path)) is not path:
            raise UserError(f"{path}: is share {file['shard']}, and so is {twice}")
        facts, expected = ({"number of shares": one["shard"].partition("/")[2], **_facts(one)} for one in (file, first))
        different = [key for key in expected | facts if facts.get(key) != expected.get(key)]
        if different:
            raise UserError(f"{path}: was made with another {different[0]} than {paths[0]}")
    if missing := [f"{k}/{count}" for k in range(1, int(count) + 1) if f"{k}/{count}" not in seen]:
        raise UserError(f"--merge: {len(missing)} of {count} shares are missing: {', '.join(missing[:8])}")
    return first["settings"], [_add([file["jobs"][i] for file in files]) for i in range(len(first["jobs"]))]


def _read(path: Path) -> dict:
    """The content of a file of `write_share`. Raises UserError, FileNotFoundError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        content["shard"], content["settings"], [(job["sums"], job["groups"]) for job in content["jobs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: was not written by evaluate.py --shard") from error
    return content


def _facts(file: dict) -> dict:
    """What must be the same in all files, by name."""
    named = [{key: job[key] for key in ("weights", "data", "img_size")} for job in file["jobs"]]
    return {**{f"--{flag}": value for flag, value in file["settings"].items()}, "--weights or --data_dir": named}


def _add(jobs: Sequence[dict]) -> Scored:
    """The sums of one job over all shares; groups in order of their names."""
    names = sorted({name for job in jobs for name in job["groups"]}, key=lambda name: (name == NO_LABEL, name))
    groups = {name: _total([job["groups"][name] for job in jobs if name in job["groups"]]) for name in names}
    first = jobs[0]
    return Scored(first["weights"], first["data"], first["img_size"], _total([job["sums"] for job in jobs]), groups)


def _total(sums: Sequence[dict]) -> dict:
    return {key: sum(one[key] for one in sums) for key in sums[0]}

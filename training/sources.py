"""What a run takes of its data sets: how often the photos of each are drawn, and which photos are left out."""

import csv
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from hair.errors import UserError
from hair.photos import is_photo

COLUMNS = ("photo", "path", "image", "file", "file_name", "filename", "name")  # that may head the photos of a CSV


def source_of(text: str) -> tuple[Path, float]:
    """A data set as `--data_dir` names it: its folder, and how often its photos are drawn, 1 for once an epoch.

    A number after a colon is the weight: `street:0.3`. A folder of that very name comes first, and the colon of a
    drive, as in `C:\\data`, is followed by no number.

    Raises:
        UserError: a weight that is not above 0.
    """
    folder, colon, number = text.rpartition(":")
    if not colon or not folder or Path(text).exists():
        return Path(text), 1.0
    try:
        weight = float(number)
    except ValueError:
        return Path(text), 1.0
    if not 0 < weight < math.inf:
        raise UserError(f"--data_dir {text}: the weight {number} must be above 0; leave the folder out for none")
    return Path(folder), weight


def read_names(file: Path) -> list[str]:
    """The photos that a file names: the lines of a text, or a column of a CSV, the first unless its heading says more.

    Empty lines and those that begin with # do not count. Raises UserError for a file that cannot be read or is empty.
    """
    try:
        lines = file.read_bytes().decode("utf-8-sig", errors="surrogateescape").splitlines()
    except OSError as error:
        raise UserError(
            f"--exclude {file}: cannot be read ({error.strerror}); name a file that lists photos"
        ) from error
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if file.suffix.lower() == ".csv":
        rows = list(csv.reader(lines))
        heading = [cell.strip().lower() for cell in rows[0]] if rows else []
        column = next((heading.index(name) for name in COLUMNS if name in heading), None)
        rows = rows if column is None else rows[1:]
        lines = [row[column or 0] for row in rows if len(row) > (column or 0)]
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise UserError(f"--exclude {file}: names no photos; list one a line")
    return names


def excluded_rows(indexes: Sequence, file: Path) -> list[np.ndarray]:
    """The rows that a file of `read_names` means, of each data set.

    A photo is named by its number, with or without zeros before it, or by its name, with or without suffix, and with as
    many of its folders as tell it from others. Names that mean no photo are counted in one line on standard error.

    Args:
        indexes: as `dataset.open_data` returns them.
        file: names the photos.

    Raises:
        UserError: a file that cannot be read, or none of whose names is that of a photo.
    """
    names = read_names(file)
    by_key: dict[str, list[PurePosixPath]] = defaultdict(list)
    for name in dict.fromkeys(names):
        path = PurePosixPath(name.replace("\\", "/"))
        by_key[_key(path.stem if is_photo(Path(path.name)) else path.name)].append(path)
    used: set[PurePosixPath] = set()
    rows = []
    for index in indexes:
        photos = ((row, Path(index.photo(row))) for row in range(len(index)))
        found = [(row, _meant(photo, by_key.get(_key(photo.stem), ()))) for row, photo in photos]
        used.update(name for _, meant in found for name in meant)
        rows.append(np.array([row for row, meant in found if meant], np.int64))
    unknown = [str(path) for paths in by_key.values() for path in paths if path not in used]
    if not used:
        raise UserError(f"--exclude {file}: {unknown[0]} and its other names are no photos of --data_dir")
    if unknown:
        print(f"--exclude {file}: {len(unknown)} names are no photos here, such as {unknown[0]}", file=sys.stderr)
    return rows


def _key(stem: str) -> str:
    """What names of the same photo have in common: 00481 and 481 are the same number."""
    return str(int(stem)) if stem.isdecimal() else stem


def _meant(photo: Path, names: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Those of the names that are the end of the photo's path."""
    names = list(names)
    if not names:
        return []
    folders = Path(os.path.abspath(photo)).parent.parts  # noqa: PTH100 (links stay)
    return [
        name
        for name in names
        if (not is_photo(Path(name.name)) or name.suffix == photo.suffix)
        and folders[len(folders) - len(name.parent.parts) :] == name.parent.parts
    ]

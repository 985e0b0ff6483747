"""Weights of data sets (`--data_dir DIR:0.3`) and photos to leave out (`--exclude`)."""

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
    """Split a value of `--data_dir` into the folder and its weight: how often an epoch uses each photo, 1 by default.

    A number after a colon is the weight: `street:0.3`. If there is a folder with exactly this name, it is used. The
    colon of a drive, as in `C:\\data`, is not followed by a number.

    Raises:
        UserError: the weight is not above 0.
    """
    folder, colon, number = text.rpartition(":")
    if not colon or not folder or Path(text).exists():
        return Path(text), 1.0
    try:
        weight = float(number)
    except ValueError:
        return Path(text), 1.0
    if not 0 < weight < math.inf:
        raise UserError(f"--data_dir {text}: the weight {number} must be above 0; or leave out this folder")
    return Path(folder), weight


def read_names(file: Path) -> list[str]:
    """The photos that a file names: the lines of a text file, or a column of a CSV file (see COLUMNS; else the first).

    Empty lines and those that begin with # are ignored. Raises UserError if the file cannot be read or is empty.
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
        raise UserError(f"--exclude {file}: names no photos; list one per line")
    return names


def excluded_rows(indexes: Sequence, file: Path) -> list[np.ndarray]:
    """The rows of each data set that are named in a file, see `read_names`.

    A photo is named by its number, with or without leading zeros, or by its name, with or without suffix, and with as
    many folders as needed to tell it from others. A line on standard error says how many names match no photo.

    Args:
        indexes: from `dataset.open_data`.
        file: names the photos.

    Raises:
        UserError: the file cannot be read, or none of its names matches a photo.
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
        raise UserError(f"--exclude {file}: none of its names matches a photo of --data_dir, such as {unknown[0]}")
    if unknown:
        print(f"--exclude {file}: {len(unknown)} names match no photo, such as {unknown[0]}", file=sys.stderr)
    return rows


def _key(stem: str) -> str:
    """A key that is equal for different names of the same photo, such as 00481 and 481."""
    return str(int(stem)) if stem.isdecimal() else stem


def _meant(photo: Path, names: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """The names that match the end of the photo's path."""
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

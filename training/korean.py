"""The Korean salon photos (niahair/ganhackerton): their polygons, as an index that all workers share."""

import contextlib
import csv
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from hair.errors import UserError
from hair.files import atomic, write_json
from hair.outlines import rasterise
from training.checks import user_cache
from training.folders import SPLIT_SEED
from training.masks import check_picture, check_proportions

INDEX_VERSION = 2
KEPT = 7 * 24 * 3600  # seconds before an outdated index is deleted: other runs may still be reading it
MOST_UNUSABLE = 0.1  # fraction of unusable rows above which the data set is rejected
NEEDED = ("path", "source", "polygon1", "height", "width")
LABELS = (
    "sex",
    "age",
    "length",
    "curl",
    "bang",
    "loss",
    "side",
    "color",
    "basestyle",
    "horizontal",
    "vertical",
    "before-after",
)
STRATA = ("sex", "length")  # labels whose values have equal proportions in all folds
TAIL = 1 << 20  # bytes at the end of a CSV file that contain its last row
NOT_XY = bytes(c for c in range(256) if c not in b"xy")  # for bytes.translate, like NOT_NUMBER
NOT_NUMBER = bytes(c if chr(c) in "0123456789.+-eE" else ord(" ") for c in range(256))


class KoreanIndex:
    """The Korean data set as memory-mapped arrays: all workers share one copy, however they are started.

    Photo `row` has the curves `rows[row]:rows[row + 1]`; curve `c` has the points `curves[c]:curves[c + 1]`.
    """

    def __init__(self, root: Path, folder: Path, query: str | None = None) -> None:
        """Open the index in `folder` for the photos in `root`; `open_korean` finds or builds it. Raises UserError."""
        self.root, self.folder, self.query = root, folder, query
        try:
            self.paths, self.sizes, self.rows, self.curves = (
                np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("paths", "sizes", "rows", "curves")
            )
            self.points = np.memmap(folder / "points.f32", np.float32, mode="r").reshape(-1, 2)
            self.unusable = json.loads((folder / "unusable.json").read_text(encoding="utf-8"))
            photos, points = {len(self.paths), len(self.sizes), len(self.rows) - 1}, self.curves[self.rows[-1]]
            if len(photos) > 1 or points != len(self.points) or not isinstance(self.unusable, dict):
                raise ValueError("its parts do not match")
        except (OSError, ValueError, IndexError, EOFError) as error:
            raise self._damaged(error) from error

    def _damaged(self, reason: object) -> UserError:
        return UserError(f"{self.folder}: the index is damaged ({reason}); remove this folder, and it is built again")

    def __reduce__(self) -> tuple:
        return KoreanIndex, (self.root, self.folder, self.query)  # a spawned worker maps the files instead of copying

    def __len__(self) -> int:
        return len(self.paths)

    def photo(self, row: int) -> Path:
        """The photo file of a row."""
        return self.root / self.paths[row].decode()

    def polygon(self, row: int) -> list[np.ndarray]:
        """The outlines of the hair, arrays float32 (points, 2), in pixels of the frame size in the CSV row."""
        first, last = self.rows[row], self.rows[row + 1]
        return [self.points[self.curves[c] : self.curves[c + 1]] for c in range(first, last)]

    def mask(self, row: int, shape: tuple[int, int]) -> np.ndarray:
        """The hair mask, uint8 {0, 1} of `shape`, which is the photo's (height, width)."""
        size = np.array([shape[1], shape[0]], np.float64)  # in float64, so that very large coordinates stay finite
        scale = size / self.sizes[row][::-1]
        return rasterise([curve * scale for curve in self.polygon(row)], shape)

    def check(self, row: int, size_of: Callable[[Path], tuple[int, int]] = check_picture) -> None:
        """Raise UserError unless the photo is complete and has the aspect ratio of its polygon's frame.

        `size_of` is `check_picture`, or a version of it that caches (see `training.checks`).
        """
        photo = self.photo(row)
        shape = size_of(photo)
        try:
            check_proportions(photo, tuple(self.sizes[row]), shape)
        except UserError as error:
            height, width = self.sizes[row]
            raise UserError(
                f"{photo}: the photo is {shape[1]}×{shape[0]}, but its label was drawn on {width:.0f}×{height:.0f}; "
                "fix or remove its row in the CSV files"
            ) from error

    def labels(self) -> pd.DataFrame:
        """The style labels of each row: `source` and the columns of LABELS that the files have. Raises UserError."""
        try:
            labels = pd.read_csv(self.folder / "labels.csv", dtype={"source": str}, low_memory=False)
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        if len(labels) != len(self):
            raise self._damaged(f"labels of {len(labels)} photos, not {len(self)}")
        return labels

    def split(self, fold: int, n_folds: int) -> dict[str, np.ndarray]:
        """The rows of `train` and `valid`: no `source` is in both; sex and length have equal proportions.

        The folds are made from all photos, and then the query selects rows from both sides. So a model trained with one
        query is never validated on photos that a model with another query was trained on. Raises UserError.
        """
        labels = self.labels()
        styles = pd.Series("", index=labels.index)
        for name in STRATA:
            if name in labels:
                styles = styles + labels[name].astype(str)
        style, _ = pd.factorize(styles)
        person, people = pd.factorize(labels["source"], sort=True)
        if len(people) < n_folds:
            raise UserError(f"{self.root}: {len(people)} people cannot make {n_folds} folds")
        folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=SPLIT_SEED)
        train, valid = list(folds.split(style, style, groups=person))[fold]
        if self.query is None:
            return {"train": train, "valid": valid}
        chosen = self._chosen(labels, self.query)
        train, valid = train[chosen[train]], valid[chosen[valid]]
        if not len(train) or not len(valid):
            raise UserError(
                f'--filter "{self.query}" leaves {len(train)} photos to train on and {len(valid)} to validate on'
            )
        return {"train": train, "valid": valid}

    def _chosen(self, labels: pd.DataFrame, query: str) -> np.ndarray:
        """The rows that a query selects, bool (rows,). Raises UserError."""
        try:
            chosen = labels.eval(query)
        except Exception as error:  # the user's expression may raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f'--filter "{query}": {reason}; columns are {", ".join(map(str, labels))}') from error
        if not isinstance(chosen, pd.Series) or chosen.dtype != bool or len(chosen) != len(labels):
            raise UserError(f"--filter \"{query}\" is not a condition; for example: length == '장발' and age < 30")
        return chosen.to_numpy()

    def report_unusable(self, strict: bool) -> None:
        """Print how many rows cannot be used, and why. Raises UserError if too many; with `strict`, if any."""
        count = sum(self.unusable.values())
        if not count:
            return
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.unusable.items())
        facts = f"{self.root}: {count} of {count + len(self)} rows cannot be used ({reasons}), "
        facts += f"listed in {self.folder / 'unusable.csv'}"
        if strict:
            raise UserError(f"{facts}; fix or remove them, or leave --strict out")
        if count > MOST_UNUSABLE * (count + len(self)):
            raise UserError(f"{facts}; that is more than a tenth: get the missing files, or remove those rows")
        print(facts)


def open_korean(root: Path, query: str | None = None, strict: bool = False) -> KoreanIndex:
    """Open the Korean data set. Its index is built first if the CSV files or the photo folders have changed.

    Args:
        root: the clone of `niahair/ganhackerton`, or its `dataset` folder.
        query: a pandas query on the labels that selects rows in `KoreanIndex.split`, such as `length == '장발'`.
        strict: raise an error for a single unusable row.

    Raises:
        UserError: no CSV files, one that cannot be read, an index that cannot be written, or more than a tenth of the
            rows unusable.
    """
    home = root / "dataset" if (root / "dataset").is_dir() else root
    files = sorted(home.glob("dataindex_*.csv"))
    if not files:
        raise UserError(
            f"{home}: no dataindex_*.csv; data/README.md says how to get the data, --data_dir names a folder"
        )
    places = [home / "hair_index", user_cache() / hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]]
    name = f"v{INDEX_VERSION}-{_state(home, files)}"
    found = [place / name for place in places if (place / name).is_dir()]
    if not found:
        place = places[0 if os.access(places[0] if places[0].exists() else home, os.W_OK) else 1]
        found = [place / name]
        _build_index(home, files, place / name)
        for old in place.glob(f"v{INDEX_VERSION}-*"):  # other versions belong to other copies of this code
            if old.name != name and time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
    with contextlib.suppress(OSError):  # a read-only folder
        os.utime(found[0])  # marks it as used, so that it is not deleted soon
    index = KoreanIndex(home, found[0], query)
    index.report_unusable(strict)
    return index


def parse_polygon(text: str) -> list[np.ndarray]:
    """Parse `"[[{'x': 1.5, 'y': -2}, …], …]"` without creating an object per point.

    Returns:
        Curves, arrays float32 (points, 2).

    Raises:
        ValueError: a coordinate is missing or not a finite number, or the order of x and y changes within a curve.
    """
    curves = []
    for curve in text.split("]"):
        data = curve.encode()
        names = data.translate(None, NOT_XY)
        if not names:
            continue
        with np.errstate(over="ignore"):  # too large numbers become infinite
            numbers = np.array(data.translate(NOT_NUMBER).split(), dtype=np.float32)
        in_order = names == names[:2] * (len(names) // 2) and names[:2] in (b"xy", b"yx")
        if not in_order or numbers.size != len(names) or not np.isfinite(numbers).all():
            raise ValueError("not a number")
        points = numbers.reshape(-1, 2)
        curves.append(points if names[:1] == b"x" else points[:, ::-1])
    return curves


# ---------------------------------------------------------------------------------------------------- building


def _state(home: Path, files: list[Path]) -> str:
    """A hash that changes with the CSV files and, through the folders' modification times, with the set of photos."""
    csv_facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folders = [folder for pattern in ("*/", "*/images/") for folder in sorted(home.glob(pattern))]
    photo_facts = [
        (folder.relative_to(home).as_posix(), folder.stat().st_mtime_ns)
        for folder in folders
        if folder.is_dir() and folder.name != "hair_index"
    ]
    return hashlib.sha256(json.dumps([csv_facts, photo_facts]).encode()).hexdigest()[:16]


def _build_index(home: Path, files: list[Path], folder: Path) -> None:
    """Write the index to `folder`, atomically. Raises UserError."""
    try:
        with atomic(folder) as temporary:
            temporary.mkdir()
            _write_arrays(home, files, temporary)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return
        is_forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        way_out = "make it writable" if is_forbidden else "free some space there"
        raise UserError(
            f"{folder.parent}: the index could not be written ({error}); {way_out} and start again"
        ) from error


def _write_arrays(home: Path, files: list[Path], folder: Path) -> None:
    there = _files_below(home)
    paths, sizes, labels, unusable = [], [], [], []
    points_in_curve: list[int] = []
    curves_in_row: list[int] = []
    with (folder / "points.f32").open("wb") as points:  # written file by file, because points are most of the index
        for file in tqdm(files, desc="index", unit="file"):
            frame = _read_csv(file)
            kept, curves = [], []
            for number, row in enumerate(zip(*(frame[name] for name in NEEDED), strict=True)):
                path, _, text, height, width = row
                local = _local_path(path, there)
                outlines, reason = _usable(local, text, height, width)
                if reason:
                    unusable.append((file.name, number + 1, path, reason))
                    continue
                kept.append(number)
                paths.append(local.encode())
                sizes.append((height, width))
                curves.extend(outlines)
                curves_in_row.append(len(outlines))
            points_in_curve.extend(map(len, curves))
            np.concatenate([np.empty((0, 2), np.float32), *curves]).tofile(points)
            labels.append(frame.iloc[kept].reindex(columns=["source", *(name for name in LABELS if name in frame)]))
    if not paths:
        file, number, _, reason = unusable[0] if unusable else (files[0].name, 1, "", "no rows")
        raise UserError(f"{home}: no row can be used; the first is {file} row {number}: {reason}")
    np.save(folder / "paths.npy", np.array(paths, dtype=bytes))
    np.save(folder / "sizes.npy", np.array(sizes, np.float32))
    np.save(folder / "rows.npy", np.cumsum([0, *curves_in_row], dtype=np.int64))
    np.save(folder / "curves.npy", np.cumsum([0, *points_in_curve], dtype=np.int64))
    pd.concat(labels).to_csv(folder / "labels.csv", index=False)
    with (folder / "unusable.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("file", "row", "path", "reason"), *unusable])
    write_json(folder / "unusable.json", dict(Counter(reason for *_, reason in unusable).most_common()))


def _files_below(home: Path) -> set[str]:
    """The files as `partition1/1.jpg` or `partition1/images/1.jpg`. Partitions may be links to another disk."""
    there: set[str] = set()
    for folder, folders, names in os.walk(home, followlinks=True):
        prefix = Path(folder).relative_to(home).as_posix()
        there.update(f"{prefix}/{name}" for name in names)
        if "/" in prefix:  # photos are not deeper, and a link may lead back up
            folders.clear()
    return there


def _read_csv(file: Path) -> pd.DataFrame:
    wanted = {*NEEDED, *LABELS}
    text = {"path": str, "source": str, "polygon1": str}
    try:
        frame = pd.read_csv(file, usecols=lambda name: name in wanted, dtype=text, low_memory=False)
        if missing := [name for name in NEEDED if name not in frame]:
            raise UserError(f"{file}: the column {missing[0]} is missing; is it a file of this data set?")
        if _is_cut_off(file):
            raise UserError(f"{file}: ends in the middle of a row; download it again")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 text ({error.reason}); download it again or convert it") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(
            f"{file}: cannot be read, perhaps truncated; download it again ({' '.join(str(error).split())})"
        ) from error
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    frame["path"] = frame["path"].fillna("")
    for name in ("height", "width"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    return frame


def _is_cut_off(file: Path) -> bool:
    """Whether the last row has no line end and fewer columns than the header; pandas would fill them silently."""
    with file.open("rb") as stream:
        header = stream.readline()
        stream.seek(-min(file.stat().st_size, TAIL), os.SEEK_END)
        last = stream.read().rpartition(b"\n")[2]
    columns = [pd.read_csv(BytesIO(line), header=None).shape[1] for line in (header, last) if line.strip()]
    return len(columns) == 2 and columns[1] < columns[0]


def _local_path(path: str, there: set[str]) -> str:
    """The path relative to the data folder; empty if there is no such file.

    The published CSV files name a folder `images/` that does not exist in the download.
    """
    local = re.sub(r"^.*?/dataset/", "", path)
    partition, _, name = local.partition("/")
    candidates = (local, f"{partition}/{name.removeprefix('images/')}", f"{partition}/images/{name}")
    return next((candidate for candidate in candidates if candidate in there), "")


def _usable(path: str, text: object, height: float, width: float) -> tuple[list[np.ndarray], str | None]:
    """The curves of a row, and the reason why it cannot be used, or None."""
    if not path:
        return [], "no file"
    if not isinstance(text, str) or not text.strip("[] "):
        return [], "no polygon"
    if text.count("[") != text.count("]"):  # spreadsheets truncate cells after 32,767 characters
        return [], "truncated polygon"
    try:
        curves = [curve for curve in parse_polygon(text) if len(curve) >= 3]
    except ValueError:
        return [], "not a number"
    if not (1 <= height < np.inf and 1 <= width < np.inf):
        return [], "not a number"
    return curves, None if curves else "fewer than three points"

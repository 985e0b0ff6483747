"""Check all files of a data set before training, on all cores; the results are cached."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from hair.errors import UserError
from hair.files import atomic
from training.masks import check_picture
from training.workers import WorkerLoader, start_worker

VERSION = 1  # of the cache format and of the rules for what counts as complete
SEEN = np.dtype([("file", "u8"), ("size", "u8"), ("time", "i8"), ("height", "u4"), ("width", "u4")])
DIGEST = 32  # bytes at the beginning of a cache file: hash of the rest
KEPT = 90 * 24 * 3600  # seconds before the cache of an unused data set is deleted
CHUNK = 256  # rows that a process checks at a time
PARALLEL_FROM = 1000  # rows; for fewer, no processes are started


class Index(Protocol):
    """The part of a data set from `dataset.open_data` that is needed here."""

    root: Path

    def check(self, row: int, size_of: Callable[[Path], tuple[int, int]]) -> None:
        """Raise UserError unless the files of the row are complete and match; `size_of` works like `check_picture`."""


def user_cache() -> Path:
    """The user's cache folder."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (raises without a home)
    return Path(caches) / "hair-segmentation"


class PictureSizes:
    """`check_picture` with a cache: it does not read files again that were complete before and have not changed."""

    def __init__(self, seen: np.ndarray) -> None:
        """Args: `seen`, of type SEEN and sorted by `file`."""
        self.seen, self.files = seen, np.ascontiguousarray(seen["file"])
        self.found: list[tuple[int, int, int, int, int]] = []  # files that were read, with the fields of SEEN

    def __call__(self, path: Path) -> tuple[int, int]:
        """The (height, width) of the upright image. Raises UserError like `check_picture`."""
        try:
            facts = os.stat(path)  # noqa: PTH116 (faster)
        except OSError:
            return check_picture(path)  # raises the right error
        name = os.fsencode(os.path.abspath(path))  # noqa: PTH100 (faster)
        file = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
        place = int(np.searchsorted(self.files, np.uint64(file)))
        if place < len(self.files):
            known = self.seen[place].item()
            if known[:3] == (file, facts.st_size, facts.st_mtime_ns):
                return known[3:]
        height, width = check_picture(path)
        self.found.append((file, facts.st_size, facts.st_mtime_ns, height, width))
        return height, width


class _RowChecks(Dataset):
    """Items check CHUNK rows each: the image files that were read, and the error of the first bad row, or None."""

    def __init__(self, index: Index, rows: Sequence[int] | np.ndarray, seen: np.ndarray) -> None:
        self.index, self.rows, self.seen = index, rows, seen

    def __len__(self) -> int:
        return -(-len(self.rows) // CHUNK)

    def __getitem__(self, chunk: int) -> tuple[np.ndarray, UserError | None]:
        sizes, failure = PictureSizes(self.seen), None
        try:
            for row in self.rows[chunk * CHUNK : (chunk + 1) * CHUNK]:
                self.index.check(row, sizes)
        except UserError as error:
            failure = error
        return np.array(sizes.found, SEEN), failure


def check_rows(index: Index, rows: Sequence[int] | np.ndarray) -> None:
    """Check rows of a data set on all cores. Raises UserError for the first missing or broken file."""
    memory = _memory(index.root)
    seen = _read(memory)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    loader = WorkerLoader(
        _RowChecks(index, rows, seen),
        batch_size=None,
        num_workers=cores if len(rows) >= PARALLEL_FROM else 0,
        collate_fn=_as_it_is,
        worker_init_fn=start_worker,
    )
    found = [seen]
    try:
        interval = 0.1 if sys.stderr.isatty() else 60  # seconds; in a log file, one line per minute
        with tqdm(desc="check", total=len(rows), unit="photo", leave=False, mininterval=interval) as bar:
            for pictures, failure in loader:
                found.append(pictures)
                if failure is not None:
                    raise failure
                bar.update(CHUNK)
    finally:
        if sum(map(len, found[1:])):
            _write(memory, np.concatenate(found[::-1]))


def _as_it_is(checked: Any) -> Any:
    return checked  # by default, a loader converts arrays to tensors


# ---------------------------------------------------------------------------------------------------- the cache


def _memory(root: Path) -> Path:
    """The cache file of a data set. It is not in the folder of the data set, which may be read-only."""
    return user_cache() / "checked" / f"v{VERSION}-{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}"


def _read(memory: Path) -> np.ndarray:
    """The content of a cache file, of type SEEN and sorted by `file`; empty if it is missing or damaged."""
    try:
        content = memory.read_bytes()
    except OSError:
        content = b""
    digest, data = content[:DIGEST], content[DIGEST:]
    if len(data) % SEEN.itemsize or hashlib.blake2b(data, digest_size=DIGEST).digest() != digest:
        return np.empty(0, SEEN)
    return np.frombuffer(data, SEEN)


def _write(memory: Path, seen: np.ndarray) -> None:
    """Write a cache file with the first entry of each image file. If that fails, the next start checks all again."""
    first = np.unique(seen["file"], return_index=True)[1]
    data = seen[first].tobytes()
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with atomic(memory) as temporary:
            temporary.write_bytes(hashlib.blake2b(data, digest_size=DIGEST).digest() + data)
        for other in memory.parent.iterdir():
            if time.time() - other.stat().st_mtime > KEPT:
                other.unlink()

"""What the page keeps of its visitors until they leave: predictions in memory, uploads and results on disk."""

import secrets
import shutil
import tempfile
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hair import UserError, read_photo
from hair.effects import refine_edges
from hair.photos import is_photo, photo_size

# Limits that keep a page for several visitors within the memory and the disk of a small machine.
MAX_PIXELS = 24_000_000  # of a photo
MAX_PHOTOS = 500  # of a batch
MAX_UNPACKED = 2**30  # bytes that a batch's zip files may unpack to


class UserMessage(Exception):  # noqa: N818 (a message for the visitor, not a fault of the program)
    """What a visitor reads instead of a result.

    Args:
        key: of `texts.TEXTS`.
        facts: values for the text's placeholders.
    """

    def __init__(self, key: str, **facts: object) -> None:
        super().__init__(key)
        self.key, self.facts = key, facts


class PredictionKey(NamedTuple):
    """What identifies a prediction: the visitor's session, the photo's file and the backend."""

    session: str
    path: str
    backend: str


class Prediction:
    """A visitor's photo and its probabilities, which every control starts from.

    Args:
        name: the photo's file name.
        photo: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        img_size: longer side at which the network saw the photo, in pixels.

    Attributes:
        token: unguessable; part of the addresses of this prediction's pictures.
        nbytes: memory that it takes, refined probabilities included.
    """

    def __init__(self, name: str, photo: np.ndarray, probabilities: np.ndarray, img_size: int) -> None:
        self.name, self.photo, self.img_size = name, photo, img_size
        self.token = secrets.token_urlsafe()
        self.nbytes = photo.nbytes + 2 * probabilities.nbytes
        self._probabilities = probabilities
        self._refined: np.ndarray | None = None

    def probabilities(self, refine: bool) -> np.ndarray:
        """Float32 (H, W) in [0, 1]; with `refine`, after a guided filter, which runs once."""
        if not refine:
            return self._probabilities
        if self._refined is None:
            self._refined = refine_edges(self.photo, self._probabilities, self.img_size)
        return self._refined


class ResultStore:
    """Predictions, uploads and results of all visitors. When memory runs out, the least recently used predictions go.

    Args:
        folder: holds a folder of results for each visitor.
        inbox: the folder of all uploads.
        max_bytes: of predictions; the newest stays in any case.
    """

    def __init__(self, folder: Path, inbox: Path, max_bytes: int) -> None:
        self._folder, self._inbox, self._max_bytes = folder, inbox.resolve(), max_bytes
        self._lock = threading.Lock()
        self._predictions: OrderedDict[PredictionKey, Prediction] = OrderedDict()
        self._uploads: dict[str, set[Path]] = {}  # by session
        self._downloads: dict[str, Path] = {}  # by token

    def get(self, key: PredictionKey) -> Prediction | None:
        """The prediction, if it is still stored."""
        with self._lock:
            if key in self._predictions:
                self._predictions.move_to_end(key)
            return self._predictions.get(key)

    def put(self, key: PredictionKey, prediction: Prediction) -> None:
        """Store a prediction as the newest, and drop the oldest ones where they exceed the memory.

        The prediction of a visitor who left while the network ran is not stored: nothing would remove it.
        """
        with self._lock:
            if key.session not in self._uploads:
                return
            self._predictions[key] = prediction
            while len(self._predictions) > 1 and self._nbytes() > self._max_bytes:
                self._predictions.popitem(last=False)

    def _nbytes(self) -> int:
        return sum(prediction.nbytes for prediction in self._predictions.values())

    def by_token(self, token: str) -> Prediction | None:
        """The prediction of this token, if it is still stored."""
        with self._lock:
            return next((found for found in self._predictions.values() if found.token == token), None)

    def note_upload(self, session: str, path: Path) -> None:
        """Note that a visitor is here and uses a file; an uploaded file is deleted when they leave.

        Clients may name any path, and the page has example photos: files outside the inbox are never deleted.
        """
        path = path.resolve()
        with self._lock:
            uploads = self._uploads.setdefault(session, set())
            if self._inbox in path.parents and path.is_file():
                uploads.add(path)

    def new_folder(self, session: str) -> Path:
        """Make a new folder for a visitor's results."""
        parent = self._folder / session
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))

    def offer(self, path: Path) -> str:
        """Offer a file for download. Returns the token of its address."""
        token = secrets.token_urlsafe()
        with self._lock:
            self._downloads[token] = path
        return token

    def download(self, token: str) -> Path | None:
        """The file offered under this token, if it still exists."""
        path = self._downloads.get(token)
        return path if path and path.is_file() else None

    def forget(self, session: str) -> None:
        """Delete everything of a visitor. Equal uploads are one file, which stays while another visitor uses it."""
        with self._lock:
            for key in [key for key in self._predictions if key.session == session]:
                del self._predictions[key]
            uploads = self._uploads.pop(session, set())
            for path in uploads.difference(*self._uploads.values()):
                path.unlink(missing_ok=True)
            folder = self._folder / session
            self._downloads = {token: path for token, path in self._downloads.items() if folder not in path.parents}
            shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------- uploads


def check_size(path: Path) -> None:
    """Raise UserMessage for a file that is not a photo or is too large, before it is decoded."""
    size = photo_size(path)
    if size is None:
        raise UserMessage("unreadable", name=path.name)
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS:
        facts = {"megapixels": round(pixels / 1e6), "most": MAX_PIXELS // 1_000_000}
        raise UserMessage("large", name=path.name, **facts)


def read_upload(path: Path) -> np.ndarray:
    """Read an uploaded photo as RGB uint8 (H, W, 3). Raises UserMessage."""
    check_size(path)
    try:
        return read_photo(path)
    except (OSError, UserError) as error:
        raise UserMessage("unreadable", name=path.name) from error


@dataclass
class _Batch:
    """The photos of a batch so far, and what is wrong with the other files."""

    folder: Path
    photos: list[Path] = field(default_factory=list)
    problems: list[UserMessage] = field(default_factory=list)
    unpacked: int = 0  # bytes
    is_full: bool = False

    def add_zip(self, path: Path) -> None:
        """Unpack the photos of a zip file until the batch is full."""
        damaged, photos_before = [], len(self.photos)
        try:
            archive = zipfile.ZipFile(path)
        except Exception:  # zipfile and the decompressors raise many types for damaged files
            self.problems.append(UserMessage("bad_zip", name=path.name))
            return
        with archive:
            for member, name in _photo_members(archive):
                self.unpacked += member.file_size
                if self.unpacked > MAX_UNPACKED or len(self.photos) >= MAX_PHOTOS:
                    self.is_full = True
                    break
                try:
                    self.photos.append(_extract(archive, member, name, self.folder))
                except Exception:  # as above; also an encrypted member, or a name that is too long
                    damaged.append(UserMessage("unreadable", name=name))
        if damaged and len(self.photos) == photos_before:
            damaged = [UserMessage("bad_zip", name=path.name)]
        self.problems += damaged


def unpack(uploads: list[Path], folder: Path) -> tuple[list[Path], list[UserMessage]]:
    """Collect the photos of a batch, at most MAX_PHOTOS.

    Args:
        uploads: photos and zip files of photos.
        folder: for what is unpacked.

    Returns:
        The photos, and what is wrong with the other files.
    """
    batch = _Batch(folder)
    for path in uploads:
        if path.suffix.lower() == ".zip":
            batch.add_zip(path)
        else:
            batch.photos.append(path)
    if batch.is_full or len(batch.photos) > MAX_PHOTOS:
        batch.problems.append(UserMessage("too_many", most=MAX_PHOTOS, bytes=MAX_UNPACKED // 2**20))
    return batch.photos[:MAX_PHOTOS], batch.problems


def _photo_members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, str]]:
    """Yield the photos in a zip file and their names, without their folders, so that none is written elsewhere."""
    for member in archive.infolist():
        path = Path(member.filename.replace("\\", "/"))
        if not member.is_dir() and is_photo(path) and path.parts[0] != "__MACOSX":  # macOS keeps thumbnails there
            yield member, path.name


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, folder: Path) -> Path:
    """Write a member to a new folder inside `folder`: names may repeat, within a zip file and between several."""
    target = Path(tempfile.mkdtemp(dir=folder)) / name
    with archive.open(member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    return target

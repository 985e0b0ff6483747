"""The queue of photos to process, and the results stored for each visitor: predictions in memory, files on disk."""

import ctypes
import secrets
import shutil
import sys
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hair.photos import Photo
from hair.refine import refine_edges
from web.texts import TEXTS

# Limits that keep a page for several visitors within the memory of a small machine.
MAX_PIXELS = 51_000_000  # of a photo: 8192 × 6144, which phones call 50 megapixels
MAX_AT_ONCE = 4  # photos that are processed at once; in total they have at most MAX_PIXELS
MAX_WAITING = 32  # photos in the queue; each occupies one of FastAPI's 40 threads


def return_freed_memory() -> None:
    """Return freed memory to the system. Linux with glibc only.

    By default, glibc keeps blocks of up to 32 MB for each thread, which add up to gigabytes (benchmarks/page.py).
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class UserMessage(Exception):  # noqa: N818 (a message for the visitor, not a fault of the program)
    """An error message for a visitor.

    Args:
        key: key in `texts.TEXTS`.
        facts: values for the placeholders of the text.
    """

    def __init__(self, key: str, **facts: object) -> None:
        super().__init__(key)
        self.key, self.facts = key, facts

    def text(self, language: str) -> str:
        """The message in a language of `texts.TEXTS`."""
        return TEXTS[language][self.key].format(**self.facts)


class Turns:
    """A queue that limits how many photos are processed at once, to limit memory.

    Args:
        at_once: largest number of photos that are processed at once.
        pixels: largest total number of pixels of these photos; a larger photo is processed alone.
        waiting: largest number of photos that may wait.
    """

    def __init__(self, at_once: int = MAX_AT_ONCE, pixels: int = MAX_PIXELS, waiting: int = MAX_WAITING) -> None:
        self._at_once, self._pixels, self._most_waiting = at_once, pixels, waiting
        self._running: list[int] = []  # pixels of each photo
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int, is_patient: bool = False) -> Iterator[None]:
        """Wait for a turn, and hold it while the block runs.

        Args:
            pixels: number of pixels of the photo.
            is_patient: always wait; otherwise raise UserMessage if too many are waiting.
        """
        ticket = object()
        with self._changed:
            must_wait = self._waiting or not self._has_room(pixels)
            if must_wait and len(self._waiting) >= self._most_waiting and not is_patient:
                raise UserMessage("busy")
            self._waiting.append(ticket)
            self._changed.wait_for(lambda: self._waiting[0] is ticket and self._has_room(pixels))
            self._waiting.popleft()
            self._running.append(pixels)
            self._changed.notify_all()  # the next one may have room, too
        try:
            yield
        finally:
            return_freed_memory()
            with self._changed:
                self._running.remove(pixels)
                self._changed.notify_all()

    def _has_room(self, pixels: int) -> bool:
        if not self._running:
            return True
        return len(self._running) < self._at_once and sum(self._running) + pixels <= self._pixels


class PredictionKey(NamedTuple):
    """What identifies a prediction: the visitor's session, the photo's file and the backend."""

    session: str
    path: str
    backend: str


class Prediction:
    """A visitor's photo and its probabilities, from which all results are drawn.

    Args:
        name: file name of the photo.
        photo: the photo.
        probabilities: float32 (H, W) in [0, 1].
        img_size: longer side of the photo at the network's input, in pixels.

    Attributes:
        nbytes: memory that it uses, including refined probabilities.
    """

    def __init__(self, name: str, photo: Photo, probabilities: np.ndarray, img_size: int) -> None:
        self.name, self.photo, self.img_size = name, photo, img_size
        own = 0 if photo.alpha is None else photo.alpha.nbytes + photo.colors.nbytes
        self.nbytes = photo.pixels.nbytes + own + 2 * probabilities.nbytes
        self._probabilities = probabilities
        self._refined: np.ndarray | None = None

    def probabilities(self, refine: bool) -> np.ndarray:
        """Float32 (H, W) in [0, 1]; with `refine`, after a guided filter, which runs once."""
        if not refine:
            return self._probabilities
        if self._refined is None:
            self._refined = refine_edges(self.photo.pixels, self._probabilities, self.img_size)
        return self._refined


class ResultStore:
    """Predictions, uploads and results of all visitors. Above the memory limit, the oldest predictions are dropped.

    They can be computed again from the uploads, which stay until their visitor leaves.

    Args:
        folder: contains a folder of results for each visitor.
        inbox: the folder of all uploads.
        max_bytes: memory limit of predictions; the newest one is always kept.
    """

    def __init__(self, folder: Path, inbox: Path, max_bytes: int) -> None:
        self._folder, self._inbox, self._max_bytes = folder, inbox.resolve(), max_bytes
        self._lock = threading.Lock()
        self._predictions: OrderedDict[PredictionKey, Prediction] = OrderedDict()
        self._tokens: dict[PredictionKey, str] = {}
        self._uploads: dict[str, set[Path]] = {}  # by session
        self._downloads: dict[str, Path] = {}  # by token

    def get(self, key: PredictionKey) -> Prediction | None:
        """The prediction, if it is still stored."""
        with self._lock:
            if key in self._predictions:
                self._predictions.move_to_end(key)
            return self._predictions.get(key)

    def put(self, key: PredictionKey, prediction: Prediction) -> None:
        """Store a prediction as the newest, and drop the oldest ones above the memory limit.

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

    def token(self, key: PredictionKey) -> str:
        """An unguessable part of the URLs of a prediction's results; it is invalid after the visitor has left."""
        with self._lock:
            if key.session not in self._uploads:
                return secrets.token_urlsafe()
            return self._tokens.setdefault(key, secrets.token_urlsafe())

    def key_of(self, token: str) -> PredictionKey | None:
        """The prediction of this token, unless its visitor has left."""
        with self._lock:
            return next((key for key, known in self._tokens.items() if known == token), None)

    def note_upload(self, session: str, path: Path) -> None:
        """Register a file that a visitor uses; an uploaded file is deleted when they leave.

        Clients may send any path, and the page has example photos: files outside the inbox are never deleted.
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
        """Offer a file for download. Returns the token in its URL."""
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
            self._tokens = {key: token for key, token in self._tokens.items() if key.session != session}
            uploads = self._uploads.pop(session, set())
            for path in uploads.difference(*self._uploads.values()):
                path.unlink(missing_ok=True)
            folder = self._folder / session
            self._downloads = {token: path for token, path in self._downloads.items() if folder not in path.parents}
            shutil.rmtree(folder, ignore_errors=True)

"""What `app.py` keeps of its visitors, and what it takes from them: photos in memory, files until they leave."""

import secrets
import shutil
import tempfile
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
from PIL import Image

import inference
import render

MAX_PIXELS = 24_000_000
MAX_PHOTOS, MAX_UNPACKED = 500, 2**30  # of the tab for many photos


class Look:
    """A visitor's photo and the network's probabilities, which all controls start from.

    Args:
        session: of the visitor.
        name: the photo's file name.
        photo: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        img_size: at which the network saw the photo.
    """

    def __init__(self, session: str, name: str, photo: np.ndarray, probabilities: np.ndarray, img_size: int) -> None:
        self.session, self.name, self.photo, self.img_size = session, name, photo, img_size
        self.token = secrets.token_urlsafe()
        self._found = {False: probabilities}
        self.bytes = photo.nbytes + 2 * probabilities.nbytes

    def probabilities(self, refine: bool) -> np.ndarray:
        """Float32 (H, W), with refined edges if asked: these are drawn once."""
        if refine not in self._found:
            self._found[refine] = render.refine_edges(self.photo, self._found[False], self.img_size)
        return self._found[refine]


class Shelf:
    """Looks and files of all visitors, by visitor; of looks the least recently used go when memory runs out.

    Args:
        folder: where a visitor's results are written.
        inbox: the folder of all uploads.
        most: bytes of looks to keep; the newest stays in any case.
    """

    def __init__(self, folder: Path, inbox: Path, most: int) -> None:
        self._folder, self._inbox, self._most, self._lock = folder, inbox.resolve(), most, threading.Lock()
        self._looks: OrderedDict[tuple, Look] = OrderedDict()
        self._uploads: dict[str, set[Path]] = {}
        self._results: dict[str, Path] = {}

    def look(self, key: tuple[str, str, str]) -> Look | None:
        """The look at (session, file, backend), if it is still here."""
        with self._lock:
            if key in self._looks:
                self._looks.move_to_end(key)
            return self._looks.get(key)

    def keep(self, key: tuple[str, str, str], look: Look) -> None:
        """Put a look at (session, file, backend) here as the newest, and drop the oldest where there is no room.

        Not that of a visitor who left while the network ran: nobody would forget it.
        """
        with self._lock:
            if key[0] not in self._uploads:
                return
            self._looks[key] = look
            while len(self._looks) > 1 and sum(kept.bytes for kept in self._looks.values()) > self._most:
                self._looks.popitem(last=False)

    def by_token(self, token: str) -> Look | None:
        """The look whose pictures have this token in their addresses, if it is still here."""
        with self._lock:
            return next((look for look in self._looks.values() if look.token == token), None)

    def note_upload(self, session: str, path: Path) -> None:
        """A visitor is here and uses a file, to delete when they leave if it was uploaded.

        Clients may name any path, and there are the page's own photos: files elsewhere are nobody's to delete.
        """
        path = path.resolve()
        with self._lock:
            own = self._uploads.setdefault(session, set())
            if self._inbox in path.parents and path.is_file():
                own.add(path)

    def folder(self, session: str) -> Path:
        """A new folder for a visitor's results."""
        parent = self._folder / session
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))

    def offer(self, path: Path) -> str:
        """Let a result be downloaded; returns the token of its address."""
        token = secrets.token_urlsafe()
        with self._lock:
            self._results[token] = path
        return token

    def result(self, token: str) -> Path | None:
        """The file that was offered under this token, if it is still there."""
        path = self._results.get(token)
        return path if path and path.is_file() else None

    def forget(self, session: str) -> None:
        """Drop all of a visitor who left. Equal uploads are one file, which stays while another visitor uses it."""
        with self._lock:
            for key in [key for key in self._looks if key[0] == session]:
                del self._looks[key]
            own = self._uploads.pop(session, set())
            for path in own - set().union(*self._uploads.values()):
                path.unlink(missing_ok=True)
            folder = self._folder / session
            self._results = {token: path for token, path in self._results.items() if folder not in path.parents}
            shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------- what they bring


class Complaint(Exception):  # noqa: N818 (it is no fault of the program)
    """What a visitor reads instead of a result: a key of TEXTS and its facts."""

    def __init__(self, key: str, **facts: object) -> None:
        super().__init__(key)
        self.key, self.facts = key, facts


def check_size(path: Path) -> None:
    """Raise a Complaint about what is no photo or too large, before it is decoded."""
    try:
        with Image.open(path) as header:
            pixels = header.size[0] * header.size[1]
    except (OSError, ValueError, SyntaxError) as error:
        raise Complaint("unreadable", name=path.name) from error
    if pixels > MAX_PIXELS:
        facts = {"megapixels": round(pixels / 1e6), "most": MAX_PIXELS // 1_000_000}
        raise Complaint("large", name=path.name, **facts)


def read_upload(path: Path) -> np.ndarray:
    """An uploaded photo, RGB uint8 (H, W, 3). Raises Complaint."""
    check_size(path)
    try:
        return inference.read_photo(path)
    except (OSError, ValueError) as error:
        raise Complaint("unreadable", name=path.name) from error


def unpack(files: list[Path], folder: Path) -> tuple[list[Path], list[Complaint]]:
    """Photos among uploads and in the zips among them, and what is wrong with the others.

    A member's folders are left out of its name, so that no zip writes elsewhere.
    """
    photos, problems, left, too_many = [], [], MAX_UNPACKED, False
    for path in files:
        if path.suffix.lower() != ".zip":
            photos.append(path)
            continue
        before, damaged = len(photos), []
        try:
            archive = zipfile.ZipFile(path)
        except Exception:  # damaged zips raise all kinds, and so do their members, by the way they are compressed
            problems.append(Complaint("bad_zip", name=path.name))
            continue
        with archive:
            for member in archive.infolist():
                name = Path(member.filename.replace("\\", "/"))
                if member.is_dir() or not inference.is_photo(name) or name.parts[0] == "__MACOSX":
                    continue
                left -= member.file_size
                too_many = left < 0 or len(photos) >= MAX_PHOTOS
                if too_many:
                    break
                try:
                    photos.append(_copy(archive, member, name.name, folder))
                except Exception:  # also: encrypted, or too long a name
                    damaged.append(Complaint("unreadable", name=name.name))
        if damaged and len(photos) == before:
            damaged = [Complaint("bad_zip", name=path.name)]
        problems += damaged
    if too_many or len(photos) > MAX_PHOTOS:
        problems.append(Complaint("too_many", most=MAX_PHOTOS, bytes=MAX_UNPACKED // 2**20))
    return photos[:MAX_PHOTOS], problems


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, folder: Path) -> Path:
    """A zip's member as a file in a new folder below `folder`: names may be equal, in one zip and in several."""
    target = Path(tempfile.mkdtemp(dir=folder)) / name
    with archive.open(member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    return target

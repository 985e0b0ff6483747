"""Uploads: limits, photos, and zip files of photos."""

import math
import shutil
import struct
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import UnidentifiedImageError

from hair import UserError
from hair.photos import Photo, is_hidden, is_photo, kinds_of_others, open_photo, photo_size
from web.visitors import MAX_PIXELS, UserMessage

MAX_BYTES = 100 * 2**20  # of a photo's file: 50 megapixels as PNG
MAX_SECONDS = 60  # of a video
MAX_UPLOAD = 400 * 2**20  # bytes of a video or a zip file: 60 seconds of 4K video from a phone
MAX_PHOTOS = 500  # of a batch
MAX_UNPACKED = 2**30  # bytes that a batch's zip files may unpack to
MAX_DIRECTORY = 8 * 2**20  # bytes of a zip file's list of files, which takes several times as much in memory

ZIP_END, ZIP64_END = b"PK\5\6", b"PK\6\7"  # signatures of the records at the end of a zip file
ZIP_END_SIZE, ZIP64_END_SIZE, ZIP_COMMENT = 22, 20, 2**16  # bytes; of a comment, at most


def check_size(path: Path) -> int:
    """The number of pixels according to a photo's header, 0 if unknown. Raises UserMessage if it is too large."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise UserMessage("big_file", name=path.name, most=MAX_BYTES // 2**20)
    height, width = photo_size(path) or (0, 0)
    if height * width > MAX_PIXELS:
        megapixels = math.ceil(height * width / 1e5) / 10  # rounded up, so that it is more than the limit
        raise UserMessage("large", name=path.name, megapixels=f"{megapixels:g}", most=MAX_PIXELS // 1_000_000)
    return height * width


def read_upload(path: Path, max_pixels: int | None = None) -> Photo:
    """Read an uploaded photo; see `photos.open_photo`. Raises UserMessage."""
    check_size(path)
    try:
        return open_photo(path, max_pixels)
    except (OSError, UserError) as error:
        is_other = isinstance(error, OSError) or isinstance(error.__cause__, UnidentifiedImageError)
        raise UserMessage("unreadable" if is_other else "damaged", name=path.name) from error


@dataclass
class _Batch:
    """The photos of a batch so far, and what is wrong with the other files."""

    folder: Path
    photos: list[Path] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    problems: list[UserMessage] = field(default_factory=list)
    unpacked: int = 0  # bytes
    is_full: bool = False

    def add_zip(self, path: Path) -> None:
        """Unpack the photos of a zip file until the batch is full."""
        damaged, photos_before = [], len(self.photos)
        try:
            _check_directory(path)
            archive = zipfile.ZipFile(path)
        except Exception:  # zipfile and the decompressors raise many types for damaged files
            self.problems.append(UserMessage("bad_zip", name=path.name))
            return
        with archive:
            members = [(member, name) for member, name in _members(archive) if not is_hidden(name)]
            self.others += kinds_of_others(name for _, name in members)
            for member, name in members:
                if not is_photo(name):
                    continue
                self.unpacked += member.file_size
                if self.unpacked > MAX_UNPACKED or len(self.photos) >= MAX_PHOTOS:
                    self.is_full = True
                    break
                try:
                    self.photos.append(_extract(archive, member, name.name, self.folder))
                except Exception:  # as above; also an encrypted member, or a name that is too long
                    damaged.append(UserMessage("unreadable", name=name.name))
        if damaged and len(self.photos) == photos_before:
            damaged = [UserMessage("bad_zip", name=path.name)]
        self.problems += damaged


def unpack(uploads: list[Path], folder: Path) -> tuple[list[Path], list[UserMessage]]:
    """Collect the photos of a batch, at most MAX_PHOTOS.

    Args:
        uploads: photos and zip files of photos.
        folder: for what is unpacked.

    Returns:
        The photos, and what the visitor should know about the other files.
    """
    batch = _Batch(folder)
    for path in uploads:
        if path.suffix.lower() == ".zip":
            batch.add_zip(path)
        else:
            batch.photos.append(path)
    if batch.is_full or len(batch.photos) > MAX_PHOTOS:
        batch.problems.append(UserMessage("too_many", most=MAX_PHOTOS, bytes=MAX_UNPACKED // 2**20))
    if batch.others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in batch.others.most_common())
        batch.problems.append(UserMessage("others", count=batch.others.total(), kinds=kinds))
    return batch.photos[:MAX_PHOTOS], batch.problems


def _check_directory(path: Path) -> None:
    """Raise BadZipFile if the list of files is too long, because zipfile would read all of it.

    A zip64 file has such a list, or is larger than the limit of uploads.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - ZIP_END_SIZE - ZIP64_END_SIZE - ZIP_COMMENT))
        tail = file.read()
    last = tail[-ZIP_END_SIZE:]
    has_no_comment = last.startswith(ZIP_END) and last.endswith(b"\0\0")
    place = len(tail) - len(last) if has_no_comment else tail.rfind(ZIP_END)
    if place < 0 or place + ZIP_END_SIZE > len(tail):
        raise zipfile.BadZipFile("no end")
    is_zip64 = tail[max(0, place - ZIP64_END_SIZE) : place].startswith(ZIP64_END)
    if is_zip64 or struct.unpack_from("<I", tail, place + 12)[0] > MAX_DIRECTORY:
        raise zipfile.BadZipFile("too many files")


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[zipfile.ZipInfo, Path]]:
    """Yield the files in a zip file and their paths."""
    for member in archive.infolist():
        path = Path(member.filename.replace("\\", "/"))
        if not member.is_dir() and path.name and path.parts[0] != "__MACOSX":  # macOS keeps thumbnails there
            yield member, path


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, folder: Path) -> Path:
    """Write a member to a new folder inside `folder`, because names may repeat within and between zip files.

    `name` does not contain the folders of the member, so that nothing is written elsewhere.
    """
    target = Path(tempfile.mkdtemp(dir=folder)) / name
    with archive.open(member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy)
    return target

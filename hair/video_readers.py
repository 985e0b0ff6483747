"""Read the frames of video files and cameras, with the time of each frame.

Files are read with PyAV (`pip install av`), which gives the exact time of each frame, continues after damaged parts and
accepts any file name. Cameras, and files if PyAV is missing, are read with OpenCV.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from hair.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv")
MATRICES = (1, 4, 5, 6, 7, 9)  # FFmpeg's AVCOL_SPC_* that swscale can convert; for all others we guess
BT709, BT601 = 1, 5  # FFmpeg's SWS_CS_*
HD_HEIGHT = 720  # from this height on, players assume BT.709 if the file does not state a matrix
RATE = 30.0  # frames per second if a file or camera does not state it
MICROSECONDS = 1_000_000  # per second; the unit of a file's length in FFmpeg
MISSING = 0.5  # seconds that may be missing at the end of a video before it counts as truncated
DISK_ERRORS = (ENOSPC, EDQUOT, EFBIG, EIO)
Timed = tuple[np.ndarray, float, float]  # a frame, RGB uint8 (H, W, 3), and the seconds at which it begins and ends


def is_video(path: Path) -> bool:
    """Whether an input is a video file or a camera's number."""
    return path.suffix.lower() in VIDEO_SUFFIXES or is_camera(path)


def is_camera(path: Path) -> bool:
    """Whether an input is the number of a camera, and not a file or folder with that name."""
    return str(path).isdecimal() and not path.exists()


def find_av() -> ModuleType | None:
    """PyAV, or None if it is not installed."""
    try:
        import av
    except ImportError:
        return None
    return av


def address(path: Path) -> str:
    """A path as a URL for FFmpeg: without `file:`, the part before a colon in a name would be read as the scheme."""
    return f"file:{path}"


@contextmanager
def ffmpeg_errors(source: Path, target: Path | None = None) -> Iterator[None]:
    """Turn PyAV's errors into a one-line UserError about `source`, or an OSError if the disk of `target` is full."""
    av = find_av()
    if av is None:
        yield
        return
    try:
        yield
    except av.codec.codec.UnknownCodecError as error:
        raise UserError(f"{source}: PyAV lacks the codec {error}; pip install av brings one that has it") from error
    except av.FFmpegError as error:
        if target is not None and error.errno in DISK_ERRORS:
            raise OSError(error.errno, error.strerror, str(target)) from error
        plain = target is None and not isinstance(error, OSError)  # FFmpeg's own reason would not help the user
        raise UserError(f"{source}: {'cannot be read as a video' if plain else error.strerror}") from error


class VideoReader:
    """Iterates over a video file or a camera: (frame, RGB uint8 (H, W, 3), seconds since the first frame).

    Attributes:
        path: as given.
        rate: frames per second, on average.
        total: number of frames according to the file, 0 if it does not say.
        end: time at which the last frame that was read ends, in seconds.

    Raises:
        FileNotFoundError: no such file.
        UserError: the file cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists() and not is_camera(path):
            raise FileNotFoundError(f"{path}: no such file")
        self.path = path
        self._source: _AvSource | _CvSource
        if find_av() and not is_camera(path):
            with ffmpeg_errors(path):
                self._source = _AvSource(path)
        else:
            self._source = _CvSource(path)
        self.rate, self.total, self.end = self._source.rate, self._source.total, 0.0

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        count = 0
        with ffmpeg_errors(self.path):
            for frame, time, end in self._source.frames():
                count, self.end = count + 1, end
                yield frame, time
        if not count:
            raise UserError(f"{self.path}: no frames in it")
        missing = self._source.length - self.end
        if self._source.is_cut or missing > max(MISSING, 2 / self.rate):
            print(f"{self.path}: truncated after {self.end:.1f} s; the part before that is kept", file=sys.stderr)
        elif self._source.damaged:
            print(f"{self.path}: damaged parts were skipped", file=sys.stderr)


def opencv_name(path: Path) -> str:
    """A path as text for OpenCV. Raises UserError for a name that is not valid Unicode, which would crash OpenCV."""
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: OpenCV needs a file name in valid Unicode; pip install av") from error
    return name


class _CvSource:
    """Frames read with OpenCV."""

    is_cut, damaged, length = False, 0, 0.0

    def __init__(self, path: Path) -> None:
        camera = is_camera(path)
        self._capture = cv2.VideoCapture(int(path.name) if camera else opencv_name(path))
        if not self._capture.isOpened():
            raise UserError(f"{path}: {'no such camera' if camera else 'cannot be read as a video'}")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or RATE
        self.total = 0 if camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def frames(self) -> Iterator[Timed]:
        while True:
            good, frame = self._capture.read()  # OpenCV applies the rotation of a phone's video
            if not good:
                break
            time = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), time, time + 1 / self.rate
        self._capture.release()


class _AvSource:
    """Frames read with PyAV.

    Attributes:
        rate, total: as in VideoReader.
        length: length in seconds according to the file, 0 if it does not say.
        damaged: number of packets and frames that could not be decoded.
        is_cut: whether reading ended before the end of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damaged, self.is_cut = path, 0, False
        with open_film(self.path) as film:
            stream = self._stream(film)
            self.rate = float(stream.average_rate or stream.guessed_rate or RATE)
            unit = stream.time_base or Fraction(0)
            whole = (film.duration or 0) / MICROSECONDS
            self.length = float((stream.duration or 0) * unit) or stated_seconds(stream.metadata.get("DURATION", ""))
            if not self.length and len(film.streams) == 1:
                self.length = whole
            if film.format.name == "avi":  # its length is that of the existing data; the number of frames is stated
                self.length = max(self.length, stream.frames / self.rate)
            # A trimmed video states the number of all frames, but the length of those that are shown.
            self.total = round((self.length or whole) * self.rate) or stream.frames
            self._start = (stream.start_time or 0) * unit

    def _stream(self, film: Any) -> Any:
        """The video stream, not a cover image."""
        stream = film.streams.best("video")
        if stream is None:
            raise UserError(f"{self.path}: it contains no video")
        if stream.codec_context is None:
            raise UserError(f"{self.path}: its video codec is not supported")
        return stream

    def frames(self) -> Iterator[Timed]:
        import av

        with open_film(self.path) as film:
            stream = self._stream(film)
            stream.thread_type = "AUTO"
            # In AVI files only the decoding times are right, in steps of one frame; with B-frames the others are wrong.
            is_avi, first = film.format.name == "avi", None
            expected = time = 0.0
            for picture in self._decoded(film, stream):
                unit = picture.time_base or stream.time_base
                stamp = picture.dts if is_avi else picture.pts
                if is_avi and first is None:
                    first = stamp
                start = first * unit if first is not None else self._start
                last, time = time, expected if stamp is None else max(0.0, float(stamp * unit - start))
                time = time if time > last else expected
                length = float((picture.duration or 0) * unit)
                expected = time + (length if length > 0 else 1 / self.rate)
                try:
                    frame = to_rgb(picture)
                except av.FFmpegError:
                    self.damaged += 1
                    continue
                yield frame, time, expected

    def _decoded(self, film: Any, stream: Any) -> Iterator[Any]:
        """PyAV's frames. Packets that cannot be decoded are skipped, as players do."""
        import av

        packets = demuxed(film, stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self.is_cut, packet = True, None
            try:
                pictures = stream.codec_context.decode(packet)
            except av.EOFError:  # an empty packet has already flushed the decoder
                pictures = []
            except av.FFmpegError:
                self.damaged, pictures = self.damaged + 1, []
            yield from pictures
            if packet is None:
                return


def open_film(path: Path) -> Any:
    """Open a video file as PyAV's container. Titles in old text encodings are no error."""
    import av

    return av.open(address(path), metadata_errors="replace")


def stated_seconds(text: str) -> float:
    """The seconds of a length in Matroska's form, such as 00:01:02.500000000; 0 for other texts."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text)
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3]) if match else 0.0


def demuxed(film: Any, stream: Any) -> Iterator[Any]:
    """PyAV's packets of one stream."""
    while True:
        try:
            yield from film.demux(stream)
        except IndexError:  # damaged data look like the start of a new stream, which PyAV does not know
            continue
        return


def to_rgb(picture: Any) -> np.ndarray:
    """PyAV's frame as RGB uint8 (H, W, 3), upright. If the colour matrix is not stated, we guess it as players do."""
    matrix = None
    if not picture.format.is_rgb and picture.colorspace not in MATRICES:
        matrix = BT709 if picture.height >= HD_HEIGHT else BT601
    frame = picture.reformat(format="rgb24", src_colorspace=matrix).to_ndarray()
    turns = round(picture.rotation / 90) % 4  # counterclockwise
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame

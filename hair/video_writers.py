"""Videos and numbered pictures, written frame by frame."""

import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hair.errors import UserError
from hair.files import encode_picture, write_json
from hair.sound import Sound
from hair.video_readers import address, ffmpeg_errors, find_av, opencv_name

CLOCK = Fraction(1, 90_000)  # seconds; the rates of films and broadcasts are whole numbers of it
NEAR = 16  # pixels beside the cut-out that keep their colour, for the codec's blocks at the edge
FRAME_NAME = re.compile(r"\d{6,}\.png")
TIMES = "times.json"
EVEN_TIMES = 0.002  # seconds by which times of a constant rate may differ: Matroska rounds to milliseconds


@dataclass(frozen=True)
class Encoding:
    """How pictures become a file.

    Attributes:
        kind: of file, as FFmpeg names it.
        codec: of the pictures.
        pixels: FFmpeg's name of their format.
        options: of the codec.
        is_halved: whether the format needs even sides.
    """

    kind: str
    codec: str
    pixels: str
    options: dict[str, str] = field(default_factory=dict)
    is_halved: bool = False


# Without B-frames MP4 states the length of each frame exactly, also that of the last; files are 9% larger.
# 18 is nearly lossless to the eye in H.264. ProRes 4444 is what editors take, VP9 what browsers do. A second of 720p
# whose hair is 4% of it takes 2.2 s of a core and 4.9 MB as ProRes, 1.7 s and 0.07 MB as VP9, 0.4 s as PNGs.
ENCODINGS = {
    ".mp4": Encoding("mp4", "libx264", "yuv420p", {"crf": "18", "bf": "0"}, is_halved=True),
    ".mov": Encoding("mov", "prores_ks", "yuva444p10le", {"profile": "4444", "vendor": "apl0"}),
    ".webm": Encoding("webm", "libvpx-vp9", "yuva420p", {"crf": "20", "b:v": "0", "cpu-used": "5", "row-mt": "1"}),
}


def create_film(path: Path, kind: str) -> Any:
    """PyAV's container of a new file."""
    import av

    return av.open(address(path), "w", kind)


class AvWriter:
    """Writes a video with the frames' own times, in BT.709's colours, and the sound of `source`.

    Args:
        path: of the video; its ending, of ENCODINGS, says how it is written. Only `.mp4` has no transparency.
        rate: frames per second, on average.
        source: a video file, whose sound is kept, or a camera's number.

    Raises:
        UserError, OSError: what cannot be written.
    """

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        import av
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

        self._path, self._name, self._encoding = path, source, ENCODINGS[path.suffix]
        self._rate, self._matrix = rate, Colorspace.ITU709
        self._last, self._lengths = -1, {-1: 0}
        with self._errors():
            self._file = create_film(path, self._encoding.kind)
            speed = Fraction(rate).limit_denominator(1001)
            encoding = self._encoding
            self._stream = self._file.add_stream(encoding.codec, rate=speed, options=dict(encoding.options))
            self._stream.pix_fmt = self._encoding.pixels
            context = self._stream.codec_context
            context.time_base = CLOCK
            # Where a video does not state its colour matrix, players guess it by its size, each in its own way.
            context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
            context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
            self._sound = Sound(source, self._file, self._encoding.kind)
        self._waiting: av.VideoFrame | None = None  # the last frame, whose length is not known yet

    def _errors(self) -> AbstractContextManager[None]:
        return ffmpeg_errors(self._name, self._path)

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB or RGBA uint8 (H, W, 3 or 4), that is shown from `time`, seconds."""
        import av

        frame = fill_around(frame)
        even = evened(frame) if self._encoding.is_halved else frame
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        elif even.shape[:2] != (self._stream.height, self._stream.width):  # as in a call whose connection gets worse
            even = cv2.resize(even, (self._stream.width, self._stream.height), interpolation=cv2.INTER_AREA)
        with self._errors():
            kind = "rgba" if even.shape[2] == 4 else "rgb24"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format=kind)
            picture = picture.reformat(format=self._encoding.pixels, dst_colorspace=self._matrix)
            self._last = picture.pts = max(self._last + 1, round((time + self._sound.delay) / CLOCK))
            picture.time_base = CLOCK
            self._encode_waiting(self._last)
            self._waiting = picture

    def _encode_waiting(self, end: int) -> None:
        """Encode the last frame, which is shown until `end`, in ticks of CLOCK."""
        if self._waiting is None:
            return
        picture, self._waiting = self._waiting, None
        assert picture.pts is not None
        picture.duration = self._lengths[picture.pts] = max(1, end - picture.pts)
        self._mux(picture)
        self._sound.write(picture.pts * CLOCK)  # beside the pictures, as players read them

    def _mux(self, picture: Any) -> None:
        """Encode PyAV's frame, or None for the end."""
        for packet in self._stream.encode(picture):
            if packet.pts is not None and packet.time_base == CLOCK:
                packet.duration = self._lengths.pop(packet.pts, packet.duration)
            self._file.mux(packet)

    def close(self, stopped: bool, end: float | None = None) -> None:
        """End the file.

        Args:
            stopped: whether the sound ends with the frames, too.
            end: seconds until which the last frame is shown (default: as long as the rate says).
        """
        usual = self._last + round(1 / self._rate / CLOCK)
        last = usual if end is None else round((end + self._sound.delay) / CLOCK)
        with self._errors():
            self._encode_waiting(last)
            self._mux(None)
            self._sound.write(last * CLOCK if stopped else None)
            self._sound.close()
            self._file.close()


def evened(frame: np.ndarray) -> np.ndarray:
    """A frame with its last row and column repeated where its height and width are odd."""
    height, width = frame.shape[:2]
    return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def fill_around(cut_out: np.ndarray) -> np.ndarray:
    """One colour where nothing is seen, which makes files smaller, a tenth of PNG's; RGBA uint8 (H, W, 4).

    A picture without transparency, RGB (H, W, 3), stays as it is.
    """
    if cut_out.shape[2] == 3:
        return cut_out
    seen = cut_out[..., 3] > 0
    near = cv2.dilate(seen.view(np.uint8), np.ones((2 * NEAR + 1, 1), np.uint8))
    near = cv2.dilate(near, np.ones((1, 2 * NEAR + 1), np.uint8))
    color = cv2.mean(cut_out, seen.view(np.uint8))[:3]
    filled = np.empty_like(cut_out)
    filled[:] = (*map(round, color), 0)
    return cv2.copyTo(cut_out, near, filled)


class CvWriter:
    """Writes MPEG-4 at a constant rate, without sound."""

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 (H, W, 3); `time` is not used. Raises OSError."""
        frame = evened(frame)  # OpenCV would cut off the last row and column
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            name = opencv_name(self._path)
            self._size = frame.shape[1::-1]
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, code, self._rate, self._size)
            if not self._writer.isOpened():
                self._writer = cv2.VideoWriter(name, code, self._rate, self._size)  # by what the system has
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: OpenCV cannot write videos here; pip install av")
        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self, stopped: bool, end: float | None = None) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.release()


class FramesWriter:
    """Writes a folder of pictures, `000001.png` and so on, and `times.json` where the times are not a constant rate's.

    Args:
        path: of the folder, which must not exist.
    """

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        path.mkdir()
        self._path, self._times = path, list[float]()

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB or RGBA uint8 (H, W, 3 or 4), that is shown from `time`, seconds. Raises OSError."""
        self._times.append(time)
        (self._path / f"{len(self._times):06}.png").write_bytes(encode_picture(fill_around(frame)))

    def close(self, stopped: bool, end: float | None = None) -> None:
        """Write the times, in seconds, where they are needed: those of each picture and the end."""
        times = np.array(self._times)
        even = np.linspace(times[0], times[-1], len(times))
        if np.abs(times - even).max() > EVEN_TIMES:
            pictures = {f"{number:06}.png": round(time, 6) for number, time in enumerate(self._times, 1)}
            write_json(self._path / TIMES, {"times": pictures, "end": None if end is None else round(end, 6)})


def check_folder(path: Path) -> None:
    """Raise UserError for a folder that holds other files than pictures of FramesWriter, as it would be replaced."""
    if path.is_dir() and not path.is_symlink():
        names = [one.name for one in path.iterdir()]
        if all(FRAME_NAME.fullmatch(name) or name == TIMES for name in names):
            return
    elif not path.exists() and not path.is_symlink():
        return
    raise UserError(f"{path}: already exists and holds other files; remove it, or choose another --output_dir")


Writer = AvWriter | CvWriter | FramesWriter


def choose_writer() -> type[AvWriter] | type[CvWriter]:
    """PyAV's where it is installed, else OpenCV's, with a line on what is lost."""
    if find_av():
        return AvWriter
    print("the sound is left out and frames get a constant rate; for both: pip install av", file=sys.stderr)
    return CvWriter

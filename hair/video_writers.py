"""Write videos and folders of numbered images, frame by frame."""

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

CLOCK = Fraction(1, 90_000)  # seconds per tick; the frame times of films and broadcasts are whole numbers of ticks
NEAR = 16  # pixels around the cut-out that keep their colour, for the codec's blocks at the edge
FRAME_NAME = re.compile(r"\d{6,}\.png")
TIMES = "times.json"
EVEN_TIMES = 0.002  # seconds by which frame times of a constant rate may vary: Matroska rounds to milliseconds


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        kind: FFmpeg's name of the container format.
        codec: FFmpeg's name of the video codec.
        pixels: FFmpeg's name of the pixel format.
        options: options of the codec.
        is_halved: whether width and height must be even.
    """

    kind: str
    codec: str
    pixels: str
    options: dict[str, str] = field(default_factory=dict)
    is_halved: bool = False


# Without B-frames, MP4 stores the exact length of each frame, including the last one; files are 9% larger.
# In H.264, crf 18 looks nearly lossless. Video editors read ProRes 4444, browsers read VP9. One second of 720p of which
# 4% is hair takes 2.2 s of one core and 4.9 MB as ProRes, 1.7 s and 0.07 MB as VP9, and 0.4 s as PNGs.
ENCODINGS = {
    ".mp4": Encoding("mp4", "libx264", "yuv420p", {"crf": "18", "bf": "0"}, is_halved=True),
    ".mov": Encoding("mov", "prores_ks", "yuva444p10le", {"profile": "4444", "vendor": "apl0"}),
    ".webm": Encoding("webm", "libvpx-vp9", "yuva420p", {"crf": "20", "b:v": "0", "cpu-used": "5", "row-mt": "1"}),
}


def create_film(path: Path, kind: str) -> Any:
    """Open a new file as PyAV's container."""
    import av

    return av.open(address(path), "w", kind)


class AvWriter:
    """Writes a video with the exact frame times, BT.709 colours, and the sound of `source`.

    Args:
        path: the new video; its suffix, a key of ENCODINGS, selects the encoding. Only `.mp4` has no transparency.
        rate: frames per second, on average.
        source: a video file, whose sound is kept, or the number of a camera.

    Raises:
        UserError, OSError: the video cannot be written.
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
            # If a video does not state its colour matrix, each player guesses it from the size in its own way.
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
        elif even.shape[:2] != (self._stream.height, self._stream.width):  # as in video calls with a bad connection
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
        self._sound.write(picture.pts * CLOCK)  # interleaved with the frames, as players need it

    def _mux(self, picture: Any) -> None:
        """Encode a PyAV frame; None flushes the encoder."""
        for packet in self._stream.encode(picture):
            if packet.pts is not None and packet.time_base == CLOCK:
                packet.duration = self._lengths.pop(packet.pts, packet.duration)
            self._file.mux(packet)

    def close(self, stopped: bool, end: float | None = None) -> None:
        """End the file.

        Args:
            stopped: whether to end the sound with the last frame.
            end: time until which the last frame is shown, in seconds (default: one frame at the average rate).
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
    """The frame with its last row or column repeated if its height or width is odd."""
    height, width = frame.shape[:2]
    return cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)


def fill_around(cut_out: np.ndarray) -> np.ndarray:
    """Fill transparent parts, RGBA uint8 (H, W, 4), with one colour; this makes PNG files ten times smaller.

    An image without transparency, RGB (H, W, 3), is returned unchanged.
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
        frame = evened(frame)  # OpenCV would drop the last row and column
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            name = opencv_name(self._path)
            self._size = frame.shape[1::-1]
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, code, self._rate, self._size)
            if not self._writer.isOpened():
                self._writer = cv2.VideoWriter(name, code, self._rate, self._size)  # any backend of the system
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
    """Writes a folder of images, `000001.png` and so on, and `times.json` if the frame rate is not constant.

    Args:
        path: the folder, which must not exist.
    """

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        path.mkdir()
        self._path, self._times = path, list[float]()

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB or RGBA uint8 (H, W, 3 or 4), that is shown from `time`, seconds. Raises OSError."""
        self._times.append(time)
        (self._path / f"{len(self._times):06}.png").write_bytes(encode_picture(fill_around(frame)))

    def close(self, stopped: bool, end: float | None = None) -> None:
        """Write the time of each image and of the end, in seconds, if the frame rate is not constant."""
        times = np.array(self._times)
        even = np.linspace(times[0], times[-1], len(times))
        if np.abs(times - even).max() > EVEN_TIMES:
            pictures = {f"{number:06}.png": round(time, 6) for number, time in enumerate(self._times, 1)}
            write_json(self._path / TIMES, {"times": pictures, "end": None if end is None else round(end, 6)})


def check_folder(path: Path) -> None:
    """Raise UserError if a folder that would be replaced contains files that FramesWriter did not write."""
    if path.is_dir() and not path.is_symlink():
        names = [one.name for one in path.iterdir()]
        if all(FRAME_NAME.fullmatch(name) or name == TIMES for name in names):
            return
    elif not path.exists() and not path.is_symlink():
        return
    raise UserError(f"{path}: already exists and contains other files; remove it, or choose another --output_dir")


Writer = AvWriter | CvWriter | FramesWriter


def choose_writer() -> type[AvWriter] | type[CvWriter]:
    """AvWriter if PyAV is installed, else CvWriter and a line that says what is lost."""
    if find_av():
        return AvWriter
    print("without PyAV the sound and the exact frame times are lost; to keep both: pip install av", file=sys.stderr)
    return CvWriter

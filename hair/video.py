"""Videos and cameras: frames in, pictures of the hair out, steadied over time, with the sound.

PyAV (`pip install av`) keeps the sound and each frame's time. Without it OpenCV writes the pictures alone.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hair.effects import Looks, draw
from hair.errors import UserError
from hair.files import atomic

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".3gp", ".wmv")
KINDS = ("overlay", "mask", "recolor")  # what a video without transparency can show
UNSPECIFIED = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED: the file does not say how its colours are coded
STILL, MOVED = 4, 12  # grey levels of change up to which a pixel counts as still, and from which as moved
HD_HEIGHT = 720  # from here on players assume BT.709 where a file does not say
QUALITY = "18"  # of H.264, its constant rate factor: 18 is nearly lossless to the eye


@dataclass(frozen=True)
class VideoPlan:
    """What to make of a video.

    Attributes:
        kinds: of results; those that a video cannot show are left out.
        looks: of the pictures.
        every: run the network on each Nth frame only.
        smooth: share of the last frame's probabilities in places that stand still, 0 to 0.95.
    """

    kinds: tuple[str, ...]
    looks: Looks
    every: int = 1
    smooth: float = 0.6


def is_video(path: Path) -> bool:
    """Whether an input is a video file or a camera's number."""
    return path.suffix.lower() in VIDEO_SUFFIXES or _is_camera(path)


def _is_camera(path: Path) -> bool:
    return str(path).isdecimal() and not path.exists()


class Smoother:
    """Reduces flicker: where the picture stands still, each frame's probabilities are mixed with those before.

    Args:
        share: weight of the past in places that stand still, 0 to 0.95; in places that move it is 0.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frame: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Smooth the `probabilities`, float32 (H, W), of a `frame`, RGB uint8 (H, W, 3). Returns float32 (H, W)."""
        # Blurred, so that a camera's noise does not count as movement.
        grey = cv2.blur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (9, 9))
        if self._last is not None and self._last[0].shape == grey.shape:
            moved = cv2.absdiff(grey, self._last[0]).astype(np.float32)
            past = self.share * np.clip((MOVED - moved) / (MOVED - STILL), 0, 1)
            probabilities = probabilities + past * (self._last[1] - probabilities)
        self._last = grey, probabilities
        return probabilities


class VideoReader:
    """Frames of a video file or a camera, as (RGB uint8 (H, W, 3), time in seconds).

    Attributes:
        path: as given.
        rate: frames per second.
        total: number of frames that the file states, 0 where it does not.

    Raises:
        FileNotFoundError: no such file.
        UserError: what cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        is_camera = _is_camera(path)
        if not path.exists() and not is_camera:
            raise FileNotFoundError(f"{path}: no such file")
        self.path = path
        self._capture = cv2.VideoCapture(int(path.name) if is_camera else str(path))
        if not self._capture.isOpened():
            raise UserError(f"{path}: {'no such camera' if is_camera else 'cannot be read as a video'}")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 30.0
        self.total = 0 if is_camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        count = 0
        while True:
            good, frame = self._capture.read()  # OpenCV applies the rotation of a phone's video
            if not good:
                break
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            count += 1
        self._capture.release()
        if not count:
            raise UserError(f"{self.path}: no frames in it")


class AvWriter:
    """Writes H.264 with the frames' own times, in BT.709's colours, and copies the sound of `source`."""

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        import av
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

        self._file = av.open(str(path), "w")
        self._stream = self._file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": QUALITY}
        self._clock = Fraction(1, 90_000)
        context = self._stream.codec_context
        context.time_base = self._clock
        # Where a video does not state its colour matrix, players guess it by its size, each in its own way.
        self._matrix = context.colorspace = Colorspace.ITU709
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.color_range = ColorRange.MPEG
        self._last = -1
        self._begin = self._delay = Fraction(0)
        self._source = av.open(str(source)) if source.is_file() else None
        if self._source is None:
            self._sound = None
            return
        pictures, self._sound = self._source.streams.video[0], next(iter(self._source.streams.audio), None)
        if (
            pictures.height >= HD_HEIGHT
            and pictures.codec_context.colorspace == UNSPECIFIED
            and not pictures.format.is_rgb
        ):
            self._matrix = Colorspace.ITU601  # players decode it as BT.709, OpenCV as BT.601: undo OpenCV's
        if self._sound:
            try:
                self._copy = self._file.add_stream_from_template(self._sound)
            except ValueError:
                print(f"{source}: MP4 cannot hold its kind of sound, which is left out", file=sys.stderr)
                self._sound = None
                return
            # OpenCV counts times from the first frame; packets of sound have the source's own times, which may begin
            # anywhere, as in a recorded broadcast. Both are to count from the earlier of the two.
            first, heard = (Fraction(s.start_time or 0) * (s.time_base or 1) for s in (pictures, self._sound))
            self._begin = min(first, heard)
            self._delay = first - self._begin

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 (H, W, 3), that is shown from `time`, seconds."""
        import av

        even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]  # H.264 needs even sides
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=self._matrix)
        self._last = picture.pts = max(self._last + 1, round((time + self._delay) / self._clock))
        picture.time_base = self._clock
        self._file.mux(self._stream.encode(picture))

    def close(self, stopped: bool) -> None:
        """Flush the frames, then write the sound: all of it, or if `stopped` up to the last frame."""
        self._file.mux(self._stream.encode())
        if self._source and self._sound:
            for packet in self._source.demux(self._sound):
                if packet.dts is None:
                    continue
                packet.dts -= round(self._begin / packet.time_base)
                packet.pts = packet.dts  # sound is played in the order in which it is stored
                if stopped and packet.dts * packet.time_base > self._last * self._clock:
                    break
                packet.stream = self._copy
                self._file.mux(packet)
        if self._source:
            self._source.close()
        self._file.close()


class CvWriter:
    """Writes MPEG-4 at a constant rate, without sound."""

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        self._path, self._rate = path, rate
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 (H, W, 3); `time` is not used. Raises OSError."""
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, frame.shape[1::-1])
            if not self._writer.isOpened():
                raise OSError(f"{self._path}: OpenCV cannot write videos here; pip install av")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self, stopped: bool) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.release()


def choose_writer() -> type[AvWriter] | type[CvWriter]:
    """PyAV's where it is installed, else OpenCV's, with a line on what is lost."""
    try:
        import av  # noqa: F401
    except ImportError:
        print("the sound is left out and frames get a constant rate; for both: pip install av", file=sys.stderr)
        return CvWriter
    return AvWriter


def segment_video(path: Path, name: Path, segmenter: Callable, plan: VideoPlan) -> str:
    """Write `<name>_<kind>.mp4` for each kind of the plan. Ctrl-C ends the video there and keeps it.

    Args:
        path: a video file, or a camera's number, which is read until Ctrl-C.
        name: path without ending, see `files.result_names`.
        segmenter: from RGB uint8 (H, W, 3) to float32 (H, W), as `HairSegmenter`.
        plan: what to write; kinds that a video cannot show are left out, with a line on standard error.

    Returns:
        A line to print.

    Raises:
        UserError, OSError: an unreadable video, no kind that a video can show, a file that cannot be written.
    """
    kinds = _video_kinds(path, plan.kinds)
    reader, writer_type = VideoReader(path), choose_writer()
    targets = {kind: name.with_name(f"{name.name}_{kind}.mp4") for kind in kinds}
    share, frames, stopped = 0.0, 0, False
    with ExitStack() as stack:
        writers = {
            kind: writer_type(stack.enter_context(atomic(target)), reader.rate, path)
            for kind, target in targets.items()
        }
        try:
            for frame, probabilities, time in _segmented(reader, segmenter, plan):
                for kind, writer in writers.items():
                    picture = draw(kind, frame, probabilities, plan.looks)
                    if kind == "mask":
                        picture = np.repeat(picture[..., None], 3, 2)
                    writer.write(picture, time)
                share += (probabilities >= plan.looks.threshold).mean()
                frames += 1
        except KeyboardInterrupt:
            if not frames:
                raise
            stopped = True
        for writer in writers.values():
            writer.close(stopped)
    files = " ".join(map(str, targets.values()))
    return f"{path}: {frames} frames, {share / frames:.1%} hair -> {files}"


def _video_kinds(path: Path, kinds: Sequence[str]) -> list[str]:
    """The kinds that a video can show; a line on standard error names the others. Raises UserError if none is left."""
    fitting = [kind for kind in kinds if kind in KINDS]
    if others := " ".join(kind for kind in kinds if kind not in KINDS):
        message = f"{path}: --save {others} is for photos; a video can be {', '.join(KINDS)}"
        if not fitting:
            raise UserError(message)
        print(message, file=sys.stderr)
    return fitting


def _segmented(
    reader: VideoReader, segmenter: Callable, plan: VideoPlan
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Frames with their steadied probabilities and times, with a progress bar."""
    smoother = Smoother(plan.smooth)
    progress = tqdm(reader, total=reader.total or None, unit="frame", desc=reader.path.name)
    for number, (frame, time) in enumerate(progress):
        if number % plan.every == 0:
            probabilities = smoother(frame, segmenter(frame))
        yield frame, probabilities, time

"""Videos and cameras: frames in, pictures of the hair out, at the same frame rate, steadied over time, with the sound.

PyAV (`pip install av`) keeps the sound and the frames' own times. Without it OpenCV writes the pictures alone.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

import render

KINDS = ("overlay", "mask", "recolor")  # what a video without transparency can show
UNTOLD = 2  # FFmpeg's AVCOL_SPC_UNSPECIFIED: the video does not tell its colours' matrix


class Smoother:
    """Steadies probabilities over time against flicker: where the picture stands still, the past counts.

    Args:
        share: of the past in places that stand still, 0 to 0.95; places that move forget it.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frame: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Args: `frame` RGB uint8 (H, W, 3) and its `probabilities` float32 (H, W). Returns the steadied ones."""
        # Blurred, so that a camera's noise does not count as movement.
        grey = cv2.blur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (9, 9))
        if self._last is not None and self._last[0].shape == grey.shape:
            moved = cv2.absdiff(grey, self._last[0]).astype(np.float32)
            past = self.share * np.clip(1.5 - moved / 8, 0, 1)  # in full up to 4 grey levels, none from 12 on
            probabilities = probabilities + past * (self._last[1] - probabilities)
        self._last = grey, probabilities
        return probabilities


class Reader:
    """Frames of a video file or a camera, as (RGB uint8 (H, W, 3), time in seconds or None).

    Attributes:
        rate: frames per second.
        total: number of frames as the file tells, 0 where it does not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what cannot be read as a video.
    """

    def __init__(self, path: Path) -> None:
        is_camera = not path.exists() and str(path).isdecimal()
        if not path.exists() and not is_camera:
            raise FileNotFoundError(f"{path}: no such file")
        self._path = path
        self._capture = cv2.VideoCapture(int(path.name) if is_camera else str(path))
        if not self._capture.isOpened():
            raise ValueError(f"{path}: {'no such camera' if is_camera else 'cannot be read as a video'}")
        self.rate = self._capture.get(cv2.CAP_PROP_FPS) or 30.0
        self.total = 0 if is_camera else max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[tuple[np.ndarray, float]]:
        count = 0
        while True:
            good, frame = self._capture.read()  # turned upright by OpenCV where a phone was held on its side
            if not good:
                break
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            count += 1
        self._capture.release()
        if not count:
            raise ValueError(f"{self._path}: no frames in it")


class AvWriter:
    """Writes H.264 with the frames' own times, in BT.709's colours, and copies the sound of `source`."""

    def __init__(self, path: Path, rate: float, source: Path) -> None:
        import av
        from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

        self._file = av.open(str(path), "w")
        self._stream = self._file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": "18"}
        self._clock = Fraction(1, 90_000)
        context = self._stream.codec_context
        context.time_base = self._clock
        # Of a video that does not tell its matrix, players guess it by its size, each in its own way.
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
        if pictures.height >= 720 and pictures.codec_context.colorspace == UNTOLD and not pictures.format.is_rgb:
            self._matrix = Colorspace.ITU601  # players show it by BT.709, OpenCV reads it by BT.601: undo that
        if self._sound:
            try:
                self._copy = self._file.add_stream_from_template(self._sound)
            except ValueError:
                print(f"{source}: MP4 cannot hold its kind of sound, which is left out", file=sys.stderr)
                self._sound = None
                return
            # OpenCV counts times from the first picture; packets of sound tell the source's own, which may begin
            # anywhere, as in a recorded broadcast. Both shall count from the earlier of the two.
            first, heard = (Fraction(s.start_time or 0) * (s.time_base or 1) for s in (pictures, self._sound))
            self._begin = min(first, heard)
            self._delay = first - self._begin

    def write(self, frame: np.ndarray, time: float) -> None:
        """Add a frame, RGB uint8 (H, W, 3), that is shown from `time`, seconds."""
        import av

        even = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]  # H.264 halves the colours' resolution
        if self._last < 0:
            self._stream.height, self._stream.width = even.shape[:2]
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=self._matrix)
        self._last = picture.pts = max(self._last + 1, round((time + self._delay) / self._clock))
        picture.time_base = self._clock
        self._file.mux(self._stream.encode(picture))

    def close(self, stopped: bool) -> None:
        """Write what is still to be written, then the sound: all of it, or where `stopped` up to the last frame."""
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
    """PyAV's where it is installed, else OpenCV's, saying what is lost."""
    try:
        import av  # noqa: F401
    except ImportError:
        print("the sound is left out and frames get a constant rate; for both: pip install av", file=sys.stderr)
        return CvWriter
    return AvWriter


def segment_video(path: Path, name: Path, segmenter: Callable, args: argparse.Namespace) -> str:
    """Write `<name>_<kind>.mp4` for each kind of `args.save`; Ctrl-C ends the video there and keeps it.

    Args:
        path: a video file, or a camera's number, which is read until Ctrl-C.
        name: as `inference.result_names` gives it.
        segmenter: from RGB uint8 (H, W, 3) to float32 (H, W), as `HairSegmenter`.
        args: `save`, `color` (RGB), `threshold`, `every`, `smooth`; kinds of `save` that a video cannot be are left
            out, with a line on standard error.

    Returns:
        A line to print.

    Raises:
        ValueError, OSError: an unreadable video, no kind that a video can be, a file that cannot be written.
    """
    kinds = [kind for kind in args.save if kind in KINDS]
    if wrong := " ".join(kind for kind in args.save if kind not in KINDS):
        told = f"{path}: --save {wrong} is for photos; a video can be {', '.join(KINDS)}"
        if not kinds:
            raise ValueError(told)
        print(told, file=sys.stderr)
    reader, writer_type, smooth = Reader(path), choose_writer(), Smoother(args.smooth)
    targets = {kind: name.with_name(f"{name.name}_{kind}.mp4") for kind in kinds}
    parts = {kind: target.with_name(f".{target.name}.part.mp4") for kind, target in targets.items()}
    writers = {kind: writer_type(part, reader.rate, path) for kind, part in parts.items()}
    share = frames = 0
    stopped = False
    try:
        try:
            for frame, time in tqdm(reader, total=reader.total or None, unit="frame", desc=path.name):
                if frames % args.every == 0:
                    probabilities = smooth(frame, segmenter(frame))
                for kind, writer in writers.items():
                    picture = render.draw(kind, frame, probabilities, args.threshold, args.color)
                    writer.write(np.repeat(picture[..., None], 3, 2) if kind == "mask" else picture, time)
                share, frames = share + (probabilities >= args.threshold).mean(), frames + 1
        except KeyboardInterrupt:
            if not frames:
                raise
            stopped = True
        for kind, writer in writers.items():
            writer.close(stopped)
            parts[kind].replace(targets[kind])
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    files = " ".join(map(str, targets.values()))
    return f"{path}: {frames} frames, {share / frames:.1%} hair -> {files}"

"""Find the hair in videos and camera streams, smooth it over time, and write videos with the original sound.

PyAV (`pip install av`) keeps the sound and the time of each frame. Without it, OpenCV writes the frames only.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from hair.effects import Looks, draw
from hair.errors import UserError
from hair.files import atomic
from hair.video_readers import VideoReader, find_av, is_video
from hair.video_writers import AvWriter, CvWriter, FramesWriter, Writer, check_folder, choose_writer

__all__ = ["ENDINGS", "KINDS", "AvWriter", "CvWriter", "VideoPlan", "VideoReader", "is_video", "segment_video"]

KINDS = ("overlay", "mask", "recolor")  # the kinds of results that are MP4 files
ALPHA_FORMATS = ("mov", "webm")  # ProRes 4444 for editors, VP9 for browsers
OPAQUE = "mp4"  # for cut-outs in front of a background
# The ending of each kind of result; FORMAT is one of ALPHA_FORMATS, or OPAQUE.
ENDINGS = {**{kind: f"_{kind}.mp4" for kind in KINDS}, "alpha": "_alpha.FORMAT", "frames": "_frames"}
STILL, MOVED = 4, 12  # change in grey levels: up to STILL a pixel counts as still, from MOVED on as moved


@dataclass(frozen=True)
class VideoPlan:
    """Which results to make from a video.

    Attributes:
        kinds: kinds of results; those that a video does not support are skipped.
        looks: settings of the effects.
        every: run the network on every Nth frame only.
        smooth: weight of the previous frame's probabilities where the picture does not move, 0 to 0.95.
        alpha_format: format of cut-outs, one of ALPHA_FORMATS; not used with a background, where it is OPAQUE.
    """

    kinds: tuple[str, ...]
    looks: Looks
    every: int = 1
    smooth: float = 0.6
    alpha_format: str = "mov"

    def ending(self, kind: str) -> str:
        """The ending of the file name of a result."""
        return ENDINGS[kind].replace("FORMAT", self.alpha_format if self.looks.background is None else OPAQUE)


class Smoother:
    """Reduces flicker: where the picture does not move, the probabilities are mixed with those of the previous frame.

    Args:
        share: weight of the previous frame where the picture does not move, 0 to 0.95; where it moves, the weight is 0.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frame: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Smooth the `probabilities`, float32 (H, W), of a `frame`, RGB uint8 (H, W, 3). Returns float32 (H, W)."""
        # Blurred, so that camera noise does not count as movement.
        grey = cv2.blur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (9, 9))
        if self._last is not None and self._last[0].shape == grey.shape:
            moved = cv2.absdiff(grey, self._last[0]).astype(np.float32)
            past = self.share * np.clip((MOVED - moved) / (MOVED - STILL), 0, 1)
            probabilities = probabilities + past * (self._last[1] - probabilities)
        self._last = grey, probabilities
        return probabilities


def segment_video(path: Path, name: Path, segmenter: Callable, plan: VideoPlan) -> str:
    """Write a video, or a folder of images, for each kind of the plan. Ctrl-C stops and keeps what has been written.

    Args:
        path: a video file, or the number of a camera, which is read until Ctrl-C.
        name: path without ending, see `files.result_names`; `VideoPlan.ending` is added.
        segmenter: function from RGB uint8 (H, W, 3) to float32 (H, W), such as a `HairSegmenter`.
        plan: what to write; kinds that a video does not support are skipped, with a line on standard error.

    Returns:
        A line to print.

    Raises:
        UserError, OSError: the video cannot be read, it supports none of the kinds, or a file cannot be written.
    """
    kinds = _video_kinds(path, plan.kinds)
    if "recolor" in kinds and plan.looks.dye.highlights is not None:
        raise UserError(f"{path}: --highlights is for photos; in a video the strands would change in every frame")
    targets = {kind: name.with_name(name.name + plan.ending(kind)) for kind in kinds}
    if "frames" in targets:
        check_folder(targets["frames"])
    reader = VideoReader(path)
    share, frames, stopped = 0.0, 0, False
    with ExitStack() as stack:
        writers = _open_writers({kind: stack.enter_context(atomic(targets[kind])) for kind in kinds}, reader)
        try:
            for frame, probabilities, time in _segmented(reader, segmenter, plan):
                _write(writers, frame, probabilities, time, plan.looks)
                share += (probabilities >= plan.looks.threshold).mean()
                frames += 1
        except KeyboardInterrupt:
            if not frames:
                raise
            stopped = True
        for writer in writers.values():
            writer.close(stopped, reader.end)
    files = " ".join(map(str, targets.values()))
    return f"{path}: {frames} frames, {share / frames:.1%} hair -> {files}"


def _open_writers(paths: dict[str, Path], reader: VideoReader) -> dict[str, Writer]:
    """A writer for each kind. Raises UserError for transparent cut-outs if PyAV is missing."""
    if "alpha" in paths and paths["alpha"].suffix != f".{OPAQUE}" and not find_av():
        raise UserError(f"{reader.path}: a video with transparency needs PyAV: pip install av; or --save frames")
    video_writer = choose_writer() if set(paths) - {"frames"} else FramesWriter
    types = {kind: FramesWriter if kind == "frames" else video_writer for kind in paths}
    return {kind: types[kind](path, reader.rate, reader.path) for kind, path in paths.items()}


def _write(writers: dict[str, Writer], frame: np.ndarray, probabilities: np.ndarray, time: float, looks: Looks) -> None:
    """Draw each kind of result of a frame and add it to its file."""
    pictures: dict[str, np.ndarray] = {}
    for kind, writer in writers.items():
        drawn = "alpha" if kind == "frames" else kind
        if drawn not in pictures:
            pictures[drawn] = draw(drawn, frame, probabilities, looks)
        picture = pictures[drawn]
        writer.write(np.repeat(picture[..., None], 3, 2) if kind == "mask" else picture, time)


def _video_kinds(path: Path, kinds: Sequence[str]) -> list[str]:
    """The kinds that a video supports; a line on standard error names the others. Raises UserError if none is left."""
    fitting = [kind for kind in kinds if kind in ENDINGS]
    if others := " ".join(kind for kind in kinds if kind not in ENDINGS):
        message = f"{path}: --save {others} is for photos; a video can be {', '.join(ENDINGS)}"
        if not fitting:
            raise UserError(message)
        print(message, file=sys.stderr)
    return fitting


def _segmented(
    reader: VideoReader, segmenter: Callable, plan: VideoPlan
) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Frames with their smoothed probabilities and times, with a progress bar."""
    smoother = Smoother(plan.smooth)
    progress = tqdm(reader, total=reader.total or None, unit="frame", desc=reader.path.name)
    for number, (frame, time) in enumerate(progress):
        if number % plan.every == 0:
            probabilities = smoother(frame, segmenter(frame))
        yield frame, probabilities, time

"""Videos and cameras: frames in, pictures of the hair out, steadied over time, with the sound.

PyAV (`pip install av`) keeps the sound and each frame's time. Without it OpenCV writes the pictures alone.
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
OPAQUE = "mp4"  # cut-outs before a background
# What is added to the name of each kind's result; FORMAT is one of ALPHA_FORMATS, or OPAQUE.
ENDINGS = {**{kind: f"_{kind}.mp4" for kind in KINDS}, "alpha": "_alpha.FORMAT", "frames": "_frames"}
STILL, MOVED = 4, 12  # grey levels of change up to which a pixel counts as still, and from which as moved


@dataclass(frozen=True)
class VideoPlan:
    """What to make of a video.

    Attributes:
        kinds: of results; those that a video cannot show are left out.
        looks: of the pictures.
        every: run the network on each Nth frame only.
        smooth: share of the last frame's probabilities in places that stand still, 0 to 0.95.
        alpha_format: of the cut-out's video, of ALPHA_FORMATS; before a background it is OPAQUE.
    """

    kinds: tuple[str, ...]
    looks: Looks
    every: int = 1
    smooth: float = 0.6
    alpha_format: str = "mov"

    def ending(self, kind: str) -> str:
        """What is added to the name of a result."""
        return ENDINGS[kind].replace("FORMAT", self.alpha_format if self.looks.background is None else OPAQUE)


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


def segment_video(path: Path, name: Path, segmenter: Callable, plan: VideoPlan) -> str:
    """Write a video, or a folder of pictures, for each kind of the plan. Ctrl-C ends them there and keeps them.

    Args:
        path: a video file, or a camera's number, which is read until Ctrl-C.
        name: path without ending, see `files.result_names`; `VideoPlan.ending` is added.
        segmenter: from RGB uint8 (H, W, 3) to float32 (H, W), as `HairSegmenter`.
        plan: what to write; kinds that a video cannot show are left out, with a line on standard error.

    Returns:
        A line to print.

    Raises:
        UserError, OSError: an unreadable video, no kind that a video can show, a file that cannot be written.
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
    """A writer for each kind. Raises UserError for a cut-out without PyAV."""
    if "alpha" in paths and paths["alpha"].suffix != f".{OPAQUE}" and not find_av():
        raise UserError(f"{reader.path}: a video with transparency needs PyAV: pip install av; or --save frames")
    video_writer = choose_writer() if set(paths) - {"frames"} else FramesWriter
    types = {kind: FramesWriter if kind == "frames" else video_writer for kind in paths}
    return {kind: types[kind](path, reader.rate, reader.path) for kind, path in paths.items()}


def _write(writers: dict[str, Writer], frame: np.ndarray, probabilities: np.ndarray, time: float, looks: Looks) -> None:
    """Draw each kind of picture of a frame and add it to its file."""
    pictures: dict[str, np.ndarray] = {}
    for kind, writer in writers.items():
        drawn = "alpha" if kind == "frames" else kind
        if drawn not in pictures:
            pictures[drawn] = draw(drawn, frame, probabilities, looks)
        picture = pictures[drawn]
        writer.write(np.repeat(picture[..., None], 3, 2) if kind == "mask" else picture, time)


def _video_kinds(path: Path, kinds: Sequence[str]) -> list[str]:
    """The kinds that a video can show; a line on standard error names the others. Raises UserError if none is left."""
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
    """Frames with their steadied probabilities and times, with a progress bar."""
    smoother = Smoother(plan.smooth)
    progress = tqdm(reader, total=reader.total or None, unit="frame", desc=reader.path.name)
    for number, (frame, time) in enumerate(progress):
        if number % plan.every == 0:
            probabilities = smoother(frame, segmenter(frame))
        yield frame, probabilities, time

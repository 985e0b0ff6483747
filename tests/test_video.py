"""Videos keep their sound in step and their colours, wherever their times begin and whatever they tell."""

import argparse
from pathlib import Path

import numpy as np
import pytest

import video

av = pytest.importorskip("av")
REC709, REC601 = 1, 5  # FFmpeg's numbers of the matrices
HOPS, RATE = 1024, 44100  # samples in a packet of sound, and in a second


def write_film(path: Path, pictures: float, sound: float) -> None:
    """A film whose pictures and sound begin at these seconds; it turns white and loud at once, a second later."""
    event = max(pictures, sound) + 1
    with av.open(str(path), "w") as film:
        shown, heard = film.add_stream("mpeg4", rate=10), film.add_stream("aac", rate=RATE)
        shown.width = shown.height = 64
        for number in range(round(10 * (event + 1 - pictures))):
            white = pictures + number / 10 > event - 0.05
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 * white, np.uint8), format="rgb24")
            frame.pts = round(10 * pictures) + number
            film.mux(shown.encode(frame))
        film.mux(shown.encode())
        for first in range(0, round(RATE * (event + 1 - sound)), HOPS):
            times = sound + (first + np.arange(HOPS)) / RATE
            tone = np.where(times >= event, 0.5 * np.sin(2 * np.pi * 440 * times), 0).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, round(RATE * sound) + first
            film.mux(heard.encode(frame))
        film.mux(heard.encode())


def turning_points(path: Path) -> tuple[float, float]:
    """The seconds at which a film turns white and loud."""
    with av.open(str(path)) as film:
        white = next(frame.time for frame in film.decode(video=0) if frame.to_ndarray(format="gray").mean() > 128)
    with av.open(str(path)) as film:
        for frame in film.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.2)
            if len(loud):
                return white, frame.time + loud[0] / RATE
    raise AssertionError("silence")


@pytest.mark.parametrize(
    ("name", "pictures", "sound"),
    [("a.mp4", 0, 0), ("a.mkv", 2, 2), ("a.mp4", 1.5, 0), ("a.mkv", 0, 1.5), ("a.mp4", 0, 1.5), ("a.mts", 3, 2)],
)
def test_sound_stays_in_step(tmp_path: Path, name: str, pictures: float, sound: float) -> None:
    write_film(tmp_path / name, pictures, sound)
    white, loud = turning_points(tmp_path / name)
    assert white == pytest.approx(loud, abs=0.1)  # the film itself
    args = argparse.Namespace(save=["overlay"], color=(9, 9, 99), threshold=0.5, every=1, smooth=0)
    video.segment_video(tmp_path / name, tmp_path / "out", lambda frame: np.zeros(frame.shape[:2], np.float32), args)
    white, loud = turning_points(tmp_path / "out_overlay.mp4")
    assert white == pytest.approx(loud, abs=0.1)
    assert loud == pytest.approx(1 + max(pictures, sound) - min(pictures, sound), abs=0.15)  # nothing is cut off


@pytest.mark.parametrize(
    ("height", "matrix", "told"),
    [(720, REC709, True), (720, REC601, True), (720, REC709, False), (240, REC601, True), (240, REC601, False)],
)
def test_colours_stay_and_are_told(tmp_path: Path, height: int, matrix: int, told: bool) -> None:
    """Films that tell their matrix, and those that leave it to be guessed: BT.709 for 720 lines, BT.601 for 240."""
    colour = (200, 40, 60)
    with av.open(str(tmp_path / "in.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.options = 320, height, {"crf": "5"}
        stream.codec_context.colorspace = matrix if told else 2
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((height, 320, 3), colour, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            frame.colorspace, frame.pts = matrix if told else 2, number
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    writer = video.AvWriter(tmp_path / "out.mp4", 10, tmp_path / "in.mp4")
    for frame, time in video.Reader(tmp_path / "in.mp4"):
        writer.write(frame, time)
    writer.close(False)
    with av.open(str(tmp_path / "out.mp4")) as film:
        tags = film.streams.video[0].codec_context
        assert (tags.colorspace, tags.color_primaries, tags.color_trc, tags.color_range) == (1, 1, 1, 1)
        seen = next(film.decode(video=0)).reformat(format="rgb24", src_colorspace=REC709).to_ndarray()
    np.testing.assert_allclose(seen[height // 2, 160], colour, atol=6)

"""Videos keep their frames, their sound in step and their colours, wherever their times begin."""

import itertools
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from hair import UserError, video
from hair.video import VideoPlan, VideoReader, segment_video
from tests.pictures import LOOKS, by_brightness, process
from tools.make_sample import draw_head

REC709, REC601, UNSPECIFIED = 1, 5, 2  # FFmpeg's numbers of the matrices
HOPS, RATE = 1024, 44100  # samples in a packet of sound, and in a second


def nothing(frame: np.ndarray) -> np.ndarray:
    """Stands in for a segmenter that finds no hair."""
    return np.zeros(frame.shape[:2], np.float32)


def write_video(path: Path, frames: int = 12) -> np.ndarray:
    photo = draw_head(np.random.default_rng(0), 96)[0]
    rng = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 96))
    for _ in range(frames):
        writer.write(np.clip(photo + rng.normal(0, 8, photo.shape), 0, 255).astype(np.uint8)[..., ::-1])
    writer.release()
    return photo


def test_a_number_is_a_camera_only_if_it_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert video.is_video(Path("0")) and not video.is_video(tmp_path / "2023")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    assert not video.is_video(Path("7"))


@pytest.mark.parametrize("writer", ["AvWriter", "CvWriter"])
def test_video_keeps_frames_and_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    if writer == "AvWriter":
        pytest.importorskip("av")
    monkeypatch.setattr(video, "choose_writer", lambda: getattr(video, writer))
    write_video(tmp_path / "in.mp4")
    calls = []

    def segmenter(frame: np.ndarray) -> np.ndarray:
        calls.append(1)
        return by_brightness(frame)

    plan = VideoPlan(("overlay", "mask"), LOOKS, every=3, smooth=0.6)
    assert "12 frames" in segment_video(tmp_path / "in.mp4", tmp_path / "out", segmenter, plan)
    assert len(calls) == 4
    for kind in plan.kinds:
        written = VideoReader(tmp_path / f"out_{kind}.mp4")
        assert written.rate == pytest.approx(25, abs=0.1)
        assert len(list(written)) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out_mask.mp4", "out_overlay.mp4"]


def test_smoothing_steadies_and_does_not_lag(head: np.ndarray) -> None:
    smooth, rng = video.Smoother(0.6), np.random.default_rng(0)
    noisy = [np.clip(0.5 + rng.normal(0, 0.1, (96, 96)), 0, 1).astype(np.float32) for _ in range(10)]
    steady = [smooth(head, one) for one in noisy]

    def change(frames: list[np.ndarray]) -> float:
        return np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(frames)])

    assert change(steady) < 0.6 * change(noisy)
    np.testing.assert_array_equal(smooth(255 - head // 4, noisy[0])[10:20, 10:20], noisy[0][10:20, 10:20])


def test_video_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    for kinds, message in ((("overlay",), r"bad\.mp4"), (("alpha",), "alpha")):
        with pytest.raises(UserError, match=message):
            segment_video(tmp_path / "bad.mp4", tmp_path / "out", by_brightness, VideoPlan(kinds, LOOKS))
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such file"):
        VideoReader(tmp_path / "gone.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.mp4"]


# ---------------------------------------------------------------------------------------------------- sound


def write_grey_film(path: Path, sound: str, frames: int = 40, rate: int = 10) -> None:
    """A film of grey frames with four seconds of silence."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as film:
        pictures, noise = film.add_stream("mpeg4", rate=rate), film.add_stream(sound, rate=8000)
        pictures.width = pictures.height = 64
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * number, np.uint8), format="rgb24")
            film.mux(pictures.encode(frame))
            samples = noise.codec_context.frame_size or 800
            if number * 800 % samples < 800:
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, samples), np.float32 if sound == "aac" else np.uint8),
                    format="fltp" if sound == "aac" else "u8",
                    layout="mono",
                )
                silence.sample_rate = 8000
                film.mux(noise.encode(silence))
        film.mux(pictures.encode())
        film.mux(noise.encode())


def seconds_of(path: Path, kind: str) -> float:
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        streams = [stream for stream in film.streams if stream.type == kind]
        return max((float((stream.duration or 0) * stream.time_base) for stream in streams), default=0.0)


def test_sound_is_kept_cut_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_grey_film(tmp_path / "in.mp4", "aac")
    plan = VideoPlan(("mask", "json"), LOOKS, every=1, smooth=0)
    assert "40 frames" in segment_video(tmp_path / "in.mp4", tmp_path / "whole", by_brightness, plan)
    assert "--save json is for photos" in capsys.readouterr().err
    length = seconds_of(tmp_path / "in.mp4", "audio")
    assert length > 3 and seconds_of(tmp_path / "whole_mask.mp4", "audio") == pytest.approx(length, abs=0.3)

    shown = []

    def stopped(frame: np.ndarray) -> np.ndarray:
        if len(shown) == 10:
            raise KeyboardInterrupt
        shown.append(frame)
        return by_brightness(frame)

    assert "10 frames" in segment_video(tmp_path / "in.mp4", tmp_path / "part", stopped, plan)
    assert seconds_of(tmp_path / "part_mask.mp4", "audio") == pytest.approx(1, abs=0.3)

    write_grey_film(tmp_path / "old.avi", "pcm_u8")
    assert "40 frames" in segment_video(tmp_path / "old.avi", tmp_path / "old", by_brightness, plan)
    assert "sound, which is left out" in capsys.readouterr().err
    assert seconds_of(tmp_path / "old_mask.mp4", "audio") == 0


def write_film(path: Path, pictures: float, sound: float) -> None:
    """A film whose pictures and sound begin at these seconds; it turns white and loud at once, a second later."""
    av = pytest.importorskip("av")
    event = max(pictures, sound) + 1
    with av.open(str(path), "w") as film:
        shown, heard = film.add_stream("mpeg4", rate=10), film.add_stream("aac", rate=RATE)
        shown.width = shown.height = 64
        for number in range(round(10 * (event + 1 - pictures))):
            white = 255 if pictures + number / 10 > event - 0.05 else 0
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), white, np.uint8), format="rgb24")
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
    av = pytest.importorskip("av")
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
    segment_video(tmp_path / name, tmp_path / "out", nothing, VideoPlan(("overlay",), LOOKS, smooth=0))
    white, loud = turning_points(tmp_path / "out_overlay.mp4")
    assert white == pytest.approx(loud, abs=0.1)
    assert loud == pytest.approx(1 + max(pictures, sound) - min(pictures, sound), abs=0.15)  # nothing is cut off


@pytest.mark.parametrize("name", ["a.mts", "a.mkv", "a.mp4"])
def test_a_damaged_film_is_a_result_or_a_line_and_the_next_one_follows(tmp_path: Path, name: str) -> None:
    """As a broadcast recorded in bad weather. PyAV raises errors of its own kinds."""
    write_film(tmp_path / name, 0, 0)
    whole = np.fromfile(tmp_path / name, np.uint8)
    out = tmp_path / "out"
    for seed in range(5):
        rng, spoiled = np.random.default_rng(seed), whole.copy()
        places = rng.integers(0, len(spoiled), 60)
        spoiled[places] = rng.integers(0, 256, 60)
        bad = tmp_path / f"bad{name[1:]}"
        spoiled.tofile(bad)
        failures = process([bad, tmp_path / name], out, ("mask",))
        assert len(failures) <= 1, "the whole film, at least, has a result"
        assert not [line for line in failures if str(bad) not in line or "\n" in line]
        assert (out / "a_mask.mp4").is_file() and (out / "bad_mask.mp4").is_file() != bool(failures)
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
        shutil.rmtree(out)


# ---------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize(
    ("height", "matrix", "stated"),
    [(720, REC709, True), (720, REC601, True), (720, REC709, False), (240, REC601, True), (240, REC601, False)],
)
def test_colours_stay_and_are_stated(tmp_path: Path, height: int, matrix: int, stated: bool) -> None:
    """Films that state their matrix, and those that leave it to be guessed: BT.709 for 720 lines, BT.601 for 240."""
    av = pytest.importorskip("av")
    colour = (200, 40, 60)
    with av.open(str(tmp_path / "in.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.options = 320, height, {"crf": "5"}
        stream.codec_context.colorspace = matrix if stated else UNSPECIFIED
        for number in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((height, 320, 3), colour, np.uint8), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=matrix)
            frame.colorspace, frame.pts = matrix if stated else UNSPECIFIED, number
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    writer = video.AvWriter(tmp_path / "out.mp4", 10, tmp_path / "in.mp4")
    for frame, time in VideoReader(tmp_path / "in.mp4"):
        writer.write(frame, time)
    writer.close(False)
    with av.open(str(tmp_path / "out.mp4")) as film:
        tags = film.streams.video[0].codec_context
        assert (tags.colorspace, tags.color_primaries, tags.color_trc, tags.color_range) == (1, 1, 1, 1)
        seen = next(film.decode(video=0)).reformat(format="rgb24", src_colorspace=REC709).to_ndarray()
    np.testing.assert_allclose(seen[height // 2, 160], colour, atol=6)

"""Videos keep their frames, their sound in step and their colours, wherever their times begin."""

import itertools
import json
import os
import shutil
import struct
from dataclasses import replace
from errno import EINVAL, ENOSPC
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from hair import UserError, sound, video, video_readers, video_writers
from hair.cli import photo_kinds
from hair.dye import Dye
from hair.effects import Looks, draw
from hair.video import VideoPlan, VideoReader, segment_video
from tests.pictures import LOOKS, by_brightness, process, small_disk
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
    for kinds, message in ((("overlay",), r"bad\.mp4"), (("json",), "json")):
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


def test_highlights_are_for_photos(tmp_path: Path) -> None:
    write_grey_film(tmp_path / "in.mp4", "aac")
    for dye in (Dye(((9, 9, 99),), highlights=0.3), Dye(((9, 9, 99), (99, 9, 9)), highlights=0.3)):
        plan = VideoPlan(("recolor",), Looks(0.5, dye))
        with pytest.raises(UserError, match="--highlights is for photos"):
            segment_video(tmp_path / "in.mp4", tmp_path / "out", by_brightness, plan)
        assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
        plan = VideoPlan(("mask",), Looks(0.5, dye))
        assert "40 frames" in segment_video(tmp_path / "in.mp4", tmp_path / "out", by_brightness, plan)
        (tmp_path / "out_mask.mp4").unlink()


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
    assert "left out" not in capsys.readouterr().err
    assert seconds_of(tmp_path / "old_mask.mp4", "audio") == pytest.approx(4, abs=0.3)


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


# ---------------------------------------------------------------------------------------------------- kinds of sound


def write_sounding(path: Path, sound: str, rate: int = 44100, layout: str = "stereo", begin: float = 0) -> None:
    """A film of two seconds, of 64 by 64 pixels; a tone begins after the first one. Sound begins at `begin`."""
    av = pytest.importorskip("av")
    shown = {".webm": "libvpx", ".mkv": "libvpx"}.get(path.suffix, "mpeg4")
    with av.open(str(path), "w") as film:
        pictures = film.add_stream(shown, rate=10)
        pictures.width = pictures.height = 64
        heard = film.add_stream(sound, rate=rate, layout=layout, options={"strict": "-2"})
        times = begin + np.arange(round((2 - begin) * rate)) / rate
        tone = np.where(times >= 1, 0.5 * np.sin(2 * np.pi * 440 * times), 0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.tile(tone, (heard.layout.nb_channels, 1)), "fltp", heard.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, round(begin * rate), Fraction(1, rate)
        for number in range(20):
            grey = np.full((64, 64, 3), 255 if number >= 10 else 0, np.uint8)
            film.mux(pictures.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        film.mux(pictures.encode())
        resampler = av.AudioResampler(heard.format, heard.layout, rate, heard.codec_context.frame_size or 1024)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            film.mux(heard.encode(piece))
        film.mux(heard.encode())


def sound_of(path: Path) -> tuple[str, int, float, float]:
    """Codec, channels, the second at which it becomes loud, and its end."""
    av = pytest.importorskip("av")
    loud = end = -1.0
    with av.open(str(path)) as film:
        stream = film.streams.audio[0]
        resampler = av.AudioResampler("fltp", "mono", stream.rate)
        for frame in film.decode(stream):
            begin = frame.time
            for piece in resampler.resample(frame):
                samples = piece.to_ndarray()[0]
                high = np.flatnonzero(np.abs(samples) > 0.2)
                loud = begin + high[0] / stream.rate if loud < 0 and len(high) else loud
                end = begin + len(samples) / stream.rate
        return stream.codec_context.codec.canonical_name, stream.layout.nb_channels, loud, end


KEPT = [
    ("a.avi", "pcm_s16le", 44100, "stereo", "aac"),
    ("a.avi", "pcm_u8", 11025, "mono", "aac"),
    ("a.avi", "pcm_mulaw", 8000, "mono", "aac"),
    ("a.avi", "adpcm_ms", 22050, "mono", "aac"),
    ("a.mov", "pcm_s24le", 48000, "stereo", "aac"),
    ("a.mov", "pcm_f32le", 48000, "stereo", "aac"),
    ("a.mov", "pcm_mulaw", 8000, "mono", "aac"),
    ("a.mkv", "pcm_f32le", 192000, "stereo", "aac"),
    ("a.mkv", "pcm_s16le", 37800, "5.1", "aac"),
    ("a.mkv", "vorbis", 44100, "stereo", "aac"),
    ("a.webm", "vorbis", 44100, "stereo", "aac"),
    ("a.webm", "libopus", 48000, "stereo", "opus"),
    ("a.mkv", "libopus", 48000, "stereo", "opus"),
    ("a.mkv", "flac", 44100, "stereo", "flac"),
    ("a.avi", "ac3", 48000, "stereo", "ac3"),
    ("a.mkv", "ac3", 48000, "5.1", "ac3"),
    ("a.mpg", "mp2", 44100, "stereo", "aac"),
    ("a.avi", "libmp3lame", 44100, "stereo", "mp3"),
    ("a.mkv", "aac", 44100, "stereo", "aac"),
]


@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: " ".join(map(str, kind)))
def test_sound_is_copied_or_encoded(
    tmp_path: Path, kind: tuple[str, str, int, str, str], capsys: pytest.CaptureFixture
) -> None:
    name, sound, rate, layout, kept = kind
    write_sounding(tmp_path / name, sound, rate, layout)
    segment_video(tmp_path / name, tmp_path / "out", nothing, VideoPlan(("overlay",), LOOKS, smooth=0))
    codec, channels, loud, end = sound_of(tmp_path / "out_overlay.mp4")
    assert codec == kept and channels == {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    assert loud == pytest.approx(1, abs=0.06) and end == pytest.approx(2, abs=0.1)
    assert "left out" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "sound"), [("a.mkv", "pcm_s16le"), ("a.mkv", "vorbis"), ("a.mov", "pcm_s16le")])
def test_encoded_sound_that_begins_later_is_in_step(tmp_path: Path, name: str, sound: str) -> None:
    write_sounding(tmp_path / name, sound, begin=0.5)
    segment_video(tmp_path / name, tmp_path / "out", nothing, VideoPlan(("overlay",), LOOKS, smooth=0))
    _, _, loud, end = sound_of(tmp_path / "out_overlay.mp4")
    assert loud == pytest.approx(1, abs=0.06) and end == pytest.approx(2, abs=0.1)


def test_a_gap_in_encoded_sound_stays(tmp_path: Path) -> None:
    """As in a recording in which the microphone was off for a while."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "in.mkv"), "w") as film:
        shown, heard = film.add_stream("mpeg4", rate=10), film.add_stream("pcm_s16le", rate=8000, layout="mono")
        shown.width = shown.height = 64
        for _ in range(40):
            film.mux(shown.encode(av.VideoFrame(64, 64, "yuv420p")))
        film.mux(shown.encode())
        for begin, loudness in ((0, 0), (3, 16000)):
            wave = np.where(np.arange(8000) % 20 < 10, loudness, -loudness).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(wave[None], "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 8000 * begin, Fraction(1, 8000)
            film.mux(heard.encode(frame))
        film.mux(heard.encode())
    segment_video(tmp_path / "in.mkv", tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS, smooth=0))
    _, _, loud, end = sound_of(tmp_path / "out_mask.mp4")
    assert loud == pytest.approx(3, abs=0.05) and end == pytest.approx(4, abs=0.15)


def test_sound_without_an_encoder_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_sounding(tmp_path / "a.avi", "pcm_s16le")
    monkeypatch.setitem(sound.ENCODERS, "mp4", "no_such_encoder")
    monkeypatch.setitem(sound.RATES, "no_such_encoder", (44100,))
    segment_video(tmp_path / "a.avi", tmp_path / "out", nothing, VideoPlan(("overlay",), LOOKS, smooth=0))
    lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(lines) == 1 and "a.avi: the sound (pcm_s16le)" in lines[0]
    assert seconds_of(tmp_path / "out_overlay.mp4", "audio") == 0 < seconds_of(tmp_path / "out_overlay.mp4", "video")


# ---------------------------------------------------------------------------------------------------- transparency


def rgba_of(path: Path) -> list[np.ndarray]:
    """Frames with their alpha, which FFmpeg's own decoder of VP9 leaves out."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r") if path.suffix == ".webm" else stream.codec_context
        frames = [frame for packet in film.demux(stream) for frame in decoder.decode(packet)]
        return [frame.reformat(format="rgba", src_colorspace=REC709).to_ndarray() for frame in frames]


@pytest.mark.parametrize("size", [(64, 96), (63, 95)])
@pytest.mark.parametrize(("kind", "most"), [("mov", 2), ("webm", 24)])
def test_alpha_video(tmp_path: Path, kind: str, most: int, size: tuple[int, int]) -> None:
    av = pytest.importorskip("av")
    head = cv2.resize(draw_head(np.random.default_rng(0), 96)[0], size[::-1])
    with av.open(str(tmp_path / "in.mkv"), "w") as film:
        pictures, heard = film.add_stream("ffv1", rate=10), film.add_stream("pcm_s16le", rate=8000, layout="mono")
        pictures.height, pictures.width, pictures.pix_fmt = *size, "bgr0"
        for _ in range(5):
            film.mux(pictures.encode(av.VideoFrame.from_ndarray(head, format="rgb24").reformat(format="bgr0")))
        film.mux(pictures.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), "s16", "mono")
        silence.sample_rate = 8000
        film.mux([*heard.encode(silence), *heard.encode()])
    plan = VideoPlan(("alpha",), LOOKS, smooth=0, alpha_format=kind)
    assert f"_alpha.{kind}" in segment_video(tmp_path / "in.mkv", tmp_path / "out", by_brightness, plan)
    frames = rgba_of(tmp_path / f"out_alpha.{kind}")
    expected = draw("alpha", head, by_brightness(head), LOOKS)
    assert len(frames) == 5 and frames[0].shape == expected.shape
    assert 0.05 < (expected[..., 3] > 127).mean() < 0.95
    for frame in frames:
        difference = np.abs(frame.astype(int) - expected)
        assert difference[..., 3].max() <= most and difference[..., 3].mean() < 1
        assert difference[expected[..., 3] == 255][:, :3].mean() < 6
    assert seconds_of(tmp_path / f"out_alpha.{kind}", "audio") >= 0
    assert sound_of(tmp_path / f"out_alpha.{kind}")[0] == ("opus" if kind == "webm" else "pcm_s16le")


@pytest.mark.parametrize("pyav", [True, False])
def test_cut_outs_before_a_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pyav: bool) -> None:
    """They are ordinary videos, which need no PyAV, and pictures without transparency."""
    if pyav:
        pytest.importorskip("av")
    for room in (video, video_readers, video_writers) if not pyav else ():
        monkeypatch.setattr(room, "find_av", lambda: None)
    write_video(tmp_path / "in.mp4", frames=3)
    plan = VideoPlan(("alpha", "frames"), replace(LOOKS, background=(200, 30, 30)), smooth=0)
    assert "out_alpha.mp4" in segment_video(tmp_path / "in.mp4", tmp_path / "out", nothing, plan)
    still = cv2.imread(str(tmp_path / "out_frames" / "000001.png"), cv2.IMREAD_UNCHANGED)
    for picture in (still, cv2.VideoCapture(str(tmp_path / "out_alpha.mp4")).read()[1]):
        assert picture.shape == (96, 96, 3) and np.abs(picture.astype(int) - (30, 30, 200)).max() < 12


def test_alpha_needs_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "in.mp4")
    for room in (video, video_readers, video_writers):
        monkeypatch.setattr(room, "find_av", lambda: None)
    with pytest.raises(UserError, match=r"in\.mp4: .*pip install av"):
        segment_video(tmp_path / "in.mp4", tmp_path / "out", by_brightness, VideoPlan(("alpha",), LOOKS))
    assert "12 frames" in segment_video(
        tmp_path / "in.mp4", tmp_path / "out", by_brightness, VideoPlan(("frames", "mask"), LOOKS)
    )
    assert len(list((tmp_path / "out_frames").iterdir())) == 12


def test_frames_are_a_folder_of_pictures(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4")
    plan = VideoPlan(("frames",), LOOKS, smooth=0)
    for _ in range(2):  # the second time replaces the folder of the first
        segment_video(tmp_path / "in.mp4", tmp_path / "out", by_brightness, plan)
        names = sorted(path.name for path in (tmp_path / "out_frames").iterdir())
        assert names == [f"{number:06}.png" for number in range(1, 13)]
        (tmp_path / "out_frames" / "000099.png").write_bytes(b"of a longer video")
    frame, _ = next(iter(VideoReader(tmp_path / "in.mp4")))
    found = cv2.imread(str(tmp_path / "out_frames" / "000001.png"), cv2.IMREAD_UNCHANGED)
    found, expected = cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA), draw("alpha", frame, by_brightness(frame), LOOKS)
    np.testing.assert_array_equal(found[..., 3], expected[..., 3])
    np.testing.assert_array_equal(found[expected[..., 3] > 0], expected[expected[..., 3] > 0])

    shown = []

    def stopped(frame: np.ndarray) -> np.ndarray:
        if len(shown) == 4:
            raise KeyboardInterrupt
        shown.append(frame)
        return by_brightness(frame)

    assert "4 frames" in segment_video(tmp_path / "in.mp4", tmp_path / "out", stopped, plan)
    assert len(list((tmp_path / "out_frames").iterdir())) == 4
    (tmp_path / "out_frames" / "my notes.txt").touch()
    with pytest.raises(UserError, match="out_frames: already exists and contains other files"):
        segment_video(tmp_path / "in.mp4", tmp_path / "out", by_brightness, plan)
    assert (tmp_path / "out_frames" / "my notes.txt").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out_frames"]


# ---------------------------------------------------------------------------------------------------- times


UNEVEN = (0, 40, 90, 100, 400, 430, 1200)  # milliseconds; the last frame is shown for 300


def write_uneven(path: Path, last: int = 300) -> None:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4" if path.suffix != ".webm" else "libvpx", rate=25)
        stream.width = stream.height = 64
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, (time, end) in enumerate(itertools.pairwise((*UNEVEN, UNEVEN[-1] + last))):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 30 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            for packet in stream.encode(frame):
                packet.duration = end - time
                film.mux(packet)
        film.mux(stream.encode())


def times_of(path: Path) -> tuple[list[float], float]:
    """The seconds at which frames begin, and at which the last one ends."""
    reader = VideoReader(path)
    return [time for _, time in reader], reader.end


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("kind", ["overlay", "alpha"])
def test_times_of_frames_and_of_the_end_stay(tmp_path: Path, name: str, kind: str) -> None:
    av = pytest.importorskip("av")
    write_uneven(tmp_path / name)
    plan = VideoPlan((kind, "frames"), LOOKS, smooth=0)
    segment_video(tmp_path / name, tmp_path / "out", nothing, plan)
    target = tmp_path / f"out{plan.ending(kind)}"
    times, end = times_of(target)
    np.testing.assert_allclose(times, np.array(UNEVEN) / 1000, atol=0.0015)
    assert end == pytest.approx(1.5, abs=0.045)
    with av.open(str(target)) as film:
        assert film.duration / 1e6 == pytest.approx(1.5, abs=0.045)
    stated = json.loads((tmp_path / "out_frames" / "times.json").read_text())
    assert stated["times"]["000004.png"] == pytest.approx(0.1, abs=0.0015)
    assert len(stated["times"]) == len(UNEVEN) and stated["end"] == pytest.approx(1.5, abs=0.045)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1, 2)])
@pytest.mark.parametrize("frames", [1, 2, 31])
def test_length_stays(tmp_path: Path, rate: Fraction, frames: int) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "in.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=rate)
        stream.width = stream.height = 32
        for number in range(frames):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8), "rgb24")))
        film.mux(stream.encode())
    segment_video(tmp_path / "in.mp4", tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS, smooth=0))
    times, end = times_of(tmp_path / "out_mask.mp4")
    np.testing.assert_allclose(times, np.arange(frames) / float(rate), atol=0.001)
    assert end == pytest.approx(frames / float(rate), rel=0.01)


@pytest.mark.parametrize("name", ["in.avi", "in.mp4", "in.mkv", "in.mts"])
def test_frames_that_are_stored_in_another_order_have_their_times(tmp_path: Path, name: str) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / name), "w") as film:
        stream = film.add_stream("libx264", rate=25, options={"bf": "2"})
        stream.width = stream.height = 64
        for number in range(30):
            picture = np.zeros((64, 64, 3), np.uint8)
            picture[:, : 2 * number + 2] = 255
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())
    reader = VideoReader(tmp_path / name)
    frames = list(reader)
    np.testing.assert_allclose([time for _, time in frames], np.arange(30) / 25, atol=0.0015)
    np.testing.assert_allclose([(frame[32, :, 0] > 127).sum() for frame, _ in frames], 2 * np.arange(30) + 2, atol=1)
    assert reader.end == pytest.approx(1.2, abs=0.01) and reader.total == 30


# ---------------------------------------------------------------------------------------------------- names and sizes


NAMES = ["머리 영상 1.mp4", "💇‍♀️ cut.mp4", "100%.mp4", "clip_%03d.mp4", "12:30 o'clock.mp4", "# ?&=[1]*.mp4", "-i.mp4"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode("머리".encode("cp949") + b".mp4"), "길" * 83 + ".mp4"])
@pytest.mark.parametrize("pyav", [True, False])
def test_names_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pyav: bool) -> None:
    if pyav:
        pytest.importorskip("av")
    elif "\udcb8" in name:
        pytest.skip("OpenCV opens no file whose name is not Unicode")
    else:
        for room in (video, video_readers, video_writers):
            monkeypatch.setattr(room, "find_av", lambda: None)
    write_video(tmp_path / "plain.mp4")
    monkeypatch.chdir(tmp_path)
    path = Path(name)
    (tmp_path / "plain.mp4").rename(path)
    assert not process([path], Path("out"), ("mask", "frames"))
    stem = path.stem if len(path.stem) < 80 else next(Path("out").glob("*.mp4")).stem.removesuffix("_mask")
    assert len(list(VideoReader(Path("out") / f"{stem}_mask.mp4"))) == 12
    assert sorted(path.name for path in Path("out").iterdir()) == [f"{stem}_frames", f"{stem}_mask.mp4"]


def test_a_name_without_unicode_is_a_line_where_only_opencv_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / os.fsdecode("머리".encode("cp949") + b".mp4")
    write_video(tmp_path / "in.mp4")
    (tmp_path / "in.mp4").rename(path)
    monkeypatch.setattr(video_readers, "find_av", lambda: None)
    with pytest.raises(UserError, match="valid Unicode; pip install av"):
        VideoReader(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (33, 47), (2, 2)])
@pytest.mark.parametrize("pyav", [True, False])
def test_sizes_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], pyav: bool) -> None:
    av = pytest.importorskip("av")
    picture = np.full((*size, 3), 40, np.uint8)
    picture[-1, -1] = 250
    picture[:, -1] = 250
    with av.open(str(tmp_path / "in.mov"), "w") as film:
        stream = film.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = *size, "rgb24"
        for _ in range(3):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode())
    kinds = ("mask", "overlay", "frames", *(("alpha",) if pyav else ()))
    if not pyav:
        for room in (video, video_writers):
            monkeypatch.setattr(room, "find_av", lambda: None)
    segment_video(tmp_path / "in.mov", tmp_path / "out", by_brightness, VideoPlan(kinds, LOOKS, smooth=0))
    seen, _ = next(iter(VideoReader(tmp_path / "out_mask.mp4")))
    assert seen.shape[:2] == tuple(side + side % 2 for side in size)
    assert seen[: size[0], size[1] - 1].min() > 200  # the last column is there
    if pyav:
        assert rgba_of(tmp_path / "out_alpha.mov")[0].shape == (*size, 4)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_films_are_upright(tmp_path: Path, degrees: int) -> None:
    """As phones store them: lying, with a matrix in the track's header."""
    pytest.importorskip("av")
    write_video(tmp_path / "in.mp4")
    film = bytearray((tmp_path / "in.mp4").read_bytes())
    place = film.index(b"tkhd") + 4 + 40
    turn = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (value << 16 for value in turn)
    film[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(film)
    flat, turned = (next(iter(VideoReader(tmp_path / name)))[0] for name in ("in.mp4", "turned.mp4"))
    np.testing.assert_array_equal(turned, np.rot90(flat, -degrees // 90))
    by_opencv = cv2.VideoCapture(str(tmp_path / "turned.mp4")).read()[1][..., ::-1]
    assert np.abs(by_opencv.astype(int) - turned).mean() < 3


def test_frames_that_change_their_size_keep_that_of_the_first(tmp_path: Path) -> None:
    pytest.importorskip("av")
    for writer_type in (video.AvWriter, video.CvWriter):
        path = tmp_path / f"{writer_type.__name__}.mp4"
        writer = writer_type(path, 10, tmp_path / "none")
        for number, side in enumerate((64, 32, 96)):
            writer.write(np.full((side, side, 3), 99, np.uint8), number / 10)
        writer.close(False)
        assert [frame.shape for frame, _ in VideoReader(path)] == [(64, 64, 3)] * 3


# ---------------------------------------------------------------------------------------------------- broken off


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.webm", "a.mp4", "a.mpg"])
def test_a_video_that_breaks_off_keeps_what_was_read(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    av = pytest.importorskip("av")
    rng = np.random.default_rng(0)
    options = {"movflags": "faststart"} if name == "a.mp4" else {}
    with av.open(str(tmp_path / name), "w", options=options) as film:
        stream = film.add_stream({"a.webm": "libvpx", "a.mpg": "mpeg2video"}.get(name, "mpeg4"), rate=25)
        stream.width = stream.height = 64
        for _ in range(100):
            noise = rng.integers(0, 256, (64, 64, 3), np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        film.mux(stream.encode())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    segment_video(tmp_path / name, tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS, smooth=0))
    times, _ = times_of(tmp_path / "out_mask.mp4")
    assert 30 < len(times) < 70
    lines = [line for line in capsys.readouterr().err.split("\n") if "truncated after" in line]
    assert len(lines) == (name != "a.mpg")  # MPEG's streams do not state their length


def test_a_video_with_sound_that_breaks_off(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_sounding(tmp_path / "in.mkv", "vorbis")
    segment_video(tmp_path / "in.mkv", tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS, smooth=0))
    assert "truncated after" not in capsys.readouterr().err
    whole = (tmp_path / "in.mkv").read_bytes()
    (tmp_path / "in.mkv").write_bytes(whole[: len(whole) // 2])
    segment_video(tmp_path / "in.mkv", tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS, smooth=0))
    assert "truncated after" in capsys.readouterr().err
    _, _, _, end = sound_of(tmp_path / "out_mask.mp4")
    assert 0.1 < end < 1.9 and 0.1 < times_of(tmp_path / "out_mask.mp4")[1] < 1.9


def test_errors_of_pyav_are_user_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    av = pytest.importorskip("av")
    write_video(tmp_path / "in.mp4")
    one_line = (UserError, r"^[^\n]*in\.mp4: [^\n]*$")
    for error, (kind, message) in {
        av.error.OSError(ENOSPC, "No space left on device"): (OSError, "No space left"),
        av.error.ArgumentError(EINVAL, "Invalid argument"): one_line,
        av.error.InvalidDataError(-av.error.tag_to_code(b"INDA"), "Invalid data"): one_line,
        av.error.ExternalError(-av.error.tag_to_code(b"EXT "), "Generic error"): one_line,
    }.items():

        def fail(self: object, picture: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(video.AvWriter, "_mux", fail)
        with pytest.raises(kind, match=message) as found:
            segment_video(tmp_path / "in.mp4", tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS))
        assert kind is UserError or found.value.filename == str(tmp_path / "out_mask.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("kind", ["mask", "alpha", "frames"])
def test_a_full_disk_names_the_result_and_leaves_no_part(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "in.mp4", frames=40)
    with small_disk(2000), pytest.raises(OSError) as error:
        segment_video(tmp_path / "in.mp4", tmp_path / "out", by_brightness, VideoPlan((kind,), LOOKS, smooth=0))
    assert error.value.filename == str(tmp_path / f"out{VideoPlan((), LOOKS).ending(kind)}")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_file_without_pictures_is_a_line(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "song.mp4"), "w") as film:
        heard = film.add_stream("aac", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        film.mux([*heard.encode(silence), *heard.encode()])
    with pytest.raises(UserError, match=r"song\.mp4: it contains no video"):
        segment_video(tmp_path / "song.mp4", tmp_path / "out", nothing, VideoPlan(("mask",), LOOKS))


def test_frames_are_for_videos(capsys: pytest.CaptureFixture) -> None:
    clip, photo = Path("a.mp4"), Path("a.jpg")
    assert photo_kinds([clip], ("frames",)) == () and photo_kinds([clip, photo], ("mask",)) == ("mask",)
    assert not capsys.readouterr().err
    assert photo_kinds([clip, photo], ("frames", "mask")) == ("mask",)
    assert "--save frames is for videos" in capsys.readouterr().err
    with pytest.raises(UserError, match="--save frames is for videos"):
        photo_kinds([photo], ("frames",))

"""Transfer the sound of one video file to another: copied if the new file can contain it, else encoded."""

import sys
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

from hair.video_readers import DISK_ERRORS, demuxed, open_film

# For each container format: the audio codecs that it can contain and players can play, and the encoder for all others.
COPIED = {
    "mp4": ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"),
    "mov": ("aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be"),
    "webm": ("opus", "vorbis"),
}
ENCODERS = {"mp4": "aac", "mov": "aac", "webm": "libopus"}
RATES = {
    "aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000),
    "libopus": (48000, 24000, 16000, 12000, 8000),
}
# For files that state only the number of channels.
LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
BIT_RATE = 96_000  # per channel
TRIED = 8  # packets that are copied in memory to test whether copying works
GAP, LONGEST_GAP = 0.1, 600  # seconds; shorter gaps are inexact times, longer ones are damage


class Sound:
    """Writes the sound of `source` into `film`, packet by packet, interleaved with the frames.

    Args:
        source: a video file.
        film: PyAV's output container, to which nothing has been written yet.
        kind: container format of `film`: "mp4", "mov" or "webm".

    Attributes:
        delay: seconds by which the first frame begins after the first sound, else 0.
    """

    def __init__(self, source: Path, film: Any, kind: str) -> None:
        import av

        self._film, self.delay = film, Fraction(0)
        self._packets: Iterator[tuple[Fraction, Any]] = iter(())
        self._path = source
        self._last: int | None = None  # time of the last packet, in units of its stream
        self._next: tuple[Fraction, Any] | None = None
        self._source = open_film(source) if source.is_file() else None
        heard = self._source and self._source.streams.best("audio")
        if self._source is None or heard is None:
            return
        try:
            if heard.codec_context is None:
                raise ValueError("no decoder")
            if can_copy(source, kind):
                self._stream, packets = film.add_stream_from_template(heard), self._copied
            else:
                self._stream, packets = self._add_encoder(heard, ENCODERS[kind]), self._encoded
        except (av.FFmpegError, ValueError):
            name = heard.codec_context.name if heard.codec_context else "unknown"
            print(f"{source}: the sound ({name}) cannot be copied or encoded and is left out", file=sys.stderr)
            return
        self._heard = heard
        # The times of audio packets may start anywhere, as in a recorded broadcast; frame times start at the first
        # frame. Both are shifted so that the earlier of the two starts at 0.
        shown = self._source.streams.best("video") or heard
        first, begin = (Fraction(s.start_time or 0) * (s.time_base or 1) for s in (shown, heard))
        self._begin = min(first, begin)
        self.delay = first - self._begin
        self._packets = packets()
        self._step()

    def write(self, until: Fraction | None) -> None:
        """Write the sound up to a time in seconds, or all of it if None."""
        import av

        while self._next is not None and (until is None or self._next[0] <= until):
            packet = self._next[1]
            self._step()
            if packet.dts is None or (self._last is not None and packet.dts <= self._last):
                continue  # the file is damaged
            time = packet.dts  # mux changes its unit
            try:
                self._film.mux(packet)
            except av.FFmpegError as error:
                if error.errno in DISK_ERRORS:
                    raise
            else:
                self._last = time

    def close(self) -> None:
        """Close the source."""
        if self._source:
            self._source.close()

    def _step(self) -> None:
        import av

        try:
            self._next = next(self._packets, None)
        except (av.FFmpegError, ValueError) as error:
            print(f"{self._path}: the sound ends early ({error})", file=sys.stderr)
            self._next = None

    def _copied(self) -> Iterator[tuple[Fraction, Any]]:
        """The copied packets with their times in seconds."""
        for packet in demuxed(self._source, self._heard):
            if packet.dts is None:
                continue
            packet.dts -= round(self._begin / packet.time_base)
            packet.pts = packet.dts  # audio is played in the order in which it is stored
            packet.stream = self._stream
            yield packet.dts * packet.time_base, packet

    def _add_encoder(self, heard: Any, encoder: str) -> Any:
        rates = RATES[encoder]
        rate = heard.rate if heard.rate in rates else min((r for r in rates if r > heard.rate), default=rates[0])
        count = heard.layout.nb_channels
        named = LAYOUTS.get(count, "") if "channels" in heard.layout.name else heard.layout.name
        layout = "mono" if count == 1 else "5.1" if named.startswith("5.1") else "stereo"
        stream = self._film.add_stream(encoder, rate=rate, layout=layout)
        stream.bit_rate = BIT_RATE * stream.layout.nb_channels
        stream.time_base = Fraction(1, rate)
        stream.codec_context.open()  # from now on its frame size is known
        return stream

    def _encoded(self) -> Iterator[tuple[Fraction, Any]]:
        """The encoded packets with their times in seconds."""
        import av

        context, rate = self._stream.codec_context, self._stream.rate
        resampler = av.AudioResampler(context.format, context.layout, context.sample_rate, context.frame_size)
        position = None
        for frame, time in self._continuous():
            if position is None:
                position = max(0, round((time - self._begin) * rate))
            for piece in resampler.resample(frame):
                piece.pts, piece.time_base = position, Fraction(1, rate)
                position += piece.samples
                for packet in self._stream.encode(piece):
                    yield Fraction(position, rate), packet
        for piece in (*resampler.resample(None), None):
            if piece is not None:
                piece.pts, piece.time_base = position, Fraction(1, rate)
            for packet in self._stream.encode(piece):
                yield Fraction(position or 0, rate), packet

    def _continuous(self) -> Iterator[tuple[Any, Fraction]]:
        """PyAV's audio frames, with gaps filled by silence, and their times in the source, in seconds."""
        end = None
        for frame in self._decoded():
            time = end if frame.pts is None else frame.pts * frame.time_base
            time = self._begin if time is None else time
            frame = with_layout(frame)
            frame.pts = None
            if end is not None and GAP < time - end < LONGEST_GAP:
                for samples in chunks(round((time - end) * frame.sample_rate), frame.sample_rate):
                    yield silence(frame, samples), end
            yield frame, time
            end = time + Fraction(frame.samples, frame.sample_rate)

    def _decoded(self) -> Iterator[Any]:
        """PyAV's audio frames; damaged packets are skipped."""
        import av

        for packet in demuxed(self._source, self._heard):
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue


def chunks(whole: int, most: int) -> Iterator[int]:
    """The sizes of the parts of `whole`, each at most `most`."""
    yield from (min(most, whole - first) for first in range(0, whole, most))


def silence(like: Any, samples: int) -> Any:
    """A frame of silence in the format of another frame."""
    import av

    frame = av.AudioFrame(like.format.name, like.layout.name, samples)
    for plane in frame.planes:
        plane.update(bytes([128 if like.format.name.startswith("u8") else 0]) * plane.buffer_size)
    frame.sample_rate = like.sample_rate
    return frame


def can_copy(path: Path, kind: str) -> bool:
    """Whether the sound can be copied into this container format; tested in memory with the first packets."""
    import av

    with open_film(path) as source:
        heard = source.streams.best("audio")
        if heard.codec_context is None or heard.codec_context.codec.canonical_name not in COPIED[kind]:
            return False
        try:
            with av.open(BytesIO(), "w", kind) as trial:
                copy = trial.add_stream_from_template(heard)
                for packet in islice(demuxed(source, heard), TRIED):
                    if packet.dts is not None:
                        packet.pts = packet.dts
                        packet.stream = copy
                        trial.mux(packet)
        except (av.FFmpegError, ValueError):
            return False
    return True


def with_layout(frame: Any) -> Any:
    """An audio frame with a named channel layout: AVI files may state only the number of channels."""
    import av

    if "channels" not in frame.layout.name:
        return frame
    count = frame.layout.nb_channels
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, count).T
    if count not in LAYOUTS:
        samples, count = samples[:2], 2
    named = av.AudioFrame.from_ndarray(samples.copy(), format=frame.format.planar.name, layout=LAYOUTS[count])
    named.sample_rate = frame.sample_rate
    return named

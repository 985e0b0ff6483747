"""Damaged JPEGs and PNGs: check whether all rows are there, and if so, repair the file."""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START, PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
ENDS = {"JPEG": JPEG_END, "MPO": JPEG_END, "PNG": PNG_END, "GIF": b";"}  # by Pillow's name of the format
PADDING = bytes(16)  # this many zeros at the end of a file, or more, come from a broken download or a camera
MAX_COMPARED = 50_000_000  # pixels; larger JPEGs are not decoded twice
# Two kinds of filler for the missing data of a JPEG; each also follows every restart marker.
RESTARTS = [bytes([0xFF, 0xD0 + number]) for number in range(8)]
OTHER_DATA = [
    b"".join(mark + bytes((first + 73 * number) % 255 for number in range(255)) for mark in [b"", *RESTARTS])
    for first in (0b10101010, 0b01011011)
]
PNG_KEPT = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"iCCP", b"eXIf")
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
PNG_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
STEP = 1 << 20  # bytes unpacked at a time


def repaired(data: bytes, max_pixels: int) -> bytes | None:
    """Repair a damaged file.

    Args:
        data: content of a file that its decoder rejects.
        max_pixels: the most pixels that the image may have.

    Returns:
        The content of a valid file with the same image, or None if rows are missing or if it is not a JPEG or PNG.
    """
    if data.startswith(JPEG_START):
        body = without_padding(data).removesuffix(b"\xff")  # half of the end marker
        return body + JPEG_END if has_all_rows(body) else None
    if data.startswith(PNG_START):
        return _repaired_png(data, max_pixels)
    return None


def without_padding(data: bytes) -> bytes:
    """The data without a long run of zeros at its end."""
    return data.rstrip(b"\0") if data.endswith(PADDING) else data


def has_all_rows(data: bytes, is_quick: bool = False) -> bool:
    """Whether a JPEG is complete, that is, no rows are missing at its end.

    Different filler data are appended. If rows are missing, the filler changes the image; if not, it is ignored.

    Args:
        data: content of the file, with or without an end marker.
        is_quick: compare at 1/8 of the size. This detects missing rows, but not missing details of a progressive JPEG.
    """
    body = data.removesuffix(JPEG_END)
    try:
        picture = _decoded(body + JPEG_END, is_quick)
        return all(np.array_equal(picture, _decoded(body + data + JPEG_END, is_quick)) for data in OTHER_DATA)
    except Exception:  # decoders raise many types for damaged files
        return False


def _decoded(data: bytes, is_quick: bool) -> np.ndarray:
    picture = Image.open(BytesIO(data), formats=("JPEG",))
    if is_quick:
        picture.draft(picture.mode, (max(1, picture.width // 8), max(1, picture.height // 8)))
    elif picture.width * picture.height > MAX_COMPARED:
        raise ValueError("too large to be decoded twice")
    return np.asarray(picture)


def _repaired_png(data: bytes, max_pixels: int) -> bytes | None:
    """Rewrite a PNG without chunks that have a wrong checksum or are not needed."""
    chunks = list(_chunks(data))
    if not chunks or chunks[0][0] != b"IHDR" or not chunks[0][2] or len(chunks[0][1]) != 13:
        return None
    header = chunks[0][1]
    width, height = struct.unpack_from(">II", header)
    if header[9] not in PNG_CHANNELS or width * height > max_pixels:
        return None
    packed = _repacked(b"".join(body for name, body, _ in chunks if name == b"IDAT"), _unpacked_size(header))
    if packed is None or any(name == b"PLTE" and not is_right for name, _, is_right in chunks):
        return None
    kept = [(name, body) for name, body, is_right in chunks if name in PNG_KEPT and is_right and _is_small(name, body)]
    parts = [PNG_START]
    for name, body in [(b"IHDR", header), *kept, (b"IDAT", packed), (b"IEND", b"")]:
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))]
    return b"".join(parts)


def _is_small(name: bytes, body: bytes) -> bool:
    """Whether an unpacked chunk is small enough for Pillow."""
    if name != b"iCCP":
        return len(body) < STEP
    try:
        return len(zlib.decompressobj().decompress(body.partition(b"\0")[2][1:], STEP)) < STEP
    except zlib.error:
        return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """Each chunk's name, content, and whether its checksum is correct; the last chunk may be truncated."""
    place = len(PNG_START)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if not name.isalpha() or name == b"IEND":
            return
        body = data[place + 8 : place + 8 + length]
        place += 8 + length + 4
        yield name, body, data[place - 4 : place] == struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _unpacked_size(header: bytes) -> int:
    """The size of a PNG's unpacked rows, in bytes."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * PNG_CHANNELS[color]
    size = 0
    for left, top, across, down in PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-max(0, width - left) // across), -(-max(0, height - top) // down)
        size += rows * (1 + -(-columns * bits // 8)) if columns else 0
    return size


def _repacked(packed: bytes, size: int) -> bytes | None:
    """Unpack the data and compress the first `size` bytes again; None if there are fewer or the checksum is wrong."""
    unpack, pack = zlib.decompressobj(), zlib.compressobj(1)
    rest, parts, found = packed, [], 0
    while rest and not unpack.eof and found <= size:
        try:
            rows = unpack.decompress(rest, STEP)
        except zlib.error:
            return None
        parts.append(pack.compress(rows[: size - found]))
        found += len(rows)
        rest = unpack.unconsumed_tail
    return b"".join([*parts, pack.flush()]) if found >= size else None

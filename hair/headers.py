"""Open image files without decoding them: only known formats, with limits on size and memory."""

import logging
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from pillow_heif import HeifFile, HeifImage

from hair.damage import JPEG_START, PNG_START
from hair.errors import UserError

# Pillow knows dozens of formats, and some of their decoders use unlimited memory. Only these are used for photos. The
# first bytes of a file decide which one it is, not its name.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF", "PPM")  # MPO comes with JPEG
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
JPEG2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")  # a JP2 file, and a raw codestream
STARTS = (JPEG_START, PNG_START, b"GIF8", b"BM", b"II*\0", b"MM\0*", *JPEG2000_STARTS)  # of known files

MAX_PIXELS = 200_000_000
# These decoders need up to 30 bytes per pixel (the others at most 11), or more time than the others (measured).
MAX_PIXELS_OF = {"WEBP": 100_000_000, "AVIF": 100_000_000, "JPEG2000": 50_000_000}
MAX_SIDE = 1 << 20
MAX_BYTES = 1 << 30  # of a file
MAX_SLOW_PIXELS = 2_000_000  # for formats that Pillow decodes in Python: BMP with run lengths, PPM as text
MAX_SCANNED = 3_000_000_000  # pixels times scans of a progressive JPEG; 400 million take one second
MAX_TILE = 64_000_000  # pixels of a TIFF tile
MAX_TIFF_PARTS = 1 << 16  # strips or tiles
MAX_TILES = 4096  # of a JPEG 2000, whose decoder allocates all of them at the start
HEAD = 512  # bytes that contain the format and the size
LONG_HEAD = 4 << 20  # bytes in which to look for the profile and the orientation if Pillow does not read them

BMP_WITH_RUNS = (1, 2)
PPM_AS_TEXT = (b"P1", b"P2", b"P3")
TIFF_PARTS = ((273, 279), (324, 325))  # TIFF tags: offsets and lengths of strips, offsets and lengths of tiles
TIFF_NEEDED = {258, 273, 279, 320, 324, 325, 347}  # the same, and bits per sample, palette, JPEG tables
TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # type to bytes per value; others: 1
TILE_WIDTH, TILE_HEIGHT = 322, 323  # TIFF tags
BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"uuid", b"jP  ", b"jp2h", b"jp2c"}  # of a HEIC, an AVIF or a JP2
LYING = 5  # EXIF orientations from this value on swap width and height

# Otherwise Pillow would print its own warnings in addition to our message about a damaged file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower than the one here


class LimitError(ValueError):
    """An image that is rejected because of its size or kind; `reading` turns this into a UserError.

    `size` is the (width, height) of an image that is too large, else None.
    """

    def __init__(self, reason: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(reason)
        self.size = size


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for the decoders, and turn their exceptions into a UserError that names the file.

    Raises:
        FileNotFoundError: no such file.
        UserError: no permission, file too large, or any error of the decoders.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # Not by name: then Pillow would map uncompressed TIFFs into memory and scramble rotated ones.
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_BYTES:
                raise LimitError(f"more than {MAX_BYTES >> 20} MB")
            yield stream
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: cannot be read as a photo (not an image)") from error
    except MemoryError as error:
        raise UserError(f"{path}: cannot be read as a photo (out of memory)") from error
    except Exception as error:  # decoders raise many types for damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as a photo ({reason})") from error


def beginning(stream: IO[bytes], length: int = -1) -> bytes:
    """The first `length` bytes of a file, or all of them; afterwards the stream is back at the start."""
    stream.seek(0)
    data = stream.read(length)
    stream.seek(0)
    return data


def open_header(stream: IO[bytes]) -> Image.Image | HeifImage:
    """Open an image without decoding it. Raises LimitError, ValueError, and any exception of the decoders."""
    head = beginning(stream, HEAD)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":  # opening it allocates memory for the whole image
        _check_size(_webp_size(head), "WEBP")
    if head.startswith(JPEG2000_STARTS):
        _check_jpeg2000(beginning(stream, LONG_HEAD))
    brands = _brands(head)
    if brands or head.startswith(JPEG2000_STARTS[0]):
        _check_boxes(stream)
    if brands & HEIF_BRANDS and not brands & AVIF_BRANDS:
        return _open_heif(stream)
    try:
        picture = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        if brands & AVIF_BRANDS or head.startswith(STARTS) or head[8:12] == b"WEBP":
            raise ValueError("damaged or truncated") from None
        raise
    _check_size(picture.size, picture.format or "")
    _check_work(picture, head, stream)
    return picture


def _open_heif(stream: IO[bytes]) -> HeifImage:
    """Open the main image of a HEIC file; `info["pictures"]` is the number of images in the file."""
    file = HeifFile(stream)
    picture = file[file.primary_index]
    picture.info["pictures"] = len(file)
    _check_size(picture.size, "HEIF")
    return picture


def _check_size(size: tuple[int, int], kind: str) -> None:
    width, height = size
    most = MAX_PIXELS_OF.get(kind, MAX_PIXELS)
    if width * height > most:
        raise LimitError(f"{width}×{height} is more than {most // 1_000_000} megapixels; shrink it first", size)
    if max(size) > MAX_SIDE:
        raise LimitError(f"{width}×{height}: no side may have more than {MAX_SIDE} pixels", size)


def _check_work(picture: Image.Image, head: bytes, stream: IO[bytes]) -> None:
    """Reject files of normal size that would take a decoder too long or too much memory."""
    pixels = picture.width * picture.height
    has_runs = picture.format == "BMP" and picture.info.get("compression") in BMP_WITH_RUNS
    if pixels > MAX_SLOW_PIXELS and (has_runs or head.startswith(PPM_AS_TEXT)):
        raise LimitError(f"{picture.width}×{picture.height} is too large for this kind of file; save it as PNG")
    if picture.info.get("progressive") and beginning(stream).count(b"\xff\xda") * pixels > MAX_SCANNED:
        raise LimitError("too many scans")
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _check_tiff(picture, head, stream)


def _check_tiff(picture: TiffImagePlugin.TiffImageFile, head: bytes, stream: IO[bytes]) -> None:
    """Check the tiles of a TIFF, and that the file is not truncated; otherwise libtiff would print its own messages."""
    tags = picture.tag_v2
    if tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0) > MAX_TILE:
        raise LimitError("its tiles are too large")
    if any(len(tags.get(starts, ())) > MAX_TIFF_PARTS for starts, _ in TIFF_PARTS):
        raise LimitError("too many strips")
    compression = picture.info.get("compression")
    if compression == "webp":
        raise LimitError("a TIFF compressed as WebP")
    if compression == "raw":  # Pillow decodes these itself
        return
    size = stream.seek(0, os.SEEK_END)
    ends = _tiff_ends(head, stream)
    for starts, lengths in TIFF_PARTS:
        parts = zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
        ends += [start + length for start, length in parts]
    if max(ends) > size:
        raise ValueError("truncated")


def _tiff_ends(head: bytes, stream: IO[bytes]) -> list[int]:
    """The file positions at which a TIFF's first directory and the values that libtiff needs to decode it end."""
    order = "<" if head.startswith(b"II") else ">"
    stream.seek(struct.unpack_from(order + "I", head, 4)[0])
    count = struct.unpack(order + "H", stream.read(2))[0]
    ends = [stream.tell() + 12 * count]
    for tag, kind, values, place in struct.iter_unpack(order + "HHII", stream.read(12 * count)):
        length = TIFF_SIZES.get(kind, 1) * values
        if tag in TIFF_NEEDED and length > 4:
            ends.append(place + length)
    return ends


def _check_boxes(stream: IO[bytes]) -> None:
    """Reject a truncated HEIC, AVIF or JP2: libheif would silently leave out the missing tiles."""
    size, place = stream.seek(0, os.SEEK_END), 0
    while place < size:
        stream.seek(place)
        header = stream.read(16).ljust(16, b"\0")
        length, name = struct.unpack_from(">I4s", header)
        if length == 1:  # the length follows
            length = struct.unpack_from(">Q", header, 8)[0]
        if name not in BOXES or length < 8:
            break
        place += length
    stream.seek(0)
    if place > size:
        raise ValueError("truncated")


def _webp_size(head: bytes) -> tuple[int, int]:
    """The (width, height) of a WebP. Raises struct.error if the file is too short."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_jpeg2000(head: bytes) -> None:
    """Check what the decoder allocates memory for: image size, channels and tiles."""
    start = head.find(JPEG2000_STARTS[1])
    if start < 0:
        raise ValueError("damaged or truncated")
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", head, start + 8)
    channels = struct.unpack_from(">H", head, start + 40)[0]
    if not 1 <= channels <= 4 or right <= left or bottom <= top or 0 in (tile_width, tile_height):
        raise ValueError("damaged at its beginning")
    _check_size((right - left, bottom - top), "JPEG2000")
    if -(-right // tile_width) * -(-bottom // tile_height) > MAX_TILES:
        raise LimitError("too many tiles")


def _brands(head: bytes) -> set[bytes]:
    """The brands (content types) that a file of the HEIF family declares; empty for other files."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[8 : int.from_bytes(head[:4], "big")]
    return {box[place : place + 4] for place in range(0, len(box), 4) if place != 4}  # at 4 is the version


# ---------------------------------------------------------------------------------------------------- metadata


def orientation(picture: Image.Image | HeifImage) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none or if it cannot be read.

    Also 1 for HEICs: libheif already rotates them, and their EXIF orientation must not be applied again.
    """
    if not isinstance(picture, Image.Image):
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data may be any bytes
        return 1
    return value if value in range(1, 9) else 1


def upright_size(picture: Image.Image | HeifImage) -> tuple[int, int]:
    """The (height, width) of an opened image after it has been rotated upright."""
    width, height = picture.size
    return (width, height) if orientation(picture) >= LYING else (height, width)


def color_numbers(head: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function (ITU-T H.273) from the `colr` box of an AVIF or the `cICP` chunk of a PNG."""
    if head[4:8] == b"ftyp":
        place = head.find(b"colrnclx")
        return struct.unpack_from(">HH", head, place + 8) if 0 <= place <= len(head) - 12 else None
    place = head.find(b"\0\0\0\x04cICP", 0, max(0, head.find(b"IDAT")))
    return (head[place + 8], head[place + 9]) if place >= 0 else None


def jpeg2000_profile(head: bytes) -> bytes | None:
    """The ICC profile in the boxes of a JP2, which Pillow does not read."""
    place = head.find(b"colr\x02")
    return head[place + 7 : place - 4 + int.from_bytes(head[place - 4 : place], "big")] if place >= 4 else None


def jpeg2000_orientation(head: bytes, stream: IO[bytes]) -> int:
    """The EXIF orientation that ExifTool writes into a JP2, which Pillow does not read."""
    stream.seek(max(0, os.fstat(stream.fileno()).st_size - LONG_HEAD))
    for data in (head, stream.read()):
        place = data.find(b"uuidJpgTiffExif->JP2")
        if place >= 0:
            picture = Image.new("L", (1, 1))
            picture.info["exif"] = b"Exif\0\0" + data[place + 20 :]
            return orientation(picture)
    return 1

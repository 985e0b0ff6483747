"""Opening picture files without decoding them: by a fixed list of decoders, within bounds of size and memory."""

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

# Pillow knows dozens of formats, and some of their decoders ask for any amount of memory. Only these are for photos. A
# file's first bytes choose among them; its name says nothing.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF", "PPM")  # MPO comes with JPEG
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}
JPEG2000_STARTS = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")  # with boxes around it, and bare
STARTS = (JPEG_START, PNG_START, b"GIF8", b"BM", b"II*\0", b"MM\0*", *JPEG2000_STARTS)  # of known files

MAX_PIXELS = 200_000_000
# Their decoders need up to 30 bytes for each pixel, the others' 11 at most, or more time than the others' (measured).
MAX_PIXELS_OF = {"WEBP": 100_000_000, "AVIF": 100_000_000, "JPEG2000": 50_000_000}
MAX_SIDE = 1 << 20
MAX_BYTES = 1 << 30  # of a file
MAX_SLOW_PIXELS = 2_000_000  # where Pillow decodes in Python: BMP with run lengths, PPM as text
MAX_SCANNED = 3_000_000_000  # pixels times scans of a progressive JPEG, which take a second for each 400 million
MAX_TILE = 64_000_000  # pixels of a TIFF's tile
MAX_TIFF_PARTS = 1 << 16  # strips or tiles
MAX_TILES = 4096  # of a JPEG 2000, whose decoder prepares all of them
HEAD = 512  # bytes that say the format and its size
LONG_HEAD = 4 << 20  # bytes in which the profile and the orientation lie, where Pillow does not read them

BMP_WITH_RUNS = (1, 2)
PPM_AS_TEXT = (b"P1", b"P2", b"P3")
TIFF_PARTS = ((273, 279), (324, 325))  # tags of where a TIFF's strips and its tiles begin, and of how long they are
TIFF_NEEDED = {258, 273, 279, 320, 324, 325, 347}  # these and bits of a channel, the palette, a JPEG's tables
TIFF_SIZES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes of a value by its type; else 1
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of a TIFF
BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"uuid", b"jP  ", b"jp2h", b"jp2c"}  # of a HEIC, an AVIF or a JP2
LYING = 5  # from this value of EXIF's orientation on, width and height are exchanged

# Pillow would print lines of its own beside the one that names a damaged file.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit is lower than the one here


class LimitError(ValueError):
    """A picture that is refused for its size or its kind; `reading` makes a UserError of it.

    `size` is its (width, height), where that is the reason.
    """

    def __init__(self, reason: str, size: tuple[int, int] | None = None) -> None:
        super().__init__(reason)
        self.size = size


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for the decoders, and turn what they raise into a UserError that names it.

    Raises:
        FileNotFoundError: no such file.
        UserError: no permission, too large, and all that decoders find.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # As a stream: given a name, Pillow maps uncompressed TIFFs into memory and scrambles rotated ones.
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > MAX_BYTES:
                raise LimitError(f"more than {MAX_BYTES >> 20} MB")
            yield stream
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: cannot be read as a photo (not a picture)") from error
    except MemoryError as error:
        raise UserError(f"{path}: cannot be read as a photo (out of memory)") from error
    except Exception as error:  # decoders raise many types for damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as a photo ({reason})") from error


def beginning(stream: IO[bytes], length: int = -1) -> bytes:
    """The first bytes of a file, or all; the next to read are the first again."""
    stream.seek(0)
    data = stream.read(length)
    stream.seek(0)
    return data


def open_header(stream: IO[bytes]) -> Image.Image | HeifImage:
    """Open a picture without decoding it. Raises LimitError, ValueError, and what decoders raise."""
    head = beginning(stream, HEAD)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":  # opening it takes memory for the whole picture
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
            raise ValueError("damaged or cut off") from None
        raise
    _check_size(picture.size, picture.format or "")
    _check_work(picture, head, stream)
    return picture


def _open_heif(stream: IO[bytes]) -> HeifImage:
    """Open a HEIC's main picture. Its `info["pictures"]` is how many there are."""
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
    """Refuse what would take a decoder too long or too much memory, though the picture has a usual size."""
    pixels = picture.width * picture.height
    has_runs = picture.format == "BMP" and picture.info.get("compression") in BMP_WITH_RUNS
    if pixels > MAX_SLOW_PIXELS and (has_runs or head.startswith(PPM_AS_TEXT)):
        raise LimitError(f"{picture.width}×{picture.height} is too large for this kind of file; save it as PNG")
    if picture.info.get("progressive") and beginning(stream).count(b"\xff\xda") * pixels > MAX_SCANNED:
        raise LimitError("too many scans")
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        _check_tiff(picture, head, stream)


def _check_tiff(picture: TiffImagePlugin.TiffImageFile, head: bytes, stream: IO[bytes]) -> None:
    """Check a TIFF's tiles; and what is cut off, about which libtiff would print lines of its own."""
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
        raise ValueError("cut off")


def _tiff_ends(head: bytes, stream: IO[bytes]) -> list[int]:
    """Where a TIFF's first directory ends, and the values that libtiff needs to decode it."""
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
    """Refuse a HEIC, AVIF or JP2 that is cut off: libheif would leave out the tiles that are missing."""
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
        raise ValueError("cut off")


def _webp_size(head: bytes) -> tuple[int, int]:
    """A WebP's (width, height). Raises struct.error where it ends before."""
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _check_jpeg2000(head: bytes) -> None:
    """Check what the decoder takes memory for: the picture's size, its channels and its tiles."""
    start = head.find(JPEG2000_STARTS[1])
    if start < 0:
        raise ValueError("damaged or cut off")
    right, bottom, left, top, tile_width, tile_height = struct.unpack_from(">6I", head, start + 8)
    channels = struct.unpack_from(">H", head, start + 40)[0]
    if not 1 <= channels <= 4 or right <= left or bottom <= top or 0 in (tile_width, tile_height):
        raise ValueError("damaged at its beginning")
    _check_size((right - left, bottom - top), "JPEG2000")
    if -(-right // tile_width) * -(-bottom // tile_height) > MAX_TILES:
        raise LimitError("too many tiles")


def _brands(head: bytes) -> set[bytes]:
    """What a file of the HEIF family says that it holds; empty for other files."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[8 : int.from_bytes(head[:4], "big")]
    return {box[place : place + 4] for place in range(0, len(box), 4) if place != 4}  # there is the version


# ---------------------------------------------------------------------------------------------------- facts


def orientation(picture: Image.Image | HeifImage) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none or where it cannot be read.

    libheif turns HEICs itself, which may carry EXIF's orientation too: it must not be applied again.
    """
    if not isinstance(picture, Image.Image):
        return 1
    try:
        value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # EXIF data may be any bytes
        return 1
    return value if value in range(1, 9) else 1


def upright_size(picture: Image.Image | HeifImage) -> tuple[int, int]:
    """The (height, width) of an opened picture once it is upright."""
    width, height = picture.size
    return (width, height) if orientation(picture) >= LYING else (height, width)


def color_numbers(head: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function (ITU-T H.273), as an AVIF's `colr` box or a PNG's `cICP` chunk names them."""
    if head[4:8] == b"ftyp":
        place = head.find(b"colrnclx")
        return struct.unpack_from(">HH", head, place + 8) if 0 <= place <= len(head) - 12 else None
    place = head.find(b"\0\0\0\x04cICP", 0, max(0, head.find(b"IDAT")))
    return (head[place + 8], head[place + 9]) if place >= 0 else None


def jpeg2000_profile(head: bytes) -> bytes | None:
    """The ICC profile in a JP2's boxes, which Pillow leaves out."""
    place = head.find(b"colr\x02")
    return head[place + 7 : place - 4 + int.from_bytes(head[place - 4 : place], "big")] if place >= 4 else None


def jpeg2000_orientation(head: bytes, stream: IO[bytes]) -> int:
    """EXIF's orientation as ExifTool writes it into a JP2, which Pillow leaves out."""
    stream.seek(max(0, os.fstat(stream.fileno()).st_size - LONG_HEAD))
    for data in (head, stream.read()):
        place = data.find(b"uuidJpgTiffExif->JP2")
        if place >= 0:
            picture = Image.new("L", (1, 1))
            picture.info["exif"] = b"Exif\0\0" + data[place + 20 :]
            return orientation(picture)
    return 1

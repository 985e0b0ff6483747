"""Picture files drawn by code for the tests of reading: every format, profiles of colours, damage, bombs."""

import io
import struct
import zlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pillow_heif
from PIL import Image, ImageCms

pillow_heif.register_heif_opener()

SIZE = (64, 48)  # (height, width)


def draw_photo() -> np.ndarray:
    """A smooth picture that no turn and no mirror brings onto itself."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / 64
    photo = np.stack([60 + 150 * x, 40 + 90 * y, 120 - 60 * x], -1)
    photo[8:30, 6:36] += (50, 80, 60)
    photo[30:50, 6:14] += (70, 20, 90)
    return cv2.GaussianBlur(photo, (0, 0), 1.5).clip(0, 255).round().astype(np.uint8)


PHOTO = draw_photo()
ALPHA = np.full(SIZE, 255, np.uint8)
ALPHA[:, :12], ALPHA[50:] = 0, 100


def encoded(picture: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(stream, kind, **options)
    return stream.getvalue()


FINE: dict[str, dict] = {  # how to write each format so that little is lost
    "JPEG": {"quality": 98, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 98, "subsampling": "4:4:4"},
    "HEIF": {"quality": 98, "chroma": 444},
    "JPEG2000": {},
    "BMP": {},
    "GIF": {},
    "PPM": {},
}
SUFFIXES = {
    "JPEG": (".jpg", ".JPEG", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".TIFF"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".HEIC", ".heif", ".hif"),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}

# ---------------------------------------------------------------------------------------------------- orientation

BACK = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's number of the turn from upright to as stored


def as_stored(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(Image.Transpose(BACK[orientation])) if orientation > 1 else picture


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def turned(kind: str, orientation: int, picture: Image.Image | None = None, **options: object) -> bytes:
    """The photo as a camera stores it, with EXIF's orientation; HEIC and AVIF have a turn of their own beside it."""
    picture = picture or Image.fromarray(PHOTO)
    exif = exif_of(orientation).tobytes()
    data = encoded(as_stored(picture, orientation), kind, exif=exif, **FINE[kind] | options)
    if kind == "HEIF" and orientation > 1:
        assert (b"irot" in data or b"imir" in data) and bytes([0x12, 0, 3, 0, 0, 0, 1, 0, orientation]) in data
    return data


def turned_by_xmp(orientation: int) -> bytes:
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    return encoded(as_stored(Image.fromarray(PHOTO), orientation), "JPEG", xmp=xmp.encode(), **FINE["JPEG"])


def turned_jp2(orientation: int) -> bytes:
    """As ExifTool writes it: a box at the end."""
    data = encoded(as_stored(Image.fromarray(PHOTO), orientation), "JPEG2000")
    exif = exif_of(orientation).tobytes().removeprefix(b"Exif\0\0")
    return data + struct.pack(">I", 24 + len(exif)) + b"uuidJpgTiffExif->JP2" + exif


# ---------------------------------------------------------------------------------------------------- colours


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile."""
    start = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = bytearray(128)
    head[0:4], head[8:12] = struct.pack(">I", start + len(body)), b"\x02\x40\0\0"
    head[12:24] = (b"prtr" if space == b"CMYK" else b"mntr") + space + (b"Lab " if space == b"CMYK" else b"XYZ ")
    head[36:40], head[68:80] = b"acsp", fixed(0.9642) + fixed(1) + fixed(0.8249)
    return bytes(head) + table + body


def text_tags(name: str) -> dict[bytes, bytes]:
    text = name.encode() + b"\0"
    white = b"XYZ \0\0\0\0" + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return {b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78), b"wtpt": white}


def parametric(kind: int, *values: float) -> bytes:
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(fixed, values))


def table_curve(curve: Callable[[np.ndarray], np.ndarray], count: int = 1024) -> bytes:
    values = (curve(np.linspace(0, 1, count)) * 65535).round().astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", count) + values.tobytes()


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def srgb_light(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92)


SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)


def rgb_profile(name: str, colorants: Sequence[Sequence[float]], curve: bytes) -> bytes:
    tags = text_tags(name)
    for color, xyz in zip((b"r", b"g", b"b"), colorants, strict=True):
        tags[color + b"XYZ"] = b"XYZ \0\0\0\0" + b"".join(map(fixed, xyz))
        tags[color + b"TRC"] = curve
    return profile(b"RGB ", tags)


SRGB_XYZ = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
P3_XYZ = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
ADOBE_XYZ = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
PROPHOTO_XYZ = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
RGB_PROFILES = {
    "Display P3": rgb_profile("Display P3", P3_XYZ, SRGB_CURVE),
    "Display P3 by a table": rgb_profile("P3", P3_XYZ, table_curve(srgb_light)),
    "Adobe RGB (1998)": rgb_profile("Adobe RGB (1998)", ADOBE_XYZ, gamma_curve(2.19921875)),
    "ProPhoto RGB": rgb_profile("ProPhoto RGB", PROPHOTO_XYZ, gamma_curve(1.80078125)),
    "Rec. 709 curve": rgb_profile("709", SRGB_XYZ, parametric(3, 1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)),
    "gamma alone": rgb_profile("g", ADOBE_XYZ, parametric(0, 2.0)),
    "power with an offset": rgb_profile("p1", P3_XYZ, parametric(1, 2.4, 1.01, -0.01)),
    "all seven values": rgb_profile(
        "p4", P3_XYZ, parametric(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0, 0)
    ),
    "linear": rgb_profile("linear", SRGB_XYZ, b"curv\0\0\0\0\0\0\0\0"),
}
SRGB_PROFILES = {
    "Pillow's": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "another": rgb_profile("sRGB IEC61966-2.1", SRGB_XYZ, SRGB_CURVE),
    "without a good name": rgb_profile("c2", SRGB_XYZ, table_curve(srgb_light, 256)),
}
GREY_PROFILES = {
    "gamma 1.8": profile(b"GRAY", text_tags("g") | {b"kTRC": gamma_curve(1.8)}),
    "linear": profile(b"GRAY", text_tags("g") | {b"kTRC": b"curv\0\0\0\0\0\0\0\0"}),
}


def cmyk_profile() -> bytes:
    """A press whose inks are paler than Pillow's formula takes them for: 16 corners between paper and black."""
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], [0, 1], indexing="ij")).reshape(4, -1).T
    lab = []
    for c, m, y, k in corners:
        light = 95 - (25 * c + 35 * m + 8 * y) - 0.8 * k * (95 - (25 * c + 35 * m + 8 * y))
        lab.append(
            (light * 2.55, 128 + (1 - k) * (-30 * c + 60 * m - 5 * y), 128 + (1 - k) * (-40 * c - 5 * m + 70 * y))
        )
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + b"".join(map(fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    lut += ramp * 4 + np.array(lab).round().clip(0, 255).astype(np.uint8).tobytes() + ramp * 3
    return profile(b"CMYK", text_tags("press") | {b"A2B0": lut})


CMYK_PROFILE = cmyk_profile()


def by_lcms(data: np.ndarray, source: bytes | None, target: bytes | None, mode: str = "RGB") -> np.ndarray:
    """Convert colours by LittleCMS; None stands for sRGB."""
    opened = [ImageCms.ImageCmsProfile(io.BytesIO(one or SRGB_PROFILES["Pillow's"])) for one in (source, target)]
    picture = Image.frombytes(mode, data.shape[1::-1], np.ascontiguousarray(data).tobytes())
    return np.asarray(ImageCms.profileToProfile(picture, *opened, outputMode="RGB"))


# ---------------------------------------------------------------------------------------------------- PNG by hand


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    found = zlib.crc32(body, zlib.crc32(name)) if checksum is None else checksum
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", found)


def with_chunk(png: bytes, name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    """A PNG with one more chunk behind its header."""
    return png[:33] + chunk(name, body, checksum) + png[33:]


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


# ---------------------------------------------------------------------------------------------------- bombs


def tiff(tags: Sequence[tuple[int, int, int, int]], more: bytes = b"") -> bytes:
    """A TIFF of one directory; the tags are (number, type, count, value)."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + more


def jpeg2000(width: int, height: int, tile: int, channels: int = 3) -> bytes:
    """The beginning of a bare JPEG 2000."""
    size = struct.pack(">HH8IH", 38 + 3 * channels, 0, width, height, 0, 0, tile, tile, 0, 0, channels)
    coding = b"\xff\x52\0\x0c\0\0\0\x01\0\x05\x04\x04\0\x01\xff\x5c\0\x13\x40" + bytes(16)
    return b"\xff\x4f\xff\x51" + size + b"\x07\x01\x01" * channels + coding + b"\xff\x90\0\x0a" + bytes(200)


def jpeg_with_size(width: int, height: int, **options: object) -> bytes:
    data = bytearray(encoded(PHOTO, "JPEG", **options))
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def with_size_in_box(data: bytes, width: int, height: int) -> bytes:
    """An AVIF or HEIC that says that it is larger."""
    place = data.find(b"ispe")
    return data[: place + 8] + struct.pack(">II", width, height) + data[place + 16 :]


def many_scans() -> bytes:
    """A progressive JPEG of 16 megapixels whose last scan is there a thousand times more."""
    data = encoded(Image.new("L", (4000, 4000), 100), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * 1000 + b"\xff\xd9"


def bombs() -> dict[str, bytes]:
    """Files that would take gigabytes or minutes."""
    png = encoded(PHOTO, "PNG")
    zeros = zlib.compress(bytes(400_000_000), 9)
    square = [(256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    many = [(278, 4, 1, 1), (273, 4, 200_000, 200), (279, 4, 200_000, 800_200)]
    gif = bytearray(encoded(Image.fromarray(PHOTO).convert("P"), "GIF"))
    wide_gif = bytes(gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:])
    canvas = (1 << 24) - 1
    still = encoded(PHOTO, "WEBP")
    extended = b"VP8X" + struct.pack("<II", 10, 2) + canvas.to_bytes(3, "little") + (255).to_bytes(3, "little")
    runs = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 1078, 40, 30000, 6000, 1, 8, 1, 0, 0, 0, 256, 0)
    return {
        "wide.png": png_header(20_000, 20_000) + chunk(b"IDAT", zeros[:100_000]) + chunk(b"IEND", b""),
        "long.png": png_header(1 << 21, 1)
        + chunk(b"IDAT", zlib.compress(bytes(3 * (1 << 21) + 1)))
        + chunk(b"IEND", b""),
        "rows.png": png[:33] + chunk(b"IDAT", zeros) + chunk(b"IEND", b""),
        "text.png": with_chunk(png, b"zTXt", b"Comment\0\0" + zeros),
        "texts.png": png[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(900_000))) * 200 + png[33:],
        "profile.png": with_chunk(png, b"iCCP", b"icc\0\0" + zeros),
        "wide.jpg": jpeg_with_size(65_500, 65_500),
        "progressive.jpg": jpeg_with_size(65_500, 65_500, progressive=True),
        "scans.jpg": many_scans(),
        "wide.gif": wide_gif,
        "frames.gif": encoded(
            Image.new("P", (1000, 1000)),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (1, 1), i % 2) for i in range(3000)],
        ),
        "wide.webp": b"RIFF" + struct.pack("<I", 4 + 18) + b"WEBP" + extended,
        "canvas.webp": b"RIFF" + struct.pack("<I", len(still) + 10) + b"WEBP" + extended + still[12:],
        "wide.bmp": struct.pack(
            "<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, 0, 0, 0, 0, 0, 0
        ),
        "runs.bmp": runs + bytes(1024) + b"\x01\x02" * 100_000,
        "wide.tif": tiff([*square[2:], (256, 4, 1, 1 << 20), (257, 4, 1, 1 << 20), (259, 3, 1, 1), (273, 4, 1, 8)]),
        "tile.tif": tiff(
            [*square, (259, 3, 1, 5), (322, 4, 1, 1 << 15), (323, 4, 1, 1 << 15), (324, 4, 1, 8), (325, 4, 1, 99)]
        ),
        "strips.tif": tiff(
            [*square[2:], (256, 4, 1, 1), (257, 4, 1, 200_000), (259, 3, 1, 1), *many],
            bytes(200 - 8 - 2 - 12 * 9 - 4) + struct.pack("<I", 8) * 200_000 + struct.pack("<I", 1) * 200_000,
        ),
        "counts.tif": tiff([*square, (259, 3, 1, 5), (273, 4, 1 << 30, 8), (279, 4, 1 << 30, 8), (700, 1, 1 << 31, 8)]),
        "wide.j2k": jpeg2000(1 << 20, 1 << 20, 1 << 20),
        "tiles.j2k": jpeg2000(6000, 6000, 8),
        "channels.j2k": jpeg2000(100, 100, 10, channels=2000),
        "tile.jp2": encoded(PHOTO, "JPEG2000").replace(struct.pack(">II", 48, 64), struct.pack(">II", 60_000, 60_000)),
        "wide.avif": with_size_in_box(encoded(PHOTO, "AVIF"), 60_000, 60_000),
        "wide.heic": with_size_in_box(encoded(PHOTO, "HEIF"), 60_000, 60_000),
        "text.ppm": b"P3 3000 3000 255\n" + b"1 2 3 " * 100_000,
        "wide.ppm": b"P6 60000 60000 255\n" + bytes(1000),
        "profile.jpg": encoded(PHOTO, "JPEG", icc_profile=RGB_PROFILES["Display P3"] + bytes(15_000_000)),
        "profile.tif": encoded(PHOTO, "TIFF", icc_profile=RGB_PROFILES["Display P3"] + bytes(60_000_000)),
        "exif.webp": encoded(PHOTO, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(256)) * 100_000),
        "exif.png": with_chunk(
            png, b"eXIf", b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\x7f\xff\xff\xff" * 3_000_000
        ),
    }


def other_kinds() -> dict[str, bytes]:
    """Files of formats that Pillow reads and that are not for photos."""
    small = Image.fromarray(PHOTO)
    kinds = ("ICO", "TGA", "PCX", "SGI", "DDS", "EPS", "PDF", "IM", "ICNS", "MSP", "XBM", "SPIDER")
    files = {}
    for kind in kinds:
        mode = {"MSP": "1", "XBM": "1", "SPIDER": "F"}.get(kind, "RGB")
        files[kind.lower()] = encoded(small.convert(mode), kind)
    files["psd"] = b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 64, 48, 8, 3) + bytes(64)
    files["fits"] = (
        b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80) + bytes(2720)
    )
    files["wmf"] = b"\xd7\xcd\xc6\x9a\0\0" + bytes(60)
    files["svg"] = b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>'
    files["mp4"] = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500)
    files["cr3"] = b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(500)
    return files

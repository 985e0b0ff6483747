"""Convert an image's colours to sRGB, by its ICC profile or by the colour codes (H.273) of HEIC, AVIF and PNG."""

import io
import struct
from collections.abc import Callable
from functools import lru_cache, partial

import cv2
import numpy as np
from PIL import Image, ImageCms

Convert = Callable[[np.ndarray], np.ndarray]  # rows of one mode, uint8, to RGB uint8

MAX_PROFILE = 8_000_000  # bytes; profiles of printing presses have 3 MB
SAME_COLOR = 2  # levels of 255; a profile that differs less from sRGB counts as sRGB (copies differ by rounding)
LINEAR_STEPS = 65_535
COLORANTS, CURVES = (b"rXYZ", b"gXYZ", b"bXYZ"), (b"rTRC", b"gTRC", b"bTRC")  # names of an ICC profile's tags
SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
# The primaries as columns, in XYZ adapted to D50 as in an ICC profile.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
BT_2020 = np.array([[0.67346, 0.16566, 0.12510], [0.27903, 0.67534, 0.04563], [-0.00193, 0.02998, 0.79716]])
PRIMARIES = {9: BT_2020, 12: DISPLAY_P3}  # by their code in ITU-T H.273
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ITU-T H.273; the others are close to sRGB's curve


def converter(mode: str, profile: bytes | None, numbers: tuple[int, int] | None, notes: list[str]) -> Convert:
    """Choose the conversion of an image's rows to sRGB.

    Args:
        mode: Pillow's mode of the rows: L, RGB, CMYK or LAB.
        profile: the embedded ICC profile, if there is one.
        numbers: codes of primaries and transfer function (ITU-T H.273), if there is no ICC profile.
        notes: a note is added here if the colours cannot be converted exactly.

    Returns:
        A function from uint8 (rows, W) or (rows, W, channels) to RGB uint8 (rows, W, 3).
    """
    if profile:
        try:
            return _by_profile(profile, mode) or PLAIN[mode]
        except Exception:  # a profile may contain any bytes, and LittleCMS raises its own errors
            notes.append("its colour profile is damaged or does not fit, and was ignored")
    elif numbers and numbers[1] in HDR_TRANSFERS:
        notes.append(f"its HDR colours ({HDR_TRANSFERS[numbers[1]]}) were read as ordinary (SDR) colours")
    elif numbers and numbers[0] in PRIMARIES and mode == "RGB":
        return _by_primaries(numbers[0])
    return PLAIN[mode]


@lru_cache(maxsize=8)
def _by_profile(profile: bytes, mode: str) -> Convert | None:
    """The conversion from a profile to sRGB; None if it is sRGB. Raises any exception of parsing or LittleCMS."""
    if len(profile) > MAX_PROFILE:
        raise ValueError("too large")
    space = SPACES[profile[16:20]]
    if mode == "L" and space == "RGB":  # a grey image from a camera that works in RGB
        colored = _by_profile(profile, "RGB")
        return colored and partial(_after, PLAIN["L"], colored)
    if space != mode:
        raise ValueError(f"a profile for {space}, but the picture is {mode}")
    exact = ImageCms.getOpenProfile(io.BytesIO(profile))
    by_lcms = partial(_transform, mode, ImageCms.buildTransform(exact, ImageCms.createProfile("sRGB"), mode, "RGB"))
    if mode in ("L", "RGB") and _looks_alike(mode, by_lcms):
        return None
    return (mode == "RGB" and _by_matrix(profile)) or by_lcms


def _after(first: Convert, second: Convert, rows: np.ndarray) -> np.ndarray:
    return second(first(rows))


def _looks_alike(mode: str, convert: Convert) -> bool:
    """Whether a conversion hardly changes colours, tested on a grid of colours."""
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colors = steps[None] if mode == "L" else np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    return bool(np.abs(convert(colors).astype(int) - PLAIN[mode](colors)).max() <= SAME_COLOR)


def _transform(mode: str, transform: ImageCms.ImageCmsTransform, rows: np.ndarray) -> np.ndarray:
    """Convert rows with LittleCMS."""
    picture = Image.frombytes(mode, rows.shape[1::-1], np.ascontiguousarray(rows).tobytes())
    return np.asarray(ImageCms.applyTransform(picture, transform))


def _cmyk_to_rgb(rows: np.ndarray) -> np.ndarray:
    """CMYK without a profile, with Pillow's formula."""
    picture = Image.frombytes("CMYK", rows.shape[1::-1], np.ascontiguousarray(rows).tobytes())
    return np.asarray(picture.convert("RGB"))


def _lab_to_rgb(rows: np.ndarray) -> np.ndarray:
    return _transform("LAB", _lab_transform(), rows)


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _grey_to_rgb(rows: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(rows, cv2.COLOR_GRAY2RGB)


def _itself(rows: np.ndarray) -> np.ndarray:
    return rows


# The conversion of each mode if there is no profile.
PLAIN: dict[str, Convert] = {"L": _grey_to_rgb, "RGB": _itself, "CMYK": _cmyk_to_rgb, "LAB": _lab_to_rgb}

# ---------------------------------------------------------------------- matrix profiles, four times as fast


def _by_primaries(number: int) -> Convert:
    curve = _parametric(3, [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045])
    return partial(_multiply, *_prepared(np.stack([curve] * 3, -1), PRIMARIES[number]))


def _by_matrix(profile: bytes) -> Convert | None:
    """The conversion of a matrix profile (three primaries and curves), as screens and cameras use; None for others.

    LittleCMS takes 0.3 s for 12 megapixels, this takes 0.08 s. Within the range, they differ by at most one level.
    """
    tags = {}
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, start, length = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        tags[name] = profile[start : start + length]
    if b"A2B0" in tags or profile[20:24] != b"XYZ " or not {*COLORANTS, *CURVES} <= tags.keys():
        return None
    primaries = np.stack([np.frombuffer(tags[name], ">i4", 3, 8) / 65536 for name in COLORANTS], -1)
    curves = np.stack([_curve(tags[name]) for name in CURVES], -1)
    return partial(_multiply, *_prepared(curves, primaries))


def _curve(tag: bytes) -> np.ndarray:
    """The linear light of an ICC curve at each of 256 levels."""
    if tag[:4] == b"para":
        kind = struct.unpack_from(">H", tag, 8)[0]
        count = (1, 3, 4, 5, 7)[kind]
        return _parametric(kind, [value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)])
    if tag[:4] != b"curv":
        raise ValueError("a curve of an unknown kind")
    count = struct.unpack_from(">I", tag, 8)[0]
    levels = np.linspace(0, 1, 256)
    if count == 0:
        return levels
    if count == 1:
        return levels ** (struct.unpack_from(">H", tag, 12)[0] / 256)
    table = np.frombuffer(tag, ">u2", count, 12) / 65535
    return np.interp(levels, np.linspace(0, 1, count), table)


def _parametric(kind: int, values: list[float]) -> np.ndarray:
    """An ICC parametric curve of type 0 to 4: (a x + b) ** g + e for x >= d, c x + f below."""
    g, a, b, c, d, e, f = values + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0][len(values) - 1 :]
    if kind in (1, 2):  # both begin where the base of the power is 0; type 2 stores its offset in the place of c
        e = f = c if kind == 2 else 0
        c, d = 0, -b / a
    x = np.linspace(0, 1, 256)
    return np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)


def _prepared(curves: np.ndarray, primaries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The curves (256, 3) as a table for cv2.LUT, and the matrix from these primaries to those of sRGB."""
    table = (curves.clip(0, 1) * LINEAR_STEPS).round().astype(np.uint16)
    return table.reshape(1, 256, 3), np.linalg.inv(SRGB) @ primaries


def _multiply(table: np.ndarray, matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    linear = cv2.transform(cv2.LUT(rows, table), matrix)  # uint16: values outside the range are clipped
    return cv2.LUT(linear, _encoding())


@lru_cache(maxsize=1)
def _encoding() -> np.ndarray:
    """The sRGB level of each of 65,536 steps of linear light."""
    linear = np.linspace(0, 1, LINEAR_STEPS + 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8).reshape(1, -1)

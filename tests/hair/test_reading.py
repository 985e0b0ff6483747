"""Photos as they come: every format, upright, in sRGB, with their transparency; damage, bombs, reduced size."""

import os
import resource
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from hair import UserError, damage, headers, profiles, read_photo
from hair.cli import main
from hair.dye import Dye
from hair.effects import Looks
from hair.photos import (
    PHOTO_SUFFIXES,
    check_photo,
    count_others,
    find_inputs,
    is_photo,
    open_photo,
    passed_over,
    photo_size,
    photos_in,
    read_grey,
)
from hair.results import Results, segment_file
from tests.hair import reading_files as drawn
from tests.hair.reading_files import ALPHA, FINE, PHOTO, SIZE, encoded

LOOKS = Looks(0.5, Dye(((9, 9, 99),)))
NAMES = [(kind, suffix) for kind, suffixes in drawn.SUFFIXES.items() for suffix in suffixes]


def put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def off(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean difference of two pictures; infinite where their sizes differ."""
    return float(np.abs(found.astype(int) - expected).mean()) if found.shape == expected.shape else np.inf


def refused(path: Path) -> str:
    """The reason why a file is refused, which is one line that names it."""
    with pytest.raises(UserError) as error:
        read_photo(path)
    text = str(error.value)
    assert text.startswith(f"{path}: cannot be read as a photo (") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def segmented(photo: np.ndarray) -> np.ndarray:
    """Stands in for a segmenter: what is bright is hair."""
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def results_of(path: Path, out: Path, *kinds: str, max_pixels: int | None = None) -> dict[str, np.ndarray]:
    """The pictures that are saved of a photo, by their kind."""
    out.mkdir(exist_ok=True)
    segment_file(path, out / path.stem, segmented, Results(kinds, LOOKS, max_pixels), threading.Lock())
    return {kind: np.asarray(Image.open(out / f"{path.stem}_{kind}.png")) for kind in kinds}


# ---------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(("kind", "suffix"), NAMES)
def test_every_format_is_a_photo_and_is_read(tmp_path: Path, kind: str, suffix: str) -> None:
    path = put(tmp_path, f"머리 {suffix}{suffix}", encoded(PHOTO, kind, **FINE[kind]))
    assert photos_in(tmp_path) == [path] and is_photo(path) and suffix.lower() in PHOTO_SUFFIXES
    photo = open_photo(path)
    assert off(photo.pixels, PHOTO) < (6 if kind == "GIF" else 2)
    assert photo.notes == () and photo.alpha is None and photo.colors is photo.pixels
    assert photo.pixels.dtype == np.uint8 and photo.pixels.flags.c_contiguous and photo.pixels.flags.writeable
    assert photo_size(path) == SIZE == check_photo(path)


@pytest.mark.parametrize("kind", FINE)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".heic", ".tif", ""])
def test_the_content_says_what_a_file_is(tmp_path: Path, kind: str, suffix: str) -> None:
    path = put(tmp_path, f"me{suffix}", encoded(PHOTO, kind, **FINE[kind]))
    assert off(read_photo(path), PHOTO) < (6 if kind == "GIF" else 2)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "PA", "RGBX"])
@pytest.mark.parametrize("kind", FINE)
def test_every_mode_of_every_format(tmp_path: Path, kind: str, mode: str) -> None:
    if (mode == "I;16" and kind not in ("PNG", "TIFF", "JPEG2000")) or (mode, kind) == ("YCbCr", "TIFF"):
        pytest.skip("Pillow itself writes something else")
    picture = Image.fromarray(PHOTO)
    if mode == "LAB":
        spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        picture = ImageCms.profileToProfile(picture, *spaces, outputMode="LAB")
    elif mode == "I;16":
        picture = Image.fromarray(PHOTO[..., 1].astype(np.uint16) * 257)
    else:
        picture = picture.convert("L").convert("LA") if mode == "LA" else picture.convert(mode, dither=0)
    try:
        path = put(tmp_path, "a.png", encoded(picture, kind, **FINE[kind]))
    except (OSError, ValueError, KeyError):
        pytest.skip(f"there is no {mode} in {kind}")
    expected = np.dstack([PHOTO[..., 1]] * 3) if mode == "I;16" else PHOTO
    if mode not in ("LAB", "I;16"):
        expected = np.asarray(picture.convert("RGB"))
    assert off(read_photo(path), expected) < (7 if kind == "GIF" else 9 if mode == "1" else 3)


COMPRESSIONS = ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "jpeg", "lzma", "zstd"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_tiff_compressions(tmp_path: Path, compression: str) -> None:
    try:
        data = encoded(PHOTO, "TIFF", compression=compression, **{"quality": 98} if compression == "jpeg" else {})
    except OSError:
        pytest.skip("not in this libtiff")
    assert off(read_photo(put(tmp_path, "a.tif", data)), PHOTO) < 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits(tmp_path: Path, suffix: str, channels: int) -> None:
    deep = np.dstack([PHOTO[..., ::-1], ALPHA]).astype(np.uint16) * 257
    deep = {1: deep[..., 1], 3: deep[..., :3], 4: deep}[channels]
    path = put(tmp_path, "a.png", cv2.imencode(suffix, deep)[1].tobytes())
    expected = np.dstack([PHOTO[..., 1]] * 3) if channels == 1 else PHOTO
    assert np.abs(open_photo(path).colors.astype(int) - expected).max() <= 1


def test_mpo_is_one_photo(tmp_path: Path) -> None:
    data = encoded(
        PHOTO, "MPO", save_all=True, append_images=[Image.fromarray(PHOTO[:8, :8])], quality=98, subsampling=0
    )
    photo = open_photo(put(tmp_path, "a.mpo", data))
    assert off(photo.pixels, PHOTO) < 2 and photo.notes == ()


MOVING = {"save_all": True, "append_images": [Image.fromarray(PHOTO[::-1])], "duration": 50}


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF", "HEIF"])
def test_of_several_pictures_the_first_is_read_and_that_is_told(tmp_path: Path, kind: str) -> None:
    options = (
        MOVING
        if kind in ("GIF", "WEBP", "PNG", "AVIF")
        else {"save_all": True, "append_images": MOVING["append_images"]}
    )
    photo = open_photo(put(tmp_path, "a.gif", encoded(PHOTO, kind, **FINE[kind] | options)))
    assert off(photo.pixels, PHOTO) < 6
    said = {"TIFF": "has several pages; only the first", "HEIF": "contains several images; only the main one"}
    (note,) = photo.notes
    assert note == said.get(kind, "is animated; only the first frame") + " was read"


def test_the_folder_of_a_phone_is_read_whole(tmp_path: Path) -> None:
    kinds = {"a.jpg": "JPEG", "b.avif": "AVIF", "c.jfif": "JPEG", "d.gif": "GIF", "IMG_0001.HEIC": "HEIF"}
    for name, kind in kinds.items():
        put(tmp_path, name, encoded(PHOTO, kind, **FINE[kind]))
    files, missing = find_inputs([tmp_path], False, tmp_path / "result")
    assert sorted(file.name for file in files) == sorted(kinds) and missing == []
    assert passed_over([tmp_path], False, tmp_path / "result") == []
    for file in files:
        mask = results_of(file, tmp_path / "out", "mask")["mask"]
        assert mask.shape == SIZE and abs(int((mask > 0).sum()) - int((segmented(PHOTO) >= 0.5).sum())) < 150


# ---------------------------------------------------------------------------------------------------- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    path = put(tmp_path, "a.jpg", drawn.turned(kind, orientation))
    assert off(read_photo(path), PHOTO) < 2
    assert check_photo(path) == SIZE
    grey, _ = read_grey(path)
    assert off(grey, cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY)) < 2
    mask = results_of(path, tmp_path / "out", "mask")["mask"]
    assert ((mask > 0) != (segmented(PHOTO) >= 0.5)).mean() < 0.05


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_in_other_ways(tmp_path: Path, orientation: int) -> None:
    """With transparency, in grey, deep, compressed, by XMP and by a JP2's box."""
    clear = Image.fromarray(np.dstack([PHOTO, ALPHA]))
    deep = Image.fromarray(PHOTO[..., 1].astype(np.uint16) * 257)
    green = np.dstack([PHOTO[..., 1]] * 3)
    files = {
        "xmp.jpg": (drawn.turned_by_xmp(orientation), PHOTO),
        "box.jp2": (drawn.turned_jp2(orientation), PHOTO),
        "grey.jpg": (drawn.turned("JPEG", orientation, Image.fromarray(PHOTO[..., 1])), green),
        "deep.png": (drawn.turned("PNG", orientation, deep), green),
        "deep.tif": (drawn.turned("TIFF", orientation, deep), green),
        "lzw.tif": (drawn.turned("TIFF", orientation, compression="tiff_lzw"), PHOTO),
        "progressive.jpg": (drawn.turned("JPEG", orientation, progressive=True), PHOTO),
    }
    for kind in ("PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
        files[f"clear {kind}"] = (
            drawn.turned(kind, orientation, clear, **{"exact": True} if kind == "WEBP" else {}),
            PHOTO,
        )
    wrong = {}
    for name, (data, expected) in files.items():
        photo = open_photo(put(tmp_path, name, data))
        sure = photo.alpha if photo.alpha is not None and photo.alpha.shape == SIZE else np.full(SIZE, 255)
        difference = off(photo.colors * (sure[..., None] > 0), expected * (sure[..., None] > 0))
        if difference > 2.5 or (name.startswith("clear") and off(sure, ALPHA) > 2):
            wrong[name] = difference, photo.colors.shape
    assert wrong == {}


@pytest.mark.parametrize(
    "data", [b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\x01", b"Exif\0\0" + bytes(range(256)) * 20]
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_broken_exif_data_are_no_orientation(tmp_path: Path, kind: str, data: bytes) -> None:
    assert off(read_photo(put(tmp_path, "a.jpg", encoded(PHOTO, kind, exif=data, **FINE[kind]))), PHOTO) < 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_exif_data_are_at_hand(tmp_path: Path, kind: str) -> None:
    exif = drawn.exif_of(6)
    exif[271] = "Maker"
    data = encoded(PHOTO, kind, exif=exif.tobytes(), **FINE[kind])
    found = Image.Exif()
    found.load(open_photo(put(tmp_path, "a.jpg", data)).exif)
    assert found[271] == "Maker"
    assert open_photo(put(tmp_path, "b.jpg", encoded(PHOTO, kind, **FINE[kind]))).exif is None


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_there_is_not(tmp_path: Path, value: int) -> None:
    assert (
        off(read_photo(put(tmp_path, "a.jpg", encoded(PHOTO, "JPEG", exif=drawn.exif_of(value), quality=98))), PHOTO)
        < 3
    )


# ---------------------------------------------------------------------------------------------------- colours


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("name", drawn.RGB_PROFILES)
def test_colours_of_a_profile_become_those_of_srgb(tmp_path: Path, kind: str, name: str) -> None:
    profile = drawn.RGB_PROFILES[name]
    stored = drawn.by_lcms(PHOTO, None, profile)
    photo = open_photo(put(tmp_path, "a.jpg", encoded(stored, kind, icc_profile=profile, **FINE[kind])))
    assert off(stored, PHOTO) > 2, "else this would test nothing"
    assert off(photo.pixels, PHOTO) < (4 if name == "linear" else 2.5) and photo.notes == ()


def test_the_red_of_a_phone(tmp_path: Path) -> None:
    red = np.full((32, 32, 3), (220, 40, 40), np.uint8)
    profile = drawn.RGB_PROFILES["Display P3"]
    data = encoded(drawn.by_lcms(red, None, profile), "JPEG", icc_profile=profile, quality=97, subsampling=0)
    path = put(tmp_path, "p3.jpg", data)
    assert np.abs(read_photo(path)[16, 16].astype(int) - (220, 40, 40)).max() <= 3
    overlay = results_of(path, tmp_path / "out", "alpha")["alpha"]
    assert np.abs(overlay[16, 16, :3].astype(int) - (220, 40, 40)).max() <= 3


@pytest.mark.parametrize("name", drawn.RGB_PROFILES)
def test_the_fast_way_agrees_with_littlecms(name: str) -> None:
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    exact = drawn.by_lcms(colors, drawn.RGB_PROFILES[name], None).astype(int)
    convert = profiles._by_matrix(drawn.RGB_PROFILES[name])
    assert convert is not None and np.abs(convert(colors) - exact).max() <= 2


@pytest.mark.parametrize("name", drawn.SRGB_PROFILES)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_srgb_is_left_as_it_is(tmp_path: Path, name: str, mode: str) -> None:
    picture = Image.fromarray(PHOTO).convert(mode)
    path = put(tmp_path, "a.png", encoded(picture, "PNG", icc_profile=drawn.SRGB_PROFILES[name]))
    assert np.array_equal(read_photo(path), np.asarray(picture.convert("RGB")))
    assert profiles.converter("RGB", drawn.SRGB_PROFILES[name], None, []) is profiles.PLAIN["RGB"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("name", drawn.GREY_PROFILES)
@pytest.mark.parametrize("is_deep", [False, True])
def test_grey_profiles(tmp_path: Path, kind: str, name: str, is_deep: bool) -> None:
    if is_deep and kind == "JPEG":
        pytest.skip("8 bits only")
    grey = PHOTO[..., 1]
    stored = grey.astype(np.uint16) * 257 if is_deep else grey
    photo = open_photo(
        put(tmp_path, "a.png", encoded(stored, kind, icc_profile=drawn.GREY_PROFILES[name], **FINE[kind]))
    )
    expected = drawn.by_lcms(grey, drawn.GREY_PROFILES[name], None, "L")
    assert off(expected, np.dstack([grey] * 3)) > 5
    assert off(photo.pixels, expected) < 2 and photo.notes == ()


def test_a_grey_photo_with_a_profile_for_colours(tmp_path: Path) -> None:
    profile = drawn.RGB_PROFILES["ProPhoto RGB"]
    photo = open_photo(put(tmp_path, "a.png", encoded(PHOTO[..., 1], "PNG", icc_profile=profile)))
    expected = drawn.by_lcms(np.dstack([PHOTO[..., 1]] * 3), profile, None)
    assert off(photo.pixels, expected) < 1 and photo.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("has_profile", [False, True])
def test_cmyk(tmp_path: Path, kind: str, has_profile: bool) -> None:
    picture = Image.fromarray(PHOTO).convert("CMYK")
    options = {"icc_profile": drawn.CMYK_PROFILE} if has_profile else {}
    photo = open_photo(put(tmp_path, "a.jpg", encoded(picture, kind, **FINE[kind] | options)))
    expected = drawn.by_lcms(np.asarray(picture), drawn.CMYK_PROFILE, None, "CMYK") if has_profile else PHOTO
    assert off(photo.pixels, expected) < 3 and photo.notes == ()
    assert not has_profile or off(expected, PHOTO) > 8


def test_palettes_and_transparency_have_profiles_too(tmp_path: Path) -> None:
    profile = drawn.RGB_PROFILES["Display P3"]
    stored = Image.fromarray(np.dstack([drawn.by_lcms(PHOTO, None, profile), ALPHA]))
    clear = open_photo(put(tmp_path, "a.png", encoded(stored, "PNG", icc_profile=profile)))
    assert off(clear.colors, PHOTO) < 1.5 and np.array_equal(clear.alpha, ALPHA)
    palette = open_photo(put(tmp_path, "b.png", encoded(stored.convert("RGB").quantize(), "PNG", icc_profile=profile)))
    assert off(palette.pixels, PHOTO) < 7


BROKEN = {
    "random": np.random.default_rng(0).bytes(3000),
    "cut": drawn.RGB_PROFILES["Display P3"][:300],
    "short": b"icc",
    "for inks": drawn.CMYK_PROFILE,
    "for grey": drawn.GREY_PROFILES["linear"],
    "spoiled": drawn.RGB_PROFILES["Display P3"][:128] + b"\xff" * 400,
    "huge": drawn.RGB_PROFILES["Display P3"] + bytes(9_000_000),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "WEBP", "HEIF"])
def test_a_broken_profile_is_ignored_and_that_is_told(tmp_path: Path, kind: str, name: str) -> None:
    photo = open_photo(put(tmp_path, "a.jpg", encoded(PHOTO, kind, icc_profile=BROKEN[name], **FINE[kind])))
    assert off(photo.pixels, PHOTO) < 2
    assert photo.notes == ("its colour profile is damaged or does not fit, and was ignored",)


def test_colours_named_by_numbers(tmp_path: Path) -> None:
    """AVIF's and HEIF's nclx and PNG's cICP, of Display P3 (12) and of sRGB (1)."""
    p3 = drawn.by_lcms(PHOTO, None, drawn.RGB_PROFILES["Display P3"])
    avif = encoded(p3, "AVIF", **FINE["AVIF"])
    place = avif.index(b"colrnclx") + 8
    files = {
        "p3.avif": avif[:place] + struct.pack(">HH", 12, 13) + avif[place + 4 :],
        "p3.png": drawn.with_chunk(encoded(p3, "PNG"), b"cICP", bytes([12, 13, 0, 1])),
        "p3 twice.png": drawn.with_chunk(
            encoded(p3, "PNG", icc_profile=BROKEN["random"]), b"cICP", bytes([12, 13, 0, 1])
        ),
        "p3.heic": encoded(p3, "HEIF", color_primaries=12, transfer_characteristics=13, **FINE["HEIF"]),
        "srgb.png": drawn.with_chunk(encoded(PHOTO, "PNG"), b"cICP", bytes([1, 13, 0, 1])),
        "gamma.png": drawn.with_chunk(encoded(PHOTO, "PNG"), b"gAMA", struct.pack(">I", 45455)),
        "intent.png": drawn.with_chunk(encoded(PHOTO, "PNG"), b"sRGB", b"\0"),
    }
    photos = {name: open_photo(put(tmp_path, name, data)) for name, data in files.items()}
    assert {name: off(photo.pixels, PHOTO) for name, photo in photos.items() if off(photo.pixels, PHOTO) > 2} == {}
    assert [photo.notes for photo in photos.values()] == [()] * len(files)
    hdr = open_photo(put(tmp_path, "hlg.png", drawn.with_chunk(encoded(PHOTO, "PNG"), b"cICP", bytes([9, 18, 0, 1]))))
    assert off(hdr.pixels, PHOTO) == 0 and "HLG" in hdr.notes[0]


# ---------------------------------------------------------------------------------------------------- transparency


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000"])
def test_transparency_is_known_and_kept(tmp_path: Path, kind: str) -> None:
    clear = np.dstack([PHOTO, ALPHA])
    path = put(tmp_path, "cut.png", encoded(clear, kind, **FINE[kind] | ({"exact": True} if kind == "WEBP" else {})))
    photo = open_photo(path)
    assert off(photo.alpha, ALPHA) < 1
    expected = (PHOTO * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None]).round()
    assert off(photo.pixels, expected) < 2 and off(read_photo(path), expected) < 2
    seen = ALPHA[..., None] > 0
    assert off(photo.colors * seen, PHOTO * seen) < 2
    saved = results_of(path, tmp_path / "out", "recolor", "alpha", "overlay", "mask")
    assert np.array_equal(saved["recolor"][..., 3], photo.alpha)
    assert (saved["alpha"][..., 3] <= photo.alpha).all() and saved["alpha"][20, 30, 3] > 100
    assert saved["overlay"].shape == (*SIZE, 3) and saved["mask"].shape == SIZE
    bald = (segmented(photo.pixels) < 0.1)[..., None] & seen
    assert off(saved["recolor"][..., :3] * bald, photo.colors * bald) == 0


def test_transparency_of_palettes_of_grey_and_of_one_colour(tmp_path: Path) -> None:
    grey = PHOTO[..., 1].copy()
    grey[:, :12] = 7
    palette = Image.fromarray(np.dstack([grey] * 3)).quantize(16)
    clear = int(np.asarray(palette)[0, 0])
    colored = np.dstack([grey, grey, grey])
    files = {
        "grey.png": encoded(grey, "PNG", transparency=7),
        "deep.png": encoded(grey.astype(np.uint16) * 257, "PNG", transparency=7 * 257),
        "color.png": encoded(colored, "PNG", transparency=(7, 7, 7)),
        "palette.png": encoded(palette, "PNG", transparency=clear),
        "palette.gif": encoded(palette, "GIF", transparency=clear),
        "bits.png": encoded(Image.fromarray(grey > 7), "PNG", transparency=0),
        "grey and alpha.png": encoded(
            Image.fromarray(np.dstack([grey, np.where(grey == 7, 0, 255).astype(np.uint8)])), "PNG"
        ),
        "palette and alphas.png": encoded(
            palette, "PNG", transparency=bytes(0 if i == clear else 255 for i in range(16))
        ),
    }
    wrong = {}
    for name, data in files.items():
        photo = open_photo(put(tmp_path, name, data))
        if photo.alpha is None or (photo.alpha[:, :11] != 0).any() or (photo.alpha[:, 13:] != 255).mean() > 0.01:
            wrong[name] = photo.alpha
        assert (photo.pixels[:, :11] == 255).all(), name
    assert wrong == {}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_opaque_is_opaque(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, "a.png", encoded(Image.fromarray(PHOTO).convert("RGBA"), kind, **FINE[kind]))
    assert open_photo(path).alpha is None
    assert results_of(path, tmp_path / "out", "recolor")["recolor"].shape == (*SIZE, 3)


# ---------------------------------------------------------------------------------------------------- damage

NOISE = cv2.resize(np.random.default_rng(0).integers(0, 256, (30, 20, 3), np.uint8), SIZE[::-1])
JPEGS = {
    "baseline": encoded(NOISE, "JPEG", quality=90),
    "444": encoded(NOISE, "JPEG", quality=95, subsampling=0),
    "progressive": encoded(NOISE, "JPEG", quality=90, progressive=True),
    "grey": encoded(NOISE[..., 0], "JPEG", quality=90),
    "inks": encoded(Image.fromarray(NOISE).convert("CMYK"), "JPEG", quality=90),
    "optimised": encoded(NOISE, "JPEG", quality=90, optimize=True),
    "restarts": encoded(NOISE, "JPEG", quality=90, restart_marker_rows=1),
    "small": encoded(NOISE[:5, :3], "JPEG", quality=90),
}
PNG = encoded(NOISE, "PNG")
DAMAGED = ("damaged, but the image is complete",)


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_is_damaged_but_complete_is_read(tmp_path: Path, name: str, capfd: pytest.CaptureFixture) -> None:
    whole = JPEGS[name]
    expected = read_photo(put(tmp_path, "whole.jpg", whole))
    random = np.random.default_rng(1).bytes(5000)
    for number, data in enumerate(
        [
            whole[:-1],
            whole[:-2],
            whole + b"\0",
            whole + bytes(5000),
            whole + random,
            whole[:-2] + bytes(500),
            whole + whole[:99],
        ]
    ):
        photo = open_photo(put(tmp_path, f"{number}.jpg", data))
        assert np.array_equal(photo.pixels, expected), number
        assert photo.notes == DAMAGED, number
        assert check_photo(tmp_path / f"{number}.jpg") == expected.shape[:2]
    results_of(tmp_path / "1.jpg", tmp_path / "out", "mask")
    assert capfd.readouterr().err == f"{tmp_path / '1.jpg'}: {DAMAGED[0]}\n"


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("end", ["", "end", "zeros"])
def test_a_jpeg_of_which_rows_are_missing_is_refused(
    tmp_path: Path, name: str, end: str, capfd: pytest.CaptureFixture
) -> None:
    if name == "small":
        pytest.skip("it is one block")
    whole = JPEGS[name]
    start = whole.index(b"\xff\xda") + 14
    last = len(whole) - 12
    if end == "end":  # seen where the last block is missing; of a progressive one where the first scan is cut
        last = whole.index(b"\xff\xc4", start) - 20 if name == "progressive" else start + (last - start) * 8 // 10
    ends = {"": b"", "end": b"\xff\xd9", "zeros": bytes(3000)}
    for place in np.linspace(start, last, 15).astype(int):
        refused(put(tmp_path, f"{place}.jpg", whole[:place] + ends[end]))
        with pytest.raises(UserError):
            read_grey(tmp_path / f"{place}.jpg")
    assert capfd.readouterr() == ("", "")


def test_a_grey_corner_is_no_damage(tmp_path: Path) -> None:
    for size in ((64, 48), (61, 47), (8, 8), (3, 2)):
        grey = np.full((*size, 3), 128, np.uint8)
        for options in ({}, {"progressive": True}, {"subsampling": 0}):
            photo = open_photo(put(tmp_path, "grey.jpg", encoded(grey, "JPEG", **options)))
            assert photo.notes == () and (photo.pixels == 128).all()


@pytest.mark.parametrize("trailer", [b"MotionPhoto_Data", b"x"])
def test_a_video_behind_a_photo_is_no_damage(tmp_path: Path, trailer: bytes) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description GCamera:MotionPhoto="1"/></x:xmpmeta>'
    data = encoded(PHOTO, "JPEG", xmp=xmp) + b"\0\0\0\x18ftypmp42" + bytes(300) + trailer
    assert open_photo(put(tmp_path, "a.jpg", data)).notes == ()


def test_a_png_that_is_damaged_but_complete_is_read(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    body = zlib.compress(bytes(50_000_000), 9)
    header, rest = PNG[:33], PNG[33:]
    files = {
        "no end": PNG[:-12],
        "half an end": PNG[:-5],
        "no checksum": PNG[:-16],
        "half of the adler": PNG[:-18],
        "no adler": PNG[:-20],
        "bytes behind": PNG + b"\0\0\1",
        "zeros behind": PNG + bytes(4000),
        "wrong checksum of a text": header + drawn.chunk(b"tEXt", b"a\0b", 1) + rest,
        "wrong checksum of a profile": header + drawn.chunk(b"iCCP", b"a\0\0" + zlib.compress(b"icc"), 1) + rest,
        "wrong checksum of EXIF": header + drawn.chunk(b"eXIf", drawn.exif_of(3).tobytes()[6:], 1) + rest,
        "wrong checksum of the rows": PNG[:-16] + b"abcd" + PNG[-12:],
        "large text": header + drawn.chunk(b"zTXt", b"a\0\0" + body) + rest,
        "large profile": header + drawn.chunk(b"iCCP", b"a\0\0" + body) + rest,
        "unknown compression": header + drawn.chunk(b"zTXt", b"a\0\x07" + body[:99]) + rest,
    }
    quiet = {"wrong checksum of the rows"}  # of which Pillow makes nothing
    for name, data in files.items():
        photo = open_photo(put(tmp_path, f"{name}.png", data))
        assert np.array_equal(photo.pixels, NOISE), name
        assert photo.notes == (() if name in quiet else DAMAGED), name
        assert check_photo(tmp_path / f"{name}.png") == SIZE
    assert capfd.readouterr() == ("", "")


def png_by_hand(depth: int, color: int, interlace: int) -> bytes:
    """A PNG of zeros of 13 × 11 pixels, of any kind, without its end and without the checksum of its rows."""
    header = struct.pack(">IIBBBBB", 13, 11, depth, color, 0, 0, interlace)
    packed = zlib.compress(bytes(damage._unpacked_size(header)))
    palette = drawn.chunk(b"PLTE", bytes(range(3)) * 2) if color == 3 else b""
    return PNG[:8] + drawn.chunk(b"IHDR", header) + palette + drawn.chunk(b"IDAT", packed)


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(
    ("depth", "color"), [(1, 0), (2, 0), (4, 3), (8, 0), (16, 0), (8, 2), (16, 2), (8, 4), (16, 6), (1, 3)]
)
def test_the_rows_of_every_kind_of_png_are_counted(tmp_path: Path, depth: int, color: int, interlace: int) -> None:
    data = png_by_hand(depth, color, interlace)
    photo = open_photo(put(tmp_path, "a.png", data[:-8]))
    assert photo.pixels.shape == (11, 13, 3) and photo.notes == DAMAGED
    assert np.array_equal(photo.pixels, read_photo(put(tmp_path, "b.png", data + drawn.chunk(b"IEND", b""))))
    start = data.index(b"IDAT") + 4
    refused(put(tmp_path, "c.png", data[: start + 5]))


@pytest.mark.parametrize("end", [b"", drawn.chunk(b"IEND", b"")])
def test_a_png_of_which_rows_are_missing_is_refused(tmp_path: Path, end: bytes, capfd: pytest.CaptureFixture) -> None:
    start = PNG.index(b"IDAT") + 4
    for place in np.linspace(start, len(PNG) - 60, 25).astype(int):
        refused(put(tmp_path, "cut.png", PNG[:place] + end))
    few = zlib.compress(zlib.decompress(PNG[start:-16])[:-1])
    refused(put(tmp_path, "few.png", PNG[: start - 8] + drawn.chunk(b"IDAT", few) + end))
    refused(put(tmp_path, "spoiled.png", PNG[: start + 500] + b"spoiled" + PNG[start + 507 :]))
    refused(put(tmp_path, "palette.png", PNG[:20] + b"\x01" + PNG[21:]))  # the width
    assert capfd.readouterr() == ("", "")


CUT = {
    "GIF": encoded(Image.fromarray(NOISE).quantize(), "GIF"),
    "WEBP": encoded(NOISE, "WEBP", quality=90),
    "lossless WEBP": encoded(NOISE, "WEBP", lossless=True),
    "alpha WEBP": encoded(np.dstack([NOISE, ALPHA]), "WEBP", quality=90),
    "BMP": encoded(NOISE, "BMP"),
    "TIFF": encoded(NOISE, "TIFF"),
    "LZW TIFF": encoded(NOISE, "TIFF", compression="tiff_lzw"),
    "deflated TIFF": encoded(NOISE, "TIFF", compression="tiff_adobe_deflate"),
    "JPEG TIFF": encoded(NOISE, "TIFF", compression="jpeg"),
    "AVIF": encoded(NOISE, "AVIF"),
    "alpha AVIF": encoded(np.dstack([NOISE, ALPHA]), "AVIF"),
    "HEIF": encoded(NOISE, "HEIF"),
    "alpha HEIF": encoded(np.dstack([NOISE, ALPHA]), "HEIF"),
    "tiles HEIF": encoded(cv2.resize(NOISE, (300, 200)), "HEIF", tile_size=64),
    "JPEG2000": encoded(NOISE, "JPEG2000"),
    "lossy JPEG2000": encoded(NOISE, "JPEG2000", quality_mode="rates", quality_layers=[20, 5], irreversible=True),
    "bare JPEG2000": encoded(NOISE, "JPEG2000", no_jp2=True),
    "PPM": encoded(NOISE, "PPM"),
}


@pytest.mark.parametrize("name", CUT)
def test_cut_at_any_place_is_refused_or_the_whole_picture(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture
) -> None:
    whole = CUT[name]
    expected = read_photo(put(tmp_path, "whole.jpg", whole))
    for place in [*range(12), 30, 99, *np.linspace(12, len(whole) - 1, 60).astype(int)]:
        path = put(tmp_path, "cut.jpg", whole[:place])
        try:
            found = read_photo(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        else:
            assert np.array_equal(found, expected), place
            assert place > len(whole) * 0.9
    assert capfd.readouterr() == ("", ""), "decoders add no lines of their own"


def test_a_gif_without_its_end_is_read(tmp_path: Path) -> None:
    photo = open_photo(put(tmp_path, "a.gif", CUT["GIF"][:-1]))
    assert np.array_equal(photo.pixels, read_photo(put(tmp_path, "b.gif", CUT["GIF"]))) and photo.notes == DAMAGED


@pytest.mark.parametrize("name", [*CUT, *JPEGS, "PNG"])
def test_spoiled_at_random_places(tmp_path: Path, name: str) -> None:
    whole = (CUT | JPEGS | {"PNG": PNG})[name]
    for seed in range(40):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path = put(tmp_path, "spoiled.jpg", bytes(data))
        for read in (read_photo, read_grey, check_photo):
            try:
                read(path)
            except UserError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
        photo_size(path)


# ---------------------------------------------------------------------------------------------------- bombs


@pytest.mark.parametrize("name", OTHERS := drawn.other_kinds())
@pytest.mark.parametrize("suffix", ["", ".png", ".heic"])
def test_only_formats_of_photos_are_decoded(tmp_path: Path, name: str, suffix: str) -> None:
    path = put(tmp_path, name + suffix, OTHERS[name])
    assert "not an image" in refused(path)
    assert photo_size(path) is None


BOMB_READER = """
import re, sys, time
from pathlib import Path
from hair.photos import check_photo, is_large, open_photo, photo_size
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.perf_counter()
    try:
        photo = open_photo(path)
        said = f"read {photo.pixels.shape} {photo.notes}"
    except ValueError as error:
        said = str(error)
    photo_size(path), is_large(path)
    # Not ru_maxrss, which a process takes over from the one that it was forked from.
    memory = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
    print(path.name, round(time.process_time(), 1), memory, said, sep="|")
"""


def test_no_file_takes_much_memory_or_time(tmp_path: Path) -> None:
    files = drawn.bombs()
    for name, data in files.items():
        put(tmp_path, name, data)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    command = [sys.executable, "-c", BOMB_READER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, timeout=300, cwd=Path.cwd())
    assert done.returncode == 0 and done.stderr == "", done.stderr[-2000:]
    lines = [line.split("|") for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == sorted(files)
    assert max(int(memory) for _, _, memory, _ in lines) < 700, done.stdout
    times = [0.0, *(float(seconds) for _, seconds, _, _ in lines)]
    assert max(np.diff(times)) < 10, done.stdout
    read = {name for name, _, _, said in lines if said.startswith("read")}
    harmless = {
        "frames.gif",
        "rows.png",
        "text.png",
        "texts.png",
        "profile.png",
        "profile.jpg",
        "profile.tif",
        "exif.webp",
    }
    assert harmless | {"exif.png"} >= read >= harmless - {"rows.png"}, done.stdout


def test_the_largest_photo_is_bounded_before_it_is_decoded(tmp_path: Path) -> None:
    for name in (
        "wide.png",
        "wide.jpg",
        "wide.gif",
        "wide.webp",
        "wide.bmp",
        "wide.tif",
        "wide.j2k",
        "wide.ppm",
    ):
        assert "megapixels" in refused(put(tmp_path, name, BOMBS[name])), name
    assert headers.MAX_PIXELS == 200_000_000


BOMBS = {name: data for name, data in drawn.bombs().items() if name.startswith("wide")}


def test_a_file_without_permission_or_without_content(tmp_path: Path) -> None:
    for suffix in PHOTO_SUFFIXES:
        refused(put(tmp_path, f"empty{suffix}", b""))
        refused(put(tmp_path, f"zeros{suffix}", bytes(5000)))
    with pytest.raises(FileNotFoundError, match=r"gone\.heic: no such file"):
        read_photo(tmp_path / "gone.heic")
    with pytest.raises(FileNotFoundError):
        read_photo(tmp_path)
    if os.geteuid():
        (tmp_path / "empty.jpg").chmod(0)
        assert "Permission denied" in refused(tmp_path / "empty.jpg")


# ---------------------------------------------------------------------------------------------------- reduced size

LARGE = cv2.resize(PHOTO, (480, 640), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("most", "scale"),
    [(10**9, 1), (307_200, 1), (307_199, 2), (76_800, 2), (76_799, 4), (20_000, 4), (4_800, 8), (1_000, 24)],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_at_reduced_size(tmp_path: Path, most: int, scale: int, orientation: int) -> None:
    stored = drawn.as_stored(Image.fromarray(LARGE), orientation)
    path = put(tmp_path, "a.jpg", encoded(stored, "JPEG", quality=97, subsampling=0, exif=drawn.exif_of(orientation)))
    photo = open_photo(path, most)
    shape = 640 // scale, 480 // scale
    assert photo.pixels.shape == (*shape, 3) and shape[0] * shape[1] <= most
    assert off(photo.pixels, cv2.resize(LARGE, shape[::-1], interpolation=cv2.INTER_AREA)) < 4
    size = f"{shape[1]}×{shape[0]}"
    assert photo.notes == (() if scale == 1 else (f"read at 1/{scale} of its size: {size} pixels",))


@pytest.mark.parametrize("kind", [kind for kind in FINE if kind != "JPEG"])
def test_other_formats_are_shrunk(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, "a.png", encoded(LARGE, kind, **FINE[kind]))
    photo = open_photo(path, 40_000)
    assert photo.pixels.shape == (213, 160, 3) and photo.notes == ("read at 1/3 of its size: 160×213 pixels",)
    assert off(photo.pixels, cv2.resize(LARGE, (160, 213), interpolation=cv2.INTER_AREA)) < 6
    assert read_photo(path, 40_000).shape == (213, 160, 3)


def test_results_have_the_reduced_size(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    clear = np.dstack([LARGE, cv2.resize(ALPHA, (480, 640))])
    for name, data in {"a.jpg": encoded(LARGE, "JPEG"), "b.png": encoded(clear, "PNG")}.items():
        saved = results_of(put(tmp_path, name, data), tmp_path / "out", "overlay", "mask", "alpha", max_pixels=80_000)
        assert {picture.shape[:2] for picture in saved.values()} == {(320, 240)}
        assert capfd.readouterr().err == f"{tmp_path / name}: read at 1/2 of its size: 240×320 pixels\n"


# ---------------------------------------------------------------------------------------------------- folders


def test_what_is_no_photo_is_counted_in_one_line(tmp_path: Path) -> None:
    names = [
        "a.jpg",
        "b.HEIC",
        "c.mov",
        "d.MOV",
        "e.txt",
        "README",
        ".hidden.txt",
        "._a.jpg",
        "Thumbs.db",
        "desktop.ini",
    ]
    for folder in ("holiday", "holiday/deep", "holiday/.cache", "holiday/result", "only"):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    for name in ("c.mov", "d.MOV", "e.txt", "README"):
        (tmp_path / "only" / name).unlink()
    holiday, result = tmp_path / "holiday", tmp_path / "holiday" / "result"
    line = f"{holiday}: 4 files are not photos: 2 .mov, 1 .txt, 1 without a suffix"
    assert passed_over([holiday], False, result) == [line]
    (twice,) = passed_over([holiday], True, result)
    assert twice == f"{holiday}: 8 files are not photos: 4 .mov, 2 .txt, 2 without a suffix"
    assert passed_over([tmp_path / "only", tmp_path / "gone", holiday / "a.jpg"], True, result) == []
    found = find_inputs([holiday], True, result)[0]
    assert [file.relative_to(holiday).as_posix() for file in found] == ["a.jpg", "b.HEIC", "deep/a.jpg", "deep/b.HEIC"]
    assert count_others([Path("a.jpg"), Path("b.MP4")]) == "1 file is not a photo: 1 .mp4"
    assert count_others(map(Path, ["a.jpg", "b.gif"])) is None


def test_the_command_says_what_it_passes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    class Segmenter:
        threshold = 0.5

        def __init__(self, **_: object) -> None: ...

        def __call__(self, photo: np.ndarray) -> np.ndarray:
            return segmented(photo)

    monkeypatch.setattr("hair.cli.HairSegmenter", Segmenter)
    folder = tmp_path / "holiday"
    folder.mkdir()
    put(folder, "a.jpg", encoded(LARGE, "JPEG")[:-2])
    put(folder, "b.gif", encoded(PHOTO, "GIF", **MOVING))
    for name in ("c.mov", "d.mov", "e.txt"):
        (folder / name).touch()
    monkeypatch.setattr(
        sys, "argv", ["hair", str(folder), "--output_dir", str(tmp_path / "out"), "--max_pixels", "80000"]
    )
    main()
    out, err = capfd.readouterr()
    assert sorted(err.splitlines()) == [
        f"{folder / 'a.jpg'}: damaged, but the image is complete",
        f"{folder / 'a.jpg'}: read at 1/2 of its size: 240×320 pixels",
        f"{folder / 'b.gif'}: is animated; only the first frame was read",
        f"{folder}: 3 files are not photos: 2 .mov, 1 .txt",
    ]
    assert len(out.splitlines()) == 2
    assert np.asarray(Image.open(tmp_path / "out" / "a_mask.png")).shape == (320, 240)


# ---------------------------------------------------------------------------------------------------- masks

HAIR = segmented(PHOTO) >= 0.5


def masks() -> dict[str, bytes]:
    """A mask in many forms, by file name."""
    white = np.where(HAIR, 255, 0).astype(np.uint8)
    mask = Image.fromarray(white)
    files = {
        "palette.png": encoded(mask.convert("P"), "PNG"),
        "two colours.png": encoded(mask.convert("RGB").quantize(2), "PNG"),
        "bits.png": encoded(mask.convert("1", dither=0), "PNG"),
        "bits.tif": encoded(mask.convert("1", dither=0), "TIFF", compression="group4"),
        "bits.pbm": encoded(mask.convert("1", dither=0), "PPM"),
        "grey.pgm": encoded(mask, "PPM"),
        "deep.png": encoded(HAIR.astype(np.uint16) * 65535, "PNG"),
        "deep.tif": encoded(HAIR.astype(np.uint16) * 65535, "TIFF"),
        "lossy.jpg": encoded(mask, "JPEG", quality=80),
        "lossless.webp": encoded(mask, "WEBP", lossless=True),
        "mask.gif": encoded(mask, "GIF"),
        "mask.avif": encoded(mask, "AVIF", quality=95),
        "mask.heic": encoded(mask, "HEIF", quality=95),
        "mask.jp2": encoded(mask, "JPEG2000"),
        "color.bmp": encoded(mask.convert("RGB"), "BMP"),
        "with a profile.png": encoded(mask, "PNG", icc_profile=drawn.GREY_PROFILES["linear"]),
    }
    for orientation in range(1, 9):
        for kind in ("PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"):
            files[f"{kind} {orientation}"] = drawn.turned(kind, orientation, mask)
    return files


def test_masks_in_every_form(tmp_path: Path) -> None:
    wrong = {}
    for name, data in masks().items():
        grey, alpha = read_grey(put(tmp_path, name, data))
        assert grey.dtype == (np.uint16 if name.startswith("deep") else np.uint8) and alpha is None
        hair = grey > np.iinfo(grey.dtype).max // 2
        if hair.shape != SIZE or (hair != HAIR).mean() > 0.02:
            wrong[name] = hair.shape
    assert wrong == {}


def test_values_of_masks_are_as_stored(tmp_path: Path) -> None:
    ones = HAIR.astype(np.uint8)
    for name, data in {
        "ones.png": encoded(ones, "PNG"),
        "profile.tif": encoded(ones, "TIFF", icc_profile=BROKEN["cut"]),
    }.items():
        assert np.array_equal(read_grey(put(tmp_path, name, data))[0], ones)
    deep = ones.astype(np.uint16)
    assert np.array_equal(read_grey(put(tmp_path, "deep.png", encoded(deep, "PNG")))[0], deep)
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(read_grey(put(tmp_path, "levels.png", encoded(levels, "PNG")))[0], levels)


def test_transparency_of_masks(tmp_path: Path) -> None:
    mask = np.dstack([np.where(HAIR, 255, 0).astype(np.uint8), ALPHA])
    grey, alpha = read_grey(put(tmp_path, "a.png", encoded(mask, "PNG")))
    assert np.array_equal(grey, mask[..., 0]) and np.array_equal(alpha, ALPHA)
    white = np.dstack([np.full((*SIZE, 3), 255, np.uint8), ALPHA])
    grey, alpha = read_grey(put(tmp_path, "b.png", encoded(white, "PNG")))
    assert (grey == 255).all() and np.array_equal(alpha, ALPHA)


# ---------------------------------------------------------------------------------------------------- checks


def test_check_photo_sees_what_reading_sees(tmp_path: Path) -> None:
    for orientation in (1, 6):
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"):
            assert check_photo(put(tmp_path, "a", drawn.turned(kind, orientation))) == SIZE, kind
    for name, whole in (CUT | JPEGS | {"PNG": PNG}).items():
        for share in (0.0, 0.01, 0.3, 0.6, 0.9):
            if name != "small":
                with pytest.raises(UserError):
                    check_photo(put(tmp_path, "cut", whole[: int(len(whole) * share)]))
    with pytest.raises(FileNotFoundError):
        check_photo(tmp_path / "gone.jpg")


def test_check_photo_decodes_no_jpeg_that_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.jpg", drawn.turned("JPEG", 6))
    monkeypatch.setattr("hair.photos.decode", lambda *_: pytest.fail("decoded"))
    assert check_photo(path) == SIZE


def test_pillow_keeps_its_own_line(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """Warnings and logs of Pillow do not reach the user."""
    broken = encoded(PHOTO, "TIFF").replace(b"\x06\x01\x03\0", b"\x06\x01\x0d\0")
    for name, data in {"a.tif": broken, "b.jpg": encoded(PHOTO, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0")}.items():
        try:
            read_photo(put(tmp_path, name, data))
        except UserError:
            continue
    assert capfd.readouterr() == ("", "")

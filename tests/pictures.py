"""Good and bad picture files drawn by code, a segmenter without a network, small disks and users without rights."""

import csv
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

from hair import HairSegmenter
from hair.cli import name_results, process_files
from hair.dye import Dye
from hair.effects import Looks
from hair.results import Results
from hair.video import VideoPlan

FUZZ = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SIZE = (60, 40)
# Bright "hair" that no turn and no mirror brings onto itself.
PHOTO = np.full((*SIZE, 3), 20, np.uint8)
PHOTO[8:28, 6:32] = PHOTO[28:44, 6:14] = (240, 230, 225)
HAIR = PHOTO[..., 0] > 127
OUTLINE = [(6, 8), (32, 8), (32, 28), (14, 28), (14, 44), (6, 44)]
LOOKS = Looks(0.5, Dye(((9, 9, 99),)))


class Bright(HairSegmenter):
    """The real one, but its network takes what is bright for hair."""

    def __init__(self, tta: bool = False, refine: bool = False) -> None:
        self.facts = {"img_size": 64, "mean": (0.5,) * 3, "std": (0.5,) * 3, "threshold": 0.5}
        self._network = lambda batch: 20 * batch.mean(1, keepdims=True)
        self.backend, self.threshold, self.img_size, self.multi_scale = "stub", 0.5, 64, True
        self.tta, self.refine, self._sizes = tta, refine, [64, 32, 96] if tta else [64]


def by_brightness(photo: np.ndarray) -> np.ndarray:
    """Stands in for a segmenter where a test is about files."""
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return (4 * grey - 1.5).clip(0, 1)  # 0.5 stays; a network is not in doubt everywhere


def process(
    files: Sequence[Path],
    output_dir: Path,
    kinds: tuple[str, ...] = ("mask", "json"),
    segmenter: HairSegmenter | None = None,
    **options: object,
) -> list[str]:
    """Results of photos and videos as the command line writes them; returns the failures."""
    plan = VideoPlan(kinds, LOOKS, every=1, smooth=0)
    results = Results(kinds, LOOKS, **options)
    return process_files(name_results(files, output_dir), segmenter or Bright(), results, plan)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> tuple[Image.Image, Image.Exif]:
    """The photo as a camera stores it for a value of EXIF's orientation, and the EXIF."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # to Pillow's names of the way back
    stored, exif = Image.fromarray(PHOTO), Image.Exif()
    exif[274] = orientation
    return (stored.transpose(back[orientation]) if orientation > 1 else stored), exif


def good_files() -> dict[str, bytes]:
    """The photo in many forms, by file name."""
    plain = Image.fromarray(PHOTO)
    clear = Image.fromarray(np.dstack([PHOTO, np.where(HAIR, 0, 255).astype(np.uint8)]))  # white after all
    deep = PHOTO.astype(np.uint16) * 257
    moving = {"save_all": True, "append_images": [plain.transpose(0), plain.transpose(1)], "duration": 50}
    files = {
        "머리 사진 1.jpg": encoded(plain, "JPEG"),
        "  two  spaces .PNG": encoded(plain, "PNG"),
        os.fsdecode("머리".encode("cp949") + b".jpg"): encoded(plain, "JPEG"),  # as old archives name it: no UTF-8
        "progressive.jpg": encoded(plain, "JPEG", progressive=True),
        "cmyk.jpg": encoded(plain.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(plain.convert("CMYK"), "TIFF"),
        "grey.tif": encoded(plain.convert("L"), "TIFF"),
        "bilevel.png": encoded(plain.convert("1", dither=0), "PNG"),
        "palette.png": encoded(plain.convert("P"), "PNG"),
        "palette clear.png": encoded(plain.quantize(4), "PNG", transparency=int(plain.quantize(4).getpixel((10, 10)))),
        "alpha.png": encoded(clear, "PNG"),
        "alpha.webp": encoded(clear, "WEBP", lossless=True),
        "16 bits.png": cv2.imencode(".png", deep)[1].tobytes(),
        "16 bits.tif": cv2.imencode(".tif", deep)[1].tobytes(),
        "16 bits grey.png": cv2.imencode(".png", deep[..., 0])[1].tobytes(),
        "moving gif.jpg": encoded(plain.convert("P"), "GIF", **moving | {"append_images": [plain.transpose(0)]}),
        "moving.webp": encoded(plain, "WEBP", **moving),
        "moving.png": encoded(plain, "PNG", **moving),
        "png.jpg": encoded(plain, "PNG"),
        "jpeg.png": encoded(plain, "JPEG"),
        "webp.bmp": encoded(plain, "WEBP"),
        "windows.bmp": encoded(plain, "BMP"),
    }
    for orientation in range(1, 9):
        stored, exif = turned(orientation)
        for kind, mode in [("JPEG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("TIFF", "RGBA")]:
            data = encoded(stored.convert(mode), kind, exif=exif)
            files[f"turned {orientation} {mode}.{kind.lower()}".replace(".jpeg", ".jpg")] = data
    return files


def bad_files() -> dict[str, bytes]:
    """What is no photo, by file name."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    files = {"text.jpg": "머리".encode(), "zeros.png": bytes(1000)}
    kinds = [("JPEG", "jpg", {}), ("JPEG", "prog.jpg", {"progressive": True}), ("PNG", "png", {}), ("TIFF", "tif", {})]
    for kind, suffix, options in [*kinds, ("WEBP", "webp", {}), ("BMP", "bmp", {}), ("GIF", "gif.jpg", {})]:
        whole = encoded(noise, kind, **options)
        for length in (0, 1, 30, len(whole) // 2, len(whole) * 9 // 10):
            files[f"cut {length} 머리.{suffix}"] = whole[:length]
    whole = encoded(noise.convert("RGBA"), "PNG")
    files["cut alpha.png"] = whole[: len(whole) // 2]
    light = PHOTO.astype(np.float32) / 255
    light[20:30] = np.nan
    for name, picture in {"nan.tif": light, "nan grey.tif": light[..., 0], "inf.tif": light * np.inf}.items():
        files[name] = cv2.imencode(".tif", picture)[1].tobytes()
    return files


GOOD, BAD = good_files(), bad_files()
SEEDS = [GOOD[name] for name in ("머리 사진 1.jpg", "progressive.jpg", "png.jpg", "alpha.png", "palette clear.png")]
SEEDS += [GOOD[name] for name in ("moving.webp", "turned 6 RGBA.tiff", "moving.png", "moving gif.jpg", "windows.bmp")]
STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"]  # of files of these formats
edits = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2000), st.binary(min_size=1, max_size=8)), max_size=6)


def spoiled(data: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    """The data after `edits`: pieces replaced, put in, taken out, or all that follows a place cut off."""
    for kind, place, piece in changes:
        place %= len(data) + 1
        put = {0: piece, 1: piece, 2: b"", 3: b""}[kind]
        data = data[:place] + put + (data[place:] if kind == 1 else data[place + len(piece) :] if kind < 3 else b"")
    return data


def write(folder: Path, files: dict[str, bytes]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture, in OpenCV's order of channels."""
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), picture)


def write_korean(root: Path, files: dict[str, bytes]) -> None:
    """The Korean layout: one CSV row, with the same polygon, for each photo, by its file name."""
    home = root / "dataset"
    write(home / "partition1", files)
    polygon = str([[{"x": x, "y": y} for x, y in OUTLINE]])
    with (home / "dataindex_00.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "source", "polygon1", "height", "width"])
        for i, name in enumerate(files):
            table.writerow([f"/main/dataset/partition1/{name}", f"P{i}", polygon, *SIZE])


def agreement(found: np.ndarray, hair: np.ndarray = HAIR) -> float:
    """Intersection over union; 0 where the shapes differ."""
    return (found & hair).sum() / (found | hair).sum() if found.shape == hair.shape else 0.0


def one_line(stop: pytest.ExceptionInfo, *parts: object) -> None:
    """What `hair.errors.run` ended with is one line with these parts."""
    assert isinstance(stop.value.code, str) and stop.value.code.startswith("error: ")
    assert "\n" not in stop.value.code and "Traceback" not in stop.value.code
    assert all(str(part) in stop.value.code for part in parts), stop.value.code


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Let every write beyond `size` bytes of a file fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)

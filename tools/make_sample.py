"""Draw small data sets in the layouts of both real ones, to try the project without a download.

python -m tools.make_sample                       # data/sample/CelebAMask-HQ and data/sample/ganhackerton
python train_celeb.py --data_dir data/sample/CelebAMask-HQ --img_size 128 --epochs 3 --encoder_weights none
"""

import argparse
import csv
from pathlib import Path

import cv2
import numpy as np

from hair.cli import HelpFormatter
from hair.errors import run
from hair.files import atomic, encode_picture, write_bytes

OUTLINE_POINTS = 40  # points of the hair's outline, before the face is cut out
HAIRLESS_EVERY = 10  # every tenth head is bald
KOREAN_COLUMNS = ["", "path", "source", "polygon1", "polygon2", "height", "width"]
KOREAN_COLUMNS += ["sex", "length", "age", "vertical", "horizontal"]


def draw_head(rng: np.random.Generator, size: int, hair: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a head in front of a wall.

    Args:
        rng: random generator for position, shape and colours.
        size: width and height in pixels.
        hair: False draws a bald head.

    Returns:
        The photo, RGB uint8 (size, size, 3); the outline of the hair, float32 (points, 2) in pixels, which goes around
        the face through a cut at the chin (empty for a bald head); and the hair mask, uint8 {0, 255} (size, size).
    """
    image = np.empty((size, size, 3), np.uint8)
    image[:] = rng.integers(90, 256, 3)
    image = cv2.add(image, rng.integers(0, 25, image.shape, dtype=np.uint8))
    center = size * rng.uniform((0.4, 0.45), (0.6, 0.6))
    radius = size * rng.uniform(0.18, 0.26)
    skin, dye = rng.integers((150, 100, 80), (235, 180, 150)), rng.integers((10, 5, 0), (110, 75, 60))
    mask = np.zeros((size, size), np.uint8)
    outline = np.empty((0, 2), np.float32)
    if hair:
        angle = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
        reach = radius * (1.35 + 0.1 * rng.random(OUTLINE_POINTS))
        length = rng.uniform(1.0, 1.9)  # long hair falls below the chin
        stretch = np.where(np.sin(angle) > 0, length, 1.0)
        outline = center + np.stack([np.cos(angle) * reach, np.sin(angle) * reach * stretch], 1)
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 255)
        chin = np.r_[10:OUTLINE_POINTS, :11]  # once around, from the chin to the chin
        inner = center + radius * np.stack([0.85 * np.cos(angle), 1.05 * np.sin(angle)], 1)
        outline = np.concatenate([outline[chin], inner[chin[::-1]]]).astype(np.float32)
        strands = rng.integers(0, 40, (size, size, 1), dtype=np.uint8)
        image = np.where(mask[..., None] > 0, dye.astype(np.uint8) + strands, image)
    face = np.zeros_like(mask)
    cv2.ellipse(face, (tuple(center), (1.7 * radius, 2.1 * radius), 0), 255, -1)
    image[face > 0] = skin
    mask[face > 0] = 0
    for side in (-1, 1):
        eye = center + radius * np.array([0.35 * side, -0.15])
        cv2.circle(image, tuple(int(v) for v in eye), max(1, size // 50), (30, 30, 30), -1)
    return image, outline, mask


def make_celeb(root: Path, photos: int = 40, size: int = 128, seed: int = 0) -> None:
    """Write a data set in the layout of the CelebAMask-HQ download.

    Args:
        root: folder of the data set.
        photos: number of photos; every tenth head is bald.
        size: width and height of a photo in pixels; masks are half as large.
        seed: random seed.

    Raises:
        OSError: the disk is full or a permission is missing.
    """
    rng = np.random.default_rng(seed)
    photo_folder, mask_folder = root / "CelebA-HQ-img", root / "CelebAMask-HQ-mask-anno" / "0"
    for folder in (photo_folder, mask_folder):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(photos):
        image, _, mask = draw_head(rng, size, hair=number % HAIRLESS_EVERY != HAIRLESS_EVERY - 1)
        _write(photo_folder / f"{number}.jpg", image)
        parts = {"skin": np.full_like(mask, 255)}
        if mask.any():
            parts["hair"] = mask
        for part, picture in parts.items():
            half = cv2.resize(picture, (size // 2, size // 2), interpolation=cv2.INTER_NEAREST)
            _write(mask_folder / f"{number:05d}_{part}.png", half)


def make_korean(root: Path, people: int = 12, photos: int = 3, size: int = 128, seed: int = 0) -> None:
    """Write a data set in the layout of niahair/ganhackerton: two CSV files, with both forms of `path`.

    Args:
        root: folder of the data set.
        people: number of people.
        photos: number of photos per person.
        size: width and height of a photo in pixels.
        seed: random seed.

    Raises:
        OSError: the disk is full or a permission is missing.
    """
    rng = np.random.default_rng(seed)
    for part in (1, 2):
        folder = root / "dataset" / f"partition{part}"
        folder.mkdir(parents=True, exist_ok=True)
        rows: list[list] = []
        for person in range(part - 1, people, 2):
            for photo in range(photos):
                name = f"AP{person:06d}-{photo:03d}.jpg"
                image, outline, _ = draw_head(rng, size)
                _write(folder / name, image)
                points = [{"x": float(x), "y": float(y)} for x, y in outline]
                images = "images/" if photo % 2 else ""
                path = f"/main/dataset/partition{part}/{images}{name}"
                style = ["남" if person % 2 else "여", "장발" if person % 3 else "단발", 20 + person, "중", 30 * photo]
                rows.append([len(rows), path, f"AP{person:06d}", str([points]), "", float(size), float(size), *style])
        table = root / "dataset" / f"dataindex_{part - 1:02d}.csv"
        with atomic(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([KOREAN_COLUMNS, *rows])


def _write(path: Path, image: np.ndarray) -> None:
    write_bytes(path, encode_picture(image, path.suffix))


def main() -> None:
    """Draw both data sets. Raises OSError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("data/sample"), help="folder of the data sets")
    output = parser.parse_args().output_dir
    make_celeb(output / "CelebAMask-HQ")
    make_korean(output / "ganhackerton")
    print(f"drawn: {output / 'CelebAMask-HQ'} and {output / 'ganhackerton'}")


if __name__ == "__main__":
    run(main)

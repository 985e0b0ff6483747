"""Make pictures of animals for the training scripts' --backgrounds: fur is the hardest thing to tell from hair.

    apt-get install tuxpaint-stamps-default gcompris-qt-data plasma-workspace-data gnome-control-center-data
    python -m tools.place_animals --input /usr/share/tuxpaint/stamps/animals \\
        /usr/share/gcompris-qt/rcc/*_animals.rcc /usr/share/plasma/avatars/photos/{Cat,Dog,Owl}.png \\
        /usr/share/pixmaps/faces/cat.jpg
    python train_celeb.py --backgrounds data/backgrounds data/animals ...

Photos are written as a whole and in close-up. Cut-outs (with alpha) are placed on pictures of
tools/make_backgrounds.py, in three sizes. A folder of photos of pets works as well. The Python packages gradio and
imgaug contain a few more photos: cheetahs, a lion, a quokka.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dataset import open_backgrounds
from hair import read_photo
from hair.cli import HelpFormatter
from hair.errors import UserError, run
from hair.files import new_folder
from tools.make_backgrounds import SUFFIXES, close_ups, put_before, usable_pictures, write_small

SIDE = 512  # of a picture with a cut-out, in pixels
SIZES = (0.8, 1.6, 3.0)  # longer side of a cut-out relative to SIDE: the whole animal, its front, its fur


def find_animals(inputs: list[Path]) -> list[Path]:
    """The image files among the inputs and in the folders among them, without drawings. Raises UserError."""
    if missing := [path for path in inputs if not path.exists()]:
        raise UserError(f"{missing[0]}: no such file or folder; --input names photos of animals")
    found = [(path, given) for given in inputs for path in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    return [
        path
        for path, given in found
        if path.suffix.lower() in SUFFIXES and path.is_file() and "cartoon" not in path.relative_to(given).parts
    ]


def place(animal: np.ndarray, scene: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Put a cut-out at the lower edge of a scene. If it is larger than the scene, a part of its upper half is shown.

    Args:
        animal: BGRA uint8 (h, w, 4).
        scene: BGR uint8 (SIDE, SIDE, 3).
        size: longer side of the animal, relative to that of the scene.
        rng: random generator for the position and the part.

    Returns:
        BGR uint8 (SIDE, SIDE, 3).
    """
    scale = size * SIDE / max(animal.shape[:2])
    animal = cv2.resize(animal, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = animal.shape[:2]
    top, left = rng.integers(0, max(0, height - SIDE) // 2 + 1), rng.integers(0, max(0, width - SIDE) + 1)
    animal = animal[top : top + SIDE, left : left + SIDE]
    height, width = animal.shape[:2]
    left = rng.integers(0, SIDE - width + 1)
    scene = scene.copy()
    window = scene[SIDE - height :, left : left + width]
    window[:] = put_before(animal, window)
    return scene


def pictures_with(path: Path, scenes: list[Path], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the pictures to make from a file, BGR uint8."""
    for _, animal in usable_pictures(path):
        if animal.shape[2] == 4:
            for size in SIZES:
                scene = read_photo(scenes[rng.integers(len(scenes))])[..., ::-1]
                scene = cv2.resize(scene, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                yield place(animal, scene, size, rng)
        else:
            yield animal
            yield from close_ups(animal)


def main() -> None:
    """Make the pictures. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="photos and cut-outs, or folders of them")
    parser.add_argument(
        "--backgrounds", nargs="+", default=["data/backgrounds"], help="folders of pictures to place cut-outs in"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("data/animals"), help="a new folder")
    args = parser.parse_args()

    animals, scenes, rng = find_animals(args.input), open_backgrounds(args.backgrounds), np.random.default_rng(0)
    with new_folder(args.output_dir) as folder:
        count = 0
        for picture in (one for path in tqdm(animals, unit="file") for one in pictures_with(path, scenes, rng)):
            write_small(folder / f"{count:04d}.jpg", picture)
            count += 1
        if not count:
            raise UserError(f"{args.input[0]}: no usable pictures there; --help names packages that have some")
    print(f"{count} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)

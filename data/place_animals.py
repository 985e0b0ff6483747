"""Animals as further --backgrounds: fur, and faces in fur, are what models learn last to tell from hair.

    apt-get install tuxpaint-stamps-default gcompris-qt-data plasma-workspace-data gnome-control-center-data
    python data/place_animals.py --input /usr/share/tuxpaint/stamps/animals /usr/share/gcompris-qt/rcc/*_animals.rcc \\
        /usr/share/plasma/avatars/photos/{Cat,Dog,Owl}.png /usr/share/pixmaps/faces/cat.jpg
    python train_celeb.py --backgrounds data/backgrounds data/animals ...

Photos come as a whole and in close-up; cut-outs (with alpha) stand before the pictures of data/make_backgrounds.py, in
three sizes. A folder of pets' photos does as well. The Python packages gradio and imgaug have a few more: cheetahs, a
lion, a quokka.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "data")]

from make_backgrounds import SUFFIXES, close_ups, put_before, usable_pictures, write_small  # noqa: E402

from dataset import open_backgrounds  # noqa: E402
from pictures import read_image  # noqa: E402
from utils import HelpFormatter, UserError, new_folder, run  # noqa: E402

SIDE = 512  # of a picture with a cut-out
SIZES = (0.8, 1.6, 3.0)  # of a cut-out, in pictures: the whole animal, its front, its fur


def find_animals(inputs: list[Path]) -> list[Path]:
    """The picture files among inputs and in the folders among them, but for drawings. Raises UserError."""
    if missing := [path for path in inputs if not path.exists()]:
        raise UserError(f"{missing[0]}: no such file or folder; --input names photos of animals")
    found = [(path, given) for given in inputs for path in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    return [
        path
        for path, given in found
        if path.suffix.lower() in SUFFIXES and path.is_file() and "cartoon" not in path.relative_to(given).parts
    ]


def place(animal: np.ndarray, scene: np.ndarray, size: float, rng: np.random.Generator) -> np.ndarray:
    """Put a cut-out on a scene's lower edge; of one larger than the scene, a part of its upper half is seen.

    Args:
        animal: BGRA uint8 (h, w, 4).
        scene: BGR uint8 (SIDE, SIDE, 3).
        size: of the animal's longer side, in scenes.
        rng: decides on the place and on the part.

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
    """The pictures to make of a file, BGR uint8."""
    for _, animal in usable_pictures(path):
        if animal.shape[2] == 4:
            for size in SIZES:
                scene = read_image(scenes[rng.integers(len(scenes))])[..., ::-1]
                scene = cv2.resize(scene, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
                yield place(animal, scene, size, rng)
        else:
            yield from [animal, *close_ups(animal)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--input", type=Path, nargs="+", required=True, help="photos and cut-outs, or folders of them")
    default = [str(ROOT / "data/backgrounds")]
    parser.add_argument("--backgrounds", nargs="+", default=default, help="folders with pictures to stand before")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "data/animals", help="a new folder")
    args = parser.parse_args()

    animals, scenes, rng = find_animals(args.input), open_backgrounds(args.backgrounds), np.random.default_rng(0)
    with new_folder(args.output_dir) as folder:
        count = 0
        for picture in (one for path in tqdm(animals, unit="file") for one in pictures_with(path, scenes, rng)):
            write_small(folder / f"{count:04d}.jpg", picture)
            count += 1
        if not count:
            raise UserError(f"{args.input[0]}: no usable pictures there; see --help for packages that have some")
    print(f"{count} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)

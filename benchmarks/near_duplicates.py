"""Find photos that are nearly the same, within and across data sets, so that no fold is scored on training photos.

    python -m benchmarks.near_duplicates --data_dir data/CelebAMask-HQ data/figaro

Compares difference hashes (256 bits: whether each pixel of a 17×16 thumbnail is brighter than its left neighbour), also
of the mirrored photos, and lists the pairs that differ in at most --bits, with the folds that they are in.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from dataset import PhotoSet, open_data
from hair import read_photo
from hair.cli import HelpFormatter, number
from hair.errors import run


def difference_hash(image: np.ndarray) -> np.ndarray:
    """256 bits, as int32 of -1 and 1, of an RGB uint8 photo (H, W, 3)."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.where(np.diff(small, axis=1) > 0, 1, -1).ravel()


def main() -> None:
    """Print the pairs. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="data sets to compare")
    parser.add_argument("--bits", type=number(int, 0, 256), default=40, help="how many of the 256 may differ")
    parser.add_argument("--n_folds", type=number(int, 2), default=5, help="number of folds in training")
    args = parser.parse_args()

    indexes = [open_data(folder) for folder in args.data_dir]
    photos = PhotoSet(indexes, [np.arange(len(index)) for index in indexes])
    held_out = np.zeros(len(photos), bool)
    for part, index in enumerate(indexes):
        held_out[np.flatnonzero(photos.part == part)[index.split(0, args.n_folds)["valid"]]] = True
    images = (read_photo(photos.path(i)) for i in range(len(photos)))
    both = np.stack([[difference_hash(view) for view in (image, image[:, ::-1])] for image in images])
    hashes, mirrored = both[:, 0], both[:, 1]
    # For vectors of -1 and 1 the number of differing places is (256 - product) / 2.
    different = np.minimum(256 - hashes @ hashes.T, 256 - hashes @ mirrored.T) // 2
    first, second = np.nonzero(np.triu(different <= args.bits, k=1))
    for i, j in zip(first, second, strict=True):
        side = "ACROSS the split" if held_out[i] != held_out[j] else "same side"
        print(f"{different[i, j]:3d} bits  {photos.path(i)}  {photos.path(j)}  {side}")
    across = int((held_out[first] != held_out[second]).sum())
    print(f"{len(photos)} photos, {len(first)} near-duplicate pairs, {across} of them across the split of fold 0")


if __name__ == "__main__":
    run(main)

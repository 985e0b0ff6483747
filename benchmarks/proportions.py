"""Padding against stretching: what the network should see of photos that are not square.

    python benchmarks/proportions.py --data_dir data/figaro

Prints a row for the held-out photos padded to a square, as inference does it, and stretched to one, with one look at
each. Weights should favour what they were trained on: padding, in most stages of the shipped ones. One column says how
many photos are not square.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluate import choose_photos, markdown, score_photos, summarise
from inference import DEFAULT_WEIGHTS, HairSegmenter


class StretchingSegmenter(HairSegmenter):
    """Stretches a photo until it is square, and its probabilities back."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """From RGB uint8 (H, W, 3) to float32 (H, W) in [0, 1]."""
        square = cv2.resize(image, (self.img_size, self.img_size), interpolation=cv2.INTER_AREA)
        return cv2.resize(super().__call__(square), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="whose held-out photos are scored")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="a run folder")
    parser.add_argument("--img_size", type=int, help="default: the weights' own")
    parser.add_argument("--backend", default="auto")
    args = parser.parse_args()
    table = []
    for folder in args.data_dir:
        for photo, kind in (("padded", HairSegmenter), ("stretched", StretchingSegmenter)):
            segmenter = kind(args.weights, args.backend, img_size=args.img_size, multi_scale=False)
            photos = choose_photos(folder, segmenter, "valid", None)
            shapes = [photos.load(i)[1].shape for i in range(len(photos))]
            row = {"data": folder.name, "not square": sum(height != width for height, width in shapes)}
            row |= {"img_size": segmenter.img_size, "photo": photo}
            table.append(row | summarise(score_photos(segmenter, photos, segmenter.threshold)))
    print(markdown(pd.DataFrame(table)))


if __name__ == "__main__":
    main()

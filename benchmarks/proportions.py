"""Padding compared with stretching: how the network should see photos that are not square.

    python -m benchmarks.proportions --data_dir data/figaro

Prints the scores of the held-out photos padded to a square, as inference does it, and stretched to one; without closer
looks. Weights are expected to favour what they were trained on, which is padding in most stages of the shipped ones.
One column counts the photos that are not square.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from hair import HairSegmenter
from hair.cli import HelpFormatter
from hair.errors import run
from hair.store import DEFAULT_WEIGHTS
from training.scoring import choose_photos, markdown, score_photos, summarise


class StretchingSegmenter(HairSegmenter):
    """Stretches a photo to a square, and its probabilities back."""

    def __call__(self, image: np.ndarray) -> np.ndarray:  # type: ignore[override]
        """From RGB uint8 (H, W, 3) to float32 (H, W) in [0, 1]."""
        square = cv2.resize(image, (self.img_size, self.img_size), interpolation=cv2.INTER_AREA)
        return cv2.resize(super().__call__(square), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def main() -> None:
    """Print the table. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="data sets whose held-out photos count")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS, help="a run folder")
    parser.add_argument("--img_size", type=int, help="pixels (default: that of the weights)")
    parser.add_argument("--backend", default="auto", help="what runs the network")
    args = parser.parse_args()
    table = []
    for folder in args.data_dir:
        for photo, kind in (("padded", HairSegmenter), ("stretched", StretchingSegmenter)):
            segmenter = kind(args.weights, args.backend, img_size=args.img_size, multi_scale=False)
            photos = choose_photos(folder, segmenter)
            shapes = [photos.load(i)[1].shape for i in range(len(photos))]
            row = {"data": folder.name, "not square": sum(height != width for height, width in shapes)}
            row |= {"img_size": segmenter.img_size, "photo": photo}
            table.append(row | summarise(score_photos(segmenter, photos, segmenter.threshold)))
    print(markdown(pd.DataFrame(table)))


if __name__ == "__main__":
    run(main)

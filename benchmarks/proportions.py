"""Padding against stretching: how far photos that are not square should be stretched to fill the network's square.

    python benchmarks/proportions.py --data_dir data/figaro

Prints a row for the held-out photos padded (a stretch of 1), as inference does it, stretched by 1.4 at most, and
stretched until square, with one look at each. Square photos are the same in all rows; one column says how many are not.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import geometry
from evaluate import choose_photos, markdown, score_photos, summarise
from inference import DEFAULT_WEIGHTS, HairSegmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="whose held-out photos are scored")
    parser.add_argument("--weights", type=Path, nargs="+", default=[DEFAULT_WEIGHTS], help="run folders")
    parser.add_argument("--img_size", type=int, help="default: the weights' own")
    parser.add_argument("--backend", default="auto")
    args = parser.parse_args()
    table, ways = [], (geometry.MOST_STRETCH, 1.4, float("inf"))
    for weights in args.weights:
        segmenter = HairSegmenter(weights, args.backend, img_size=args.img_size, multi_scale=False)
        for folder in args.data_dir:
            photos = choose_photos(folder, segmenter, "valid", None)
            shapes = [photos.load(i)[1].shape for i in range(len(photos))]
            row = {"weights": weights.name, "img_size": segmenter.img_size, "data": folder.name}
            row |= {"not square": sum(height != width for height, width in shapes)}
            for geometry.MOST_STRETCH in ways:
                scores = summarise(score_photos(segmenter, photos, segmenter.threshold))
                table.append(row | {"stretch": str(geometry.MOST_STRETCH)} | scores)
    print(markdown(pd.DataFrame(table)))


if __name__ == "__main__":
    main()

"""List the photos whose labels a trained model disputes, as a picture to look at and a CSV that --exclude takes.

python -m tools.doubtful --data_dir mine --weights weights/<run>
python train_celeb.py --data_dir mine --exclude result/doubtful.csv

A model agrees with labels that it was trained on, also with wrong ones: take weights that have not seen these photos.
"""

import argparse
import csv
import io
from pathlib import Path

from hair.cli import HelpFormatter, add_network_flags, check_threshold, number, open_segmenter
from hair.errors import run
from hair.files import write_bytes, write_png
from hair.store import DEFAULT_WEIGHTS
from training.flags import HAIR_LABEL_HELP
from training.sources import source_of

COLUMNS = ("path", "agreement", "dice")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", nargs="+", required=True, metavar="DIR", help="data sets of any kind")
    parser.add_argument("--hair_label", nargs="+", default=[], metavar="CLASS", help=HAIR_LABEL_HELP)
    parser.add_argument(
        "--weights", type=Path, default=DEFAULT_WEIGHTS, metavar="RUN", help="a run folder (default: shipped weights)"
    )
    parser.add_argument("--share", type=number(float, 0, 1), default=0.1, help="share of the photos in the CSV")
    parser.add_argument("--tiles", type=number(int, 1), default=24, help="photos in the picture")
    parser.add_argument("--output_dir", type=Path, default=Path("result"), help="folder for doubtful.csv and .png")
    add_network_flags(parser.add_argument_group("network"))
    return parser


def main() -> None:
    """Compare each label with what the model finds. Raises OSError or UserError."""
    args = build_parser().parse_args()
    check_threshold(args.threshold)

    import numpy as np  # the rest imports torch, which takes seconds, so it comes after --help and mistyped flags

    from dataset import PhotoSet, open_data
    from training import scoring

    segmenter = open_segmenter(args, args.weights)
    indexes = [open_data(source_of(text)[0], None, args.hair_label) for text in args.data_dir]
    photos = PhotoSet(indexes, [np.arange(len(index)) for index in indexes])
    photos.check()
    threshold = segmenter.threshold if args.threshold is None else args.threshold
    rows = scoring.score_photos(segmenter, photos, threshold)
    listed = rows.nsmallest(round(args.share * len(rows)), "agreement")

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((path, f"{score:.4f}", f"{dice:.4f}") for path, score, dice in listed[list(COLUMNS)].to_numpy())
    write_bytes(args.output_dir / "doubtful.csv", table.getvalue().encode(errors="surrogateescape"))
    job = scoring.Job(args.weights.name, "", segmenter, threshold, photos, None)
    write_png(args.output_dir / "doubtful.png", scoring.draw_worst(job, rows, args.tiles, "agreement"))
    print(f"{len(listed)} of {len(rows)} photos in {args.output_dir / 'doubtful.csv'}, the most doubtful first")
    print(args.output_dir / "doubtful.png")


if __name__ == "__main__":
    run(main)

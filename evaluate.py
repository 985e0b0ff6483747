"""Score weights on photos with known masks, at the original size of each photo.

python evaluate.py --data_dir data/CelebAMask-HQ                      # the shipped weights, their held-out fold
python evaluate.py --data_dir data/figaro --split all --json scores.json
python evaluate.py --data_dir data/ganhackerton --weights weights/<run> --by length --worst 12
"""

import argparse
import tempfile
from pathlib import Path

from hair.cli import HelpFormatter, add_network_flags, check_threshold, number, open_segmenter
from hair.errors import UserError, run
from hair.files import write_json, write_png
from hair.store import DEFAULT, find_weights
from training.flags import EXCLUDE_HELP, HAIR_LABEL_HELP


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--data_dir", type=Path, nargs="+", required=True, metavar="DIR", help="data set folders")
    data.add_argument("--hair_label", nargs="+", default=[], metavar="CLASS", help=HAIR_LABEL_HELP)
    data.add_argument("--exclude", type=Path, metavar="FILE", help=EXCLUDE_HELP)
    data.add_argument("--split", choices=["valid", "test", "all"], default="valid", help="which photos to score on")
    data.add_argument("--fold", type=number(int, 0), help="fold to score on (default: the one the weights held out)")
    data.add_argument(
        "--filter", metavar="QUERY", help="score on a subset of the Korean data set, as in train_korean.py"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--weights",
        nargs="+",
        default=[DEFAULT],
        metavar="RUN",
        help="run folders, exported files, names of hair --list_weights, or hf://owner/name",
    )
    add_network_flags(network)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--by", metavar="LABEL", help="also score each value of a label of the Korean data set, such as length or sex"
    )
    output.add_argument(
        "--worst", type=number(int, 1), metavar="N", help="save a picture of the N photos with the lowest Dice"
    )
    output.add_argument("--json", type=Path, metavar="FILE", help="write the scores to a file")
    output.add_argument("--output_dir", type=Path, default=Path("result"), help="folder for the pictures of --worst")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together, and if results cannot be written."""
    check_threshold(args.threshold)
    if args.fold is not None and args.split == "all":
        raise UserError(f"--fold {args.fold} goes with --split valid or test; --split all uses every photo")
    if args.json and args.json.is_dir():
        raise UserError(f"{args.json}: is a folder; --json names a file")
    folders = ([args.json.parent] if args.json else []) + ([args.output_dir] if args.worst else [])
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UserError(f"{folder}: no results can be written there ({error.strerror})") from error


def main() -> None:
    args = build_parser().parse_args()
    check_flags(args)

    import pandas as pd  # with torch this takes seconds, so it comes after --help and mistyped flags

    from training import scoring

    selection = scoring.Selection(args.split, args.fold, args.filter, args.hair_label, args.exclude)
    jobs = []  # all are prepared before the first is scored, so that mistakes are found before hours of scoring
    weights_names = scoring.distinct_names([Path(weights.partition("#")[0]) for weights in args.weights])
    for path, weights_name in zip(map(find_weights, args.weights), weights_names, strict=True):
        segmenter = open_segmenter(args, path)
        threshold = segmenter.threshold if args.threshold is None else args.threshold
        for folder, data_name in zip(args.data_dir, scoring.distinct_names(args.data_dir), strict=True):
            photos = scoring.choose_photos(folder, segmenter, selection)
            photos.check()
            labels = photos.labels(args.by) if args.by else None
            jobs.append(scoring.Job(weights_name, data_name, segmenter, threshold, photos, labels))

    scored = [scoring.score_photos(job.segmenter, job.photos, job.threshold) for job in jobs]
    table: list[dict] = []
    for job, rows in zip(jobs, scored, strict=True):
        table.extend(scoring.result_rows(job, rows, args.split, args.by))
    print(scoring.markdown(pd.DataFrame(table)), flush=True)  # before files are written: the disk may be full
    if args.json:
        write_json(args.json, table[0] if len(table) == 1 else table)
    if args.worst:
        for job, rows, name in zip(jobs, scored, scoring.sheet_names(jobs), strict=True):
            write_png(args.output_dir / name, scoring.draw_worst(job, rows, args.worst))
            print(args.output_dir / name)


if __name__ == "__main__":
    run(main)

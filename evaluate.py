"""Score weights on photos with known masks, at the original size of each photo.

python evaluate.py --data_dir data/CelebAMask-HQ                      # the shipped weights, their held-out fold
python evaluate.py --data_dir data/figaro --split all --json scores.json
python evaluate.py --data_dir data/ganhackerton --weights weights/<run> --by length --worst 12
python evaluate.py --data_dir data/figaro --shard 2/8 --json part-2.json      # one of eight machines
python evaluate.py --merge part-*.json --json scores.json                     # when all are done
"""

import argparse
import tempfile
from pathlib import Path

from hair.cli import HelpFormatter, add_network_flags, check_threshold, number, open_segmenter
from hair.errors import UserError, run
from hair.files import write_json, write_png
from hair.shards import parse_shard
from hair.store import DEFAULT, find_weights
from training.flags import EXCLUDE_HELP, HAIR_LABEL_HELP

# Flags that are the same for all shares of a data set.
SETTINGS = ("split", "fold", "filter", "hair_label", "by", "threshold", "img_size", "tta", "refine", "multi_scale")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    data = parser.add_argument_group("data")
    data.add_argument("--data_dir", type=Path, nargs="+", default=[], metavar="DIR", help="data set folders")
    data.add_argument("--hair_label", nargs="+", default=[], metavar="CLASS", help=HAIR_LABEL_HELP)
    data.add_argument("--exclude", type=Path, metavar="FILE", help=EXCLUDE_HELP)
    data.add_argument("--split", choices=["valid", "test", "all"], default="valid", help="which photos to score on")
    data.add_argument("--fold", type=number(int, 0), help="fold to score on (default: the one the weights held out)")
    data.add_argument(
        "--filter", metavar="QUERY", help="score on a subset of the Korean data set, as in train_korean.py"
    )
    data.add_argument("--shard", type=parse_shard, metavar="K/N", help="score on share K of N only; see --merge")
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
    output.add_argument(
        "--merge",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="print the scores of all shares, from their files",
    )
    output.add_argument("--output_dir", type=Path, default=Path("result"), help="folder for the pictures of --worst")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raise UserError for flags that do not go together, and if results cannot be written."""
    if bool(args.merge) == bool(args.data_dir):
        raise UserError("give either --data_dir, or --merge and the files of all shares")
    if args.shard and (args.worst or not args.json):
        raise UserError(f"--shard {args.shard} writes to --json FILE, for --merge, and goes without --worst")
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


def report(rows: list[dict], file: Path | None) -> None:
    """Print the results table, and write it to a file if there is one."""
    import pandas as pd

    from training import scoring

    print(scoring.markdown(pd.DataFrame(rows)), flush=True)  # before files are written: the disk may be full
    if file:
        write_json(file, rows[0] if len(rows) == 1 else rows)


def main() -> None:
    args = build_parser().parse_args()
    check_flags(args)

    from training import merging, scoring  # torch takes seconds to import, so it comes after --help and mistyped flags

    if args.merge:
        settings, scored = merging.merge(args.merge)
        report(scoring.result_rows(scored, settings["split"], settings["by"]), args.json)
        return
    selection = scoring.Selection(args.split, args.fold, args.filter, args.hair_label, args.exclude, args.shard)
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

    tables = [scoring.score_photos(job.segmenter, job.photos, job.threshold) for job in jobs]
    scored = [scoring.add_up(job, rows) for job, rows in zip(jobs, tables, strict=True)]
    if args.shard:
        merging.write_share(args.json, args.shard, {name: vars(args)[name] for name in SETTINGS}, scored)
        print(f"{args.json}: share {args.shard}, {sum(int(one.sums['photos']) for one in scored)} photos")
        return
    report(scoring.result_rows(scored, args.split, args.by), args.json)
    if args.worst:
        for job, rows, name in zip(jobs, tables, scoring.sheet_names(jobs), strict=True):
            write_png(args.output_dir / name, scoring.draw_worst(job, rows, args.worst))
            print(args.output_dir / name)


if __name__ == "__main__":
    run(main)

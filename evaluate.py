"""Score weights on photos whose hair is known, with masks at each photo's own size, as users get them.

python evaluate.py --data_dir data/CelebAMask-HQ                      # the shipped weights, their held-out fold
python evaluate.py --data_dir data/figaro --split all --json scores.json
python evaluate.py --data_dir data/ganhackerton --weights weights/<run> --by length --worst 12
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from backends import BACKENDS
from dataset import PhotoSet, open_data
from inference import DEFAULT_WEIGHTS, HairSegmenter
from render import draw_overlay, write_png
from utils import HelpFormatter, UserError, boundary_f1, number, run, scores, write_json


def score_photos(segmenter: HairSegmenter, photos: PhotoSet, threshold: float) -> pd.DataFrame:
    """Segment every photo and count.

    Args:
        segmenter: gives probabilities at the photo's own size.
        photos: with known masks.
        threshold: probability from which a pixel is hair.

    Returns:
        A row a photo: `path`, the pixel counts `tp`, `fp`, `fn`, `tn`, and `dice` and `boundary_f1` in [0, 1].
    """
    rows = []
    for i in tqdm(range(len(photos)), desc="evaluate", unit="photo", leave=False):
        image, mask = photos.load(i)
        found, hair = segmenter(image) >= threshold, mask.astype(bool)
        tp, fp, fn = (int(np.count_nonzero(pixels)) for pixels in (found & hair, found & ~hair, ~found & hair))
        rows.append(
            {
                "path": str(photos.path(i)),
                **{"tp": tp, "fp": fp, "fn": fn, "tn": hair.size - tp - fp - fn},
                "dice": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
                "boundary_f1": boundary_f1(found, hair),
            }
        )
    return pd.DataFrame(rows)


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """The scores of a whole set from the rows of `score_photos`."""
    counts = (torch.tensor(rows[kind].to_numpy(np.int64))[:, None] for kind in ("tp", "fp", "fn", "tn"))
    return {"photos": len(rows), **scores(*counts), "boundary_f1": float(rows["boundary_f1"].mean())}


def choose_photos(
    folder: Path, segmenter: HairSegmenter, split: str, fold: int | None, query: str | None = None
) -> PhotoSet:
    """The photos of a data set to score on, of the Korean one those that `query` leaves.

    The fold is the one that the weights were not trained on, unless given. Raises UserError.
    """
    index = open_data(folder, query)
    if split == "all":
        every = np.arange(len(index)) if query is None else np.sort(np.concatenate([*index.split(0, 2).values()]))
        return PhotoSet([index], [every])
    fold = segmenter.facts.get("fold") if fold is None else fold
    n_folds = segmenter.facts.get("n_folds", 5)
    if fold is None:
        raise UserError("the weights do not tell the fold that they held out: give --fold, or --split all")
    if fold >= n_folds:
        raise UserError(f"--fold {fold} is out of range: the weights were trained with {n_folds} folds")
    parts = index.split(fold, n_folds)
    if split not in parts:
        raise UserError(f"{folder}: has no {split} part of its own (no mapping file); --split valid or all")
    if not len(parts[split]):
        raise UserError(f"{folder}: its {split} part has no photos; --split all scores on those that are there")
    return PhotoSet([index], [parts[split]])


def draw_worst(
    rows: pd.DataFrame, photos: PhotoSet, segmenter: HairSegmenter, threshold: float, most: int
) -> np.ndarray:
    """A sheet, RGB uint8, of the photos with the lowest Dice: what was found tinted, the known outline in white."""
    tiles = []
    for i in rows["dice"].nsmallest(most).index:
        image, mask = photos.load(i)
        sheet = draw_overlay(image, segmenter(image) >= threshold)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(sheet, contours, -1, (255, 255, 255), max(1, round(max(image.shape) / 300)))
        scale = 256 / max(image.shape[:2])
        width, height = (max(1, round(side * scale)) for side in sheet.shape[1::-1])
        small = cv2.resize(sheet, (width, height), interpolation=cv2.INTER_AREA)
        tile = np.full((280, 256, 3), 32, np.uint8)
        tile[: small.shape[0], : small.shape[1]] = small
        text = f"{rows['dice'][i]:.3f}  {photos.path(i).name}"
        cv2.putText(tile, text, (4, 274), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    return np.vstack([np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles), 4)])


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table of result rows, scores with four decimals."""
    cells = table.map(lambda value: f"{value:.4f}" if isinstance(value, float) else str(value))
    lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="either data set, or image/ and mask/")
    parser.add_argument(
        "--weights", type=Path, nargs="+", default=[DEFAULT_WEIGHTS], help="run folders, or exported files"
    )
    parser.add_argument("--split", choices=["valid", "test", "all"], default="valid", help="which photos")
    parser.add_argument("--fold", type=number(int, 0), help="the weights' own held-out fold where not given")
    parser.add_argument("--img_size", type=number(int, 32), help="the weights' own where not given")
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="what runs the network")
    parser.add_argument("--device", default="auto", help="auto, cpu, or another of the backend's")
    parser.add_argument("--tta", action="store_true", help="average over mirror image and three sizes")
    parser.add_argument("--refine", action="store_true", help="draw edges to the photo's own")
    parser.add_argument(
        *("--multi_scale",),
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look again, closer, where a first look suspects small heads, as inference.py does",
    )
    parser.add_argument("--threshold", type=float, help="the weights' own where not given")
    parser.add_argument("--filter", metavar="QUERY", help="score a part of the Korean data set, as train_korean.py's")
    parser.add_argument("--by", metavar="LABEL", help="also by group of a Korean style label, as length or sex")
    parser.add_argument("--worst", type=number(int, 1), metavar="N", help="draw the N worst photos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores there")
    parser.add_argument("--output_dir", type=Path, default=Path("result"), help="for the sheets of worst photos")
    return parser


def tell_apart(paths: list[Path]) -> list[str]:
    """A name for each path: a folder's own, a file's with its folder's; in full where two would be the same."""
    names = [f"{path.parent.name}/{path.name}" if path.is_file() else path.name for path in paths]
    return [name if name and names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def check_flags(args: argparse.Namespace) -> None:
    """Find flags that do not go together and results that could not be written. Raises UserError."""
    if args.threshold is not None and not 0 < args.threshold < 1:
        raise UserError(f"--threshold {args.threshold} is not between 0 and 1")
    if args.fold is not None and args.split == "all":
        raise UserError(f"--fold {args.fold} goes with --split valid or test; --split all takes every photo")
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
    jobs = []  # what the user can have wrong is found before hours of scoring
    for weights, weights_name in zip(args.weights, tell_apart(args.weights), strict=True):
        try:
            segmenter = HairSegmenter(
                *(weights, args.backend, args.device, args.img_size, args.tta, args.refine, args.multi_scale)
            )
        except (OSError, ValueError) as error:
            raise UserError(str(error)) from error
        for folder, name in zip(args.data_dir, tell_apart(args.data_dir), strict=True):
            photos = choose_photos(folder, segmenter, args.split, args.fold, args.filter)
            photos.check()
            jobs.append((weights_name, segmenter, name, photos, photos.labels(args.by) if args.by else None))

    table, scored = [], []
    for weights_name, segmenter, name, photos, labels in jobs:
        threshold = segmenter.threshold if args.threshold is None else args.threshold
        rows = score_photos(segmenter, photos, threshold)
        facts = {"weights": weights_name, "data": f"{name} ({args.split})", "img_size": segmenter.img_size}
        table.append(facts | summarise(rows))
        if labels is not None:
            groups = rows.groupby(labels.to_numpy(), dropna=False)
            table += [
                facts | {"data": f"{args.by} = {'(no label)' if key != key else key}"} | summarise(group)
                for key, group in groups  # a key that is not itself is NaN
            ]
        scored.append(rows)
    print(markdown(pd.DataFrame(table)), flush=True)  # before anything that a full disk can stop
    if args.json:
        write_json(args.json, table[0] if len(table) == 1 else table)
    if args.worst:
        names = Counter[str]()
        for (weights_name, segmenter, name, photos, _), rows in zip(jobs, scored, strict=True):
            name = f"worst_{weights_name}_{name}".replace("/", "-")
            names[name] += 1  # the same photos may be given twice
            path = args.output_dir / f"{name}{f'-{names[name]}' * (names[name] > 1)}.png"
            threshold = segmenter.threshold if args.threshold is None else args.threshold
            write_png(path, draw_worst(rows, photos, segmenter, threshold, args.worst))
            print(path)


if __name__ == "__main__":
    run(main)

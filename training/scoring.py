"""Score weights on photos with known masks: tables, and pictures of the worst photos."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from dataset import PhotoSet, open_data
from hair.effects import draw_overlay
from hair.errors import UserError
from hair.segmenter import HairSegmenter
from hair.shards import Shard
from training.sources import excluded_rows
from utils import boundary_f1, scores

TILE, CAPTION, TILES_A_ROW = 256, 24, 4  # of a sheet of photos: pixels, pixels below it, photos
COUNTS = ("tp", "fp", "fn", "tn")  # of pixels
COLUMNS = ("path", *COUNTS, "dice", "boundary_f1", "agreement")
NO_LABEL = "(no label)"
SMALLEST_AREA = 0.01  # of a photo, to which disputed pixels are compared: a few of them are no matter without hair
TILE_COLOR, WHITE = 32, (255, 255, 255)


@dataclass(frozen=True)
class Job:
    """Weights to score on a data set.

    Attributes:
        weights: name of the weights.
        data: name of the data set.
        segmenter: runs the weights.
        threshold: probability from which a pixel counts as hair.
        photos: photos with known masks.
        labels: label of each photo, for grouping; None for no groups.
    """

    weights: str
    data: str
    segmenter: HairSegmenter
    threshold: float
    photos: PhotoSet
    labels: pd.Series | None


@dataclass(frozen=True)
class Selection:
    """The photos of a data set to score on.

    Attributes:
        split: `valid`, `test` or `all`.
        fold: fold to score on; None: the one that the weights held out.
        query: a query for the Korean data set.
        hair_label: classes that are hair, for `dataset.open_data`.
        exclude: a file that names photos to leave out, for `sources.excluded_rows`.
        shard: only this share of the photos, by their paths relative to the data set's folder.
    """

    split: str = "valid"
    fold: int | None = None
    query: str | None = None
    hair_label: Sequence[str] = ()
    exclude: Path | None = None
    shard: Shard | None = None


@dataclass(frozen=True)
class Scored:
    """What a job's photos add up to.

    Attributes:
        weights, data: names.
        img_size: of the network's input, in pixels.
        sums: over all photos, from `sum_up`.
        groups: the same over the photos of each group of `labels`, by name.
    """

    weights: str
    data: str
    img_size: int
    sums: dict[str, float]
    groups: dict[str, dict[str, float]]


def choose_photos(folder: Path, segmenter: HairSegmenter, selection: Selection | None = None) -> PhotoSet:
    """The photos of a data set to score on.

    Args:
        folder: of the data set.
        segmenter: its weights may say which fold they held out.
        selection: from the data set; the fold that the weights held out if None.

    Raises:
        UserError: no such fold or split, or no photos in it. A share may be empty.
    """
    chosen = selection or Selection()
    index = open_data(folder, chosen.query, chosen.hair_label)
    rows = _rows(folder, index, segmenter, chosen)
    if chosen.exclude is not None:
        rows = np.setdiff1d(rows, excluded_rows([index], chosen.exclude)[0])
    if not len(rows):
        raise UserError(f"{folder}: there are no photos in its {chosen.split} set; --split all uses all photos")
    if chosen.shard is not None:
        names = (Path(os.path.relpath(index.photo(row), index.root)) for row in rows)
        rows = rows[np.fromiter((chosen.shard.has(name) for name in names), bool, len(rows))]
    return PhotoSet([index], [rows])


def _rows(folder: Path, index: Any, segmenter: HairSegmenter, chosen: Selection) -> np.ndarray:
    """The rows of an index that are chosen, with those to leave out. Raises UserError."""
    if chosen.split == "all":
        if chosen.query is None:
            return np.arange(len(index))
        parts = index.split(0, 2)
        return np.sort(np.concatenate([parts["train"], parts["valid"]]))
    fold = segmenter.facts.get("fold") if chosen.fold is None else chosen.fold
    n_folds = segmenter.facts.get("n_folds", 5)
    if fold is None:
        raise UserError("the weights do not store which fold they held out: give --fold, or --split all")
    if fold >= n_folds:
        raise UserError(f"--fold {fold} is out of range: the weights were trained with {n_folds} folds")
    parts = index.split(fold, n_folds)
    if chosen.split not in parts:
        raise UserError(f"{folder}: has no {chosen.split} set; use --split valid or all")
    return parts[chosen.split]


def score_photos(segmenter: HairSegmenter, photos: PhotoSet, threshold: float) -> pd.DataFrame:
    """Segment every photo and count pixels.

    Args:
        segmenter: computes probabilities at the size of the photo.
        photos: photos with known masks.
        threshold: probability from which a pixel counts as hair.

    Returns:
        A row for each photo: `path`, the pixel counts `tp`, `fp`, `fn`, `tn`, and `dice`, `boundary_f1` and `agreement`
        in [0, 1]; the last one is that of `agreement`.
    """
    rows = []
    for i in tqdm(range(len(photos)), desc="evaluate", unit="photo", leave=False):
        image, mask = photos.load(i)
        probabilities, hair = segmenter(image), mask.astype(bool)
        found = probabilities >= threshold
        tp, fp = np.count_nonzero(found & hair), np.count_nonzero(found & ~hair)
        fn = np.count_nonzero(~found & hair)
        rows.append(
            {
                "path": str(photos.path(i)),
                "tp": tp,
                "fp": fp,
                "fn": fn,
                "tn": hair.size - tp - fp - fn,
                "dice": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 1.0,
                "boundary_f1": boundary_f1(found, hair),
                "agreement": agreement(probabilities, hair, threshold),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def agreement(probabilities: np.ndarray, hair: np.ndarray, threshold: float) -> float:
    """How far a model agrees with a label, in [0, 1]: like the IoU, but pixels of which it is sure count more.

    Args:
        probabilities: float32 (H, W) in [0, 1].
        hair: the label, bool (H, W).
        threshold: probability from which a pixel is hair.
    """
    found = probabilities >= threshold
    disputed = float(np.abs(probabilities - hair)[found != hair].sum())
    area = max(float(np.count_nonzero(found | hair)), SMALLEST_AREA * hair.size)
    return 1 - disputed / area


def sum_up(rows: pd.DataFrame) -> dict[str, float]:
    """The number of photos, the pixel counts and the sums of scores per photo, from the rows of `score_photos`."""
    counts = {kind: int(rows[kind].sum()) for kind in COUNTS}
    return {"photos": len(rows), **counts, **{kind: math.fsum(rows[kind]) for kind in ("dice", "boundary_f1")}}


def summarise(rows: pd.DataFrame) -> dict[str, float]:
    """The scores of a whole set from the rows of `score_photos`."""
    return scores_of(sum_up(rows))


def scores_of(sums: dict[str, float]) -> dict[str, float]:
    """The scores of a whole set from its sums; those per photo are NaN without photos."""
    found = scores(*(torch.tensor([[int(sums[kind])]]) for kind in COUNTS))
    means = {kind: sums[kind] / sums["photos"] if sums["photos"] else math.nan for kind in ("dice", "boundary_f1")}
    found["dice_per_photo"] = means["dice"]
    return {"photos": int(sums["photos"]), **found, "boundary_f1": means["boundary_f1"]}


def add_up(job: Job, rows: pd.DataFrame) -> Scored:
    """The sums of a job from the rows of `score_photos`, and those of each group of its labels."""
    groups = {}
    if job.labels is not None:
        for key, group in rows.groupby(job.labels.to_numpy(), dropna=False):
            groups[NO_LABEL if pd.isna(key) else str(key)] = sum_up(group)
    return Scored(job.weights, job.data, job.segmenter.img_size, sum_up(rows), groups)


def result_rows(scored: Sequence[Scored], split: str, label: str | None) -> list[dict]:
    """The rows of the results table: for each job all photos, then each group of its labels.

    Args:
        scored: of each job, from `add_up`.
        split: name of the part of the data set.
        label: name of the labels.
    """
    rows = []
    for one in scored:
        facts = {"weights": one.weights, "data": f"{one.data} ({split})", "img_size": one.img_size}
        rows.append(facts | scores_of(one.sums))
        rows += [facts | {"data": f"{label} = {name}"} | scores_of(sums) for name, sums in one.groups.items()]
    return rows


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table of result rows, scores with four decimals."""
    cells = table.map(lambda value: f"{value:.4f}" if isinstance(value, float) else str(value))
    lines = [list(cells.columns), ["---"] * len(cells.columns), *cells.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each path: that of a folder, or of a file with its folder; the full path if two would be equal."""
    names = [f"{path.parent.name}/{path.name}" if path.is_file() else path.name for path in paths]
    return [name if name and names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]


def draw_worst(job: Job, rows: pd.DataFrame, most: int, score: str = "dice") -> np.ndarray:
    """A picture, RGB uint8, of the photos with the lowest score: the prediction is tinted, the true outline is white.

    Args:
        job: what was scored.
        rows: from `score_photos`.
        most: largest number of photos.
        score: a column of `rows`.
    """
    tiles = [_draw_tile(job, i, rows[score][i]) for i in rows[score].nsmallest(most).index]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % TILES_A_ROW)
    return np.vstack([np.hstack(tiles[k : k + TILES_A_ROW]) for k in range(0, len(tiles), TILES_A_ROW)])


def _draw_tile(job: Job, i: int, score: float) -> np.ndarray:
    """Photo i of a job with its masks, score and name, RGB uint8."""
    image, mask = job.photos.load(i)
    picture = draw_overlay(image, job.segmenter(image) >= job.threshold)
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, WHITE, max(1, round(max(image.shape) / 300)))
    scale = TILE / max(image.shape[:2])
    height, width = max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale))
    tile = np.full((TILE + CAPTION, TILE, 3), TILE_COLOR, np.uint8)
    tile[:height, :width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    text, place = f"{score:.3f}  {job.photos.path(i).name}", (4, TILE + CAPTION - 6)
    cv2.putText(tile, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, WHITE, 1, cv2.LINE_AA)
    return tile


def sheet_names(jobs: Sequence[Job]) -> list[str]:
    """A file name for each job's picture of worst photos; the same photos may be scored twice."""
    count: Counter[str] = Counter()
    names = []
    for job in jobs:
        name = f"worst_{job.weights}_{job.data}".replace("/", "-")
        count[name] += 1
        names.append(f"{name}.png" if count[name] == 1 else f"{name}-{count[name]}.png")
    return names

"""Photos of every kind, by several models in one run: Dice, false hair, and milliseconds a photo.

    python -m benchmarks.robustness --data_dir data/CelebAMask-HQ data/figaro --limit 40     # a quick look
    python -m benchmarks.robustness --data_dir data/CelebAMask-HQ data/figaro --scenes data/street --backgrounds pets
    python -m benchmarks.robustness --data_dir data/figaro --weights weights/<run> --mediapipe hair_segmentation.tflite

Prints a row for each kind of photo. "turned" to "group" are made of the held-out portraits of --data_dir:

- turned: by 90, 180 and 270 degrees in turn;
- dim: a quarter of the light, noise with a standard deviation of 8 of 255, JPEG of quality 70;
- blurred: by a Gaussian whose sigma is 4 where the longer side is 512 pixels;
- heads at 1/4 and 1/8: a portrait pasted into a picture without people, at this share of its width;
- group: 24 pictures of 2400 × 1200 pixels, a half with 32 heads of 300 pixels, a half with 50 of 240.

"Dice" is over all pixels of a row. Pictures without people have no hair to find: their rows count those with more than
5% of it. All models see the same photo in turn, and milliseconds are the mean of the calls.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage.data
from sklearn.datasets import load_sample_image
from tqdm import tqdm

from benchmarks.mediapipe_hair import MediaPipeHair
from dataset import PhotoSet, open_data
from hair import HairSegmenter, UserError, read_photo
from hair.cli import HelpFormatter, number
from hair.errors import run
from hair.files import atomic
from hair.photos import find_photos
from hair.store import DEFAULT_WEIGHTS
from training.scoring import distinct_names, markdown

LIGHT, NOISE, QUALITY = 0.25, 8, 70  # of dim photos
BLUR = 4 / 512  # sigma of blurred photos over their longer side
SHARES = (1 / 4, 1 / 8)  # width of a pasted portrait over that of the picture that it is pasted into
GROUPS, GRIDS, GROUP_WIDTH = 24, ((4, 8), (5, 10)), 2400  # pictures; rows and columns of heads; pixels
FALSE_HAIR = 0.05  # of a picture without people
Sample = tuple[np.ndarray, np.ndarray]  # a photo, RGB uint8 (H, W, 3), and its mask, uint8 {0, 1} (H, W)
Model = HairSegmenter | MediaPipeHair


@dataclass(frozen=True)
class Row:
    """A kind of photos.

    Attributes:
        name: of the kind.
        count: number of photos.
        load: makes the photo of a number below `count`.
        has_people: False where every pixel called hair is a false one.
    """

    name: str
    count: int
    load: Callable[[int], Sample]
    has_people: bool = True

    def samples(self, limit: int | None) -> Iterator[Sample]:
        """All photos, or `limit` of them, evenly spread."""
        most = self.count if limit is None else min(limit, self.count)
        for i in tqdm(np.linspace(0, self.count - 1, most).astype(int), desc=self.name, leave=False, mininterval=5):
            yield self.load(int(i))


def turned(photo: np.ndarray, mask: np.ndarray, i: int) -> Sample:
    """Turn a photo by one, two or three quarters, depending on its number."""
    return np.ascontiguousarray(np.rot90(photo, 1 + i % 3)), np.ascontiguousarray(np.rot90(mask, 1 + i % 3))


def dim(photo: np.ndarray, mask: np.ndarray, i: int) -> Sample:
    """A photo as a camera takes it in a dark room; its number seeds the noise."""
    noise = np.random.default_rng(i).normal(0, NOISE, photo.shape)
    dark = (photo * LIGHT + noise).round().clip(0, 255).astype(np.uint8)
    data = cv2.imencode(".jpg", dark[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]), mask


def blurred(photo: np.ndarray, mask: np.ndarray, i: int) -> Sample:
    """A photo that is out of focus."""
    return cv2.GaussianBlur(photo, (0, 0), BLUR * max(photo.shape[:2])), mask


CONDITIONS = {"turned": turned, "dim": dim, "blurred": blurred}


def canvases() -> list[np.ndarray]:
    """Five pictures without people at twice their size, RGB uint8 (H, W, 3), that were never used for training here."""
    pictures = [getattr(skimage.data, name)() for name in ("coffee", "chelsea", "rocket")]
    pictures += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return [cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for picture in pictures]


def paste(photo: np.ndarray, mask: np.ndarray, canvas: np.ndarray, share: float, seed: int) -> Sample:
    """Paste a photo into a picture.

    Args:
        photo: RGB uint8 (h, w, 3).
        mask: uint8 {0, 1} (h, w).
        canvas: RGB uint8 (H, W, 3).
        share: width of the photo relative to the canvas, in (0, 1]; less where the photo would be too high.
        seed: decides on the position.

    Returns:
        RGB uint8 (H, W, 3) and the mask of it all, uint8 {0, 1} (H, W).
    """
    rng = np.random.default_rng(seed)
    scale = min(share * canvas.shape[1] / photo.shape[1], canvas.shape[0] / photo.shape[0])
    size = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    left, top = (int(rng.integers(0, space - side + 1)) for space, side in zip(canvas.shape[1::-1], size, strict=True))
    window = np.s_[top : top + size[1], left : left + size[0]]
    canvas, whole = canvas.copy(), np.zeros(canvas.shape[:2], np.uint8)
    canvas[window] = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    whole[window] = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return canvas, whole


def group(photos: PhotoSet, i: int) -> Sample:
    """A group photo: the middle squares of portraits side by side, drawn at random by the number of the picture."""
    rows, columns = GRIDS[i % len(GRIDS)]
    side = GROUP_WIDTH // columns
    picture = np.empty((rows * side, columns * side, 3), np.uint8)
    hair = np.empty(picture.shape[:2], np.uint8)
    chosen = np.random.default_rng(i).choice(len(photos), rows * columns, replace=len(photos) < rows * columns)
    for k, head in enumerate(chosen):
        photo, mask = photos.load(int(head))
        short = min(mask.shape)
        top, left = ((length - short) // 2 for length in mask.shape)
        middle = np.s_[top : top + short, left : left + short]
        top, left = k // columns * side, k % columns * side
        window = np.s_[top : top + side, left : left + side]
        picture[window] = cv2.resize(photo[middle], (side, side), interpolation=cv2.INTER_AREA)
        hair[window] = cv2.resize(mask[middle], (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
    return picture, hair


def rows_of_people(portraits: Sequence[Path], scenes: Sequence[Path], fold: int, n_folds: int) -> list[Row]:
    """The rows with hair to find.

    Args:
        portraits: data sets, as they are and changed.
        scenes: data sets, as they are only.
        fold: the one that was held out, counted from 0.
        n_folds: number of folds.

    Raises:
        UserError: a data set that cannot be read, no such fold.
    """
    if fold >= n_folds:
        raise UserError(f"--fold {fold} is out of range: there are {n_folds} folds")
    sets = [held_out([folder], fold, n_folds) for folder in (*portraits, *scenes)]
    names = distinct_names([*portraits, *scenes])
    rows = [Row(name, len(photos), photos.load) for name, photos in zip(names, sets, strict=True)]
    heads, empty = held_out(portraits, fold, n_folds), canvases()
    for name, change in CONDITIONS.items():
        rows.append(Row(name, len(heads), lambda i, change=change: change(*heads.load(i), i)))
    for share in SHARES:

        def pasted(i: int, share: float = share) -> Sample:
            return paste(*heads.load(i), empty[i % len(empty)], share, i)

        rows.append(Row(f"heads at 1/{round(1 / share)}", len(heads), pasted))
    return [*rows, Row("group", GROUPS, lambda i: group(heads, i))]


def held_out(folders: Sequence[Path], fold: int, n_folds: int) -> PhotoSet:
    """The photos of data sets that training holds out. Raises UserError."""
    indexes = [open_data(folder) for folder in folders]
    return PhotoSet(indexes, [index.split(fold, n_folds)["valid"] for index in indexes])


def row_of_pictures(source: Path) -> Row:
    """The row of a folder of pictures without people, or of a text file with a path in each line. Raises OSError."""
    if source.suffix == ".txt":
        paths = [Path(line) for line in source.read_text(encoding="utf-8").splitlines() if line]
    else:
        paths = list(find_photos([source]))

    def load(i: int) -> Sample:
        photo = read_photo(paths[i])
        return photo, np.zeros(photo.shape[:2], np.uint8)

    return Row(source.stem, len(paths), load, has_people=False)


def measure(row: Row, models: dict[str, Model], limit: int | None) -> list[dict]:
    """Run all models on the photos of a row.

    Args:
        row: the photos.
        models: by name; they give probabilities and have a threshold.
        limit: most photos.

    Returns:
        For each model `photos`, the mean `ms` a photo, and `dice`, or `false_hair`, the number of photos, for pictures
        without people.
    """
    table = {name: {"both": 0, "sum": 0, "false": 0, "seconds": 0.0} for name in models}
    photos = 0
    for photo, mask in row.samples(limit):
        photos += 1
        hair = mask > 0
        for name, model in models.items():
            start = time.perf_counter()
            found = model(photo) >= model.threshold
            counts = table[name]
            counts["seconds"] += time.perf_counter() - start
            counts["both"] += 2 * np.count_nonzero(found & hair)
            counts["sum"] += np.count_nonzero(found) + np.count_nonzero(hair)
            counts["false"] += found.mean() > FALSE_HAIR
    results = []
    for name, counts in table.items():
        score = {"dice": counts["both"] / max(1, counts["sum"])} if row.has_people else {"false_hair": counts["false"]}
        facts = {"kind": row.name, "model": name, "photos": photos, "ms": 1000 * counts["seconds"] / max(1, photos)}
        results.append(facts | score)
    return results


def one_table(results: Sequence[dict]) -> pd.DataFrame:
    """A line for each kind of photo, with two columns for each model: its score and its milliseconds."""
    lines: dict[str, dict] = {}
    for result in results:
        line = lines.setdefault(result["kind"], {"kind": result["kind"], "photos": str(result["photos"])})
        scored = "dice" in result
        line[result["model"]] = f"{result['dice']:.4f}" if scored else f"{result['false_hair']} with > {FALSE_HAIR:.0%}"
        line[f"{result['model']} ms"] = f"{result['ms']:.0f}"
    return pd.DataFrame(list(lines.values()))


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="data sets of portraits")
    parser.add_argument("--scenes", type=Path, nargs="*", default=[], help="data sets of other photos of people")
    parser.add_argument(
        "--backgrounds", type=Path, nargs="*", default=[], help="folders or .txt lists of pictures without people"
    )
    parser.add_argument("--fold", type=number(int, 0), default=0, help="the fold that the weights held out")
    parser.add_argument("--n_folds", type=number(int, 2), default=5, help="number of folds")
    parser.add_argument("--limit", type=number(int, 1), help="most photos of each row (default: all)")
    parser.add_argument(
        "--weights", type=Path, nargs="*", default=[DEFAULT_WEIGHTS], help="run folders or exported files"
    )
    parser.add_argument("--mediapipe", type=Path, metavar="FILE", help="MediaPipe's hair model, a .tflite file")
    parser.add_argument("--img_size", type=int, help="pixels (default: that of the weights)")
    parser.add_argument("--backend", default="auto", help="what runs the network")
    parser.add_argument(
        "--multi_scale",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look closer where small heads are suspected",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a line for each row and model there")
    return parser


def main() -> None:
    """Print the table. Raises OSError or UserError."""
    args = build_parser().parse_args()
    models: dict[str, Model] = {
        name: HairSegmenter(path, args.backend, img_size=args.img_size, multi_scale=args.multi_scale)
        for name, path in zip(distinct_names(args.weights), args.weights, strict=True)
    }
    if args.mediapipe:
        models["MediaPipe"] = MediaPipeHair(args.mediapipe)
    rows = rows_of_people(args.data_dir, args.scenes, args.fold, args.n_folds)
    rows += [row_of_pictures(source) for source in args.backgrounds]
    for model in models.values():
        model(canvases()[0])  # the first call of a network is slow
    results: list[dict] = []
    for row in rows:
        results += measure(row, models, args.limit)
        if args.csv:  # after each row, since hours may follow
            with atomic(args.csv) as temporary:
                pd.DataFrame(results).to_csv(temporary, index=False)
    print(markdown(one_table(results)))


if __name__ == "__main__":
    run(main)

"""What a fold's Dice does not show: pictures without a person, and small heads.

    python -m benchmarks.robustness --data_dir data/CelebAMask-HQ data/figaro

Prints the share of pixels taken for hair in photos without a person (scikit-image's coffee, chelsea and rocket,
scikit-learn's china and flower), and the Dice on held-out photos pasted into those photos, at several sizes.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import skimage.data
from sklearn.datasets import load_sample_image

from hair import HairSegmenter
from hair.cli import HelpFormatter, number
from hair.errors import run
from hair.segmenter import DEFAULT_WEIGHTS
from training.scoring import choose_photos, markdown

SHARES = (1 / 2, 1 / 4, 1 / 8)  # width of a pasted photo, relative to the picture that it is pasted into


def pictures_without_people() -> dict[str, np.ndarray]:
    """Five photos, RGB uint8, that were never used for training here."""
    pictures = {name: getattr(skimage.data, name)() for name in ("coffee", "chelsea", "rocket")}
    return pictures | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def paste_at(
    image: np.ndarray, mask: np.ndarray, canvas: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste a photo into a picture.

    Args:
        image: RGB uint8 (h, w, 3).
        mask: uint8 {0, 1} (h, w).
        canvas: RGB uint8 (H, W, 3).
        share: width of the photo relative to the canvas, in (0, 1]; less where the photo would be too high.
        rng: decides on the position.

    Returns:
        RGB uint8 (H, W, 3) and the mask of it all, uint8 {0, 1} (H, W).
    """
    scale = min(share * canvas.shape[1] / image.shape[1], canvas.shape[0] / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    left, top = (int(rng.integers(0, space - side + 1)) for space, side in zip(canvas.shape[1::-1], size, strict=True))
    window = np.s_[top : top + size[1], left : left + size[0]]
    canvas, whole = canvas.copy(), np.zeros(canvas.shape[:2], np.uint8)
    canvas[window] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    whole[window] = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return canvas, whole


def dice_at(
    share: float, segmenter: HairSegmenter, folders: list[Path], canvases: list[np.ndarray], limit: int
) -> float:
    """Dice over held-out photos pasted into pictures.

    Args:
        share: see `paste_at`.
        segmenter: gives the probabilities.
        folders: data sets.
        canvases: pictures without people, RGB uint8 (H, W, 3), used in turn.
        limit: number of photos of each data set.

    Returns:
        In [0, 1], of the summed counts.
    """
    rng = np.random.default_rng(0)
    both = total = 0
    for folder in folders:
        photos = choose_photos(folder, segmenter)
        for k, i in enumerate(rng.permutation(len(photos))[:limit]):
            image, mask = photos.load(i)
            photo, hair = paste_at(image, mask, canvases[k % len(canvases)], share, rng)
            found = segmenter(photo) >= segmenter.threshold
            both += 2 * int((found & (hair > 0)).sum())
            total += int(found.sum()) + int(hair.sum())
    return both / total


def main() -> None:
    """Print the table. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--data_dir", type=Path, nargs="+", required=True, help="data sets whose held-out photos are pasted"
    )
    parser.add_argument("--weights", type=Path, nargs="+", default=[DEFAULT_WEIGHTS], help="run folders")
    parser.add_argument("--img_size", type=int, help="pixels (default: that of the weights)")
    parser.add_argument("--backend", default="auto", help="what runs the network")
    parser.add_argument(
        "--multi_scale",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="look closer where small heads are suspected",
    )
    parser.add_argument("--limit", type=number(int, 1), default=40, help="photos of each data set")
    args = parser.parse_args()

    pictures = pictures_without_people()
    canvases = [cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for p in pictures.values()]
    table = []
    for weights in args.weights:
        segmenter = HairSegmenter(weights, args.backend, img_size=args.img_size, multi_scale=args.multi_scale)
        threshold = segmenter.threshold
        row = {"weights": weights.name, "img_size": segmenter.img_size}
        row |= {f"{name} %": 100 * float((segmenter(p) >= threshold).mean()) for name, p in pictures.items()}
        for share in SHARES:
            row[f"Dice at 1/{round(1 / share)}"] = dice_at(share, segmenter, args.data_dir, canvases, args.limit)
        table.append(row)
    print(markdown(pd.DataFrame(table)))


if __name__ == "__main__":
    run(main)

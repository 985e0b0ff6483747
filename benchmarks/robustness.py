"""What a fold's Dice does not show: pictures without a person, and small heads.

    python benchmarks/robustness.py --data_dir data/CelebAMask-HQ data/figaro

Prints the share of pixels called hair in photos without a person (scikit-image's coffee, chelsea and rocket,
scikit-learn's china and flower), and the Dice on held-out photos pasted onto those photos, at several sizes.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from sklearn.datasets import load_sample_image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evaluate import choose_photos, markdown, pd
from inference import DEFAULT_WEIGHTS, HairSegmenter


def pictures_without_people() -> dict[str, np.ndarray]:
    """Five photos, RGB uint8, that no training here has seen."""
    pictures = {name: getattr(skimage.data, name)() for name in ("coffee", "chelsea", "rocket")}
    return pictures | {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}


def paste_at(image: np.ndarray, mask: np.ndarray, canvas: np.ndarray, share: float, rng: np.random.Generator) -> tuple:
    """A photo at `share` of the canvas's width at a random place of it, and the mask of the whole."""
    scale = min(share * canvas.shape[1] / image.shape[1], canvas.shape[0] / image.shape[0])
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    left, top = (int(rng.integers(0, space - side + 1)) for space, side in zip(canvas.shape[1::-1], size, strict=True))
    window = np.s_[top : top + size[1], left : left + size[0]]
    canvas, whole = canvas.copy(), np.zeros(canvas.shape[:2], np.uint8)
    canvas[window] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    whole[window] = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return canvas, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", required=True, help="whose held-out photos are pasted")
    parser.add_argument("--weights", type=Path, nargs="+", default=[DEFAULT_WEIGHTS], help="run folders")
    parser.add_argument("--img_size", type=int, help="default: the weights' own")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--multi_scale", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--limit", type=int, default=40, help="photos of each data set (default: 40)")
    args = parser.parse_args()

    pictures = pictures_without_people()
    canvases = [cv2.resize(p, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for p in pictures.values()]
    table = []
    for weights in args.weights:
        segmenter = HairSegmenter(weights, args.backend, img_size=args.img_size, multi_scale=args.multi_scale)
        threshold = segmenter.threshold
        row = {"weights": weights.name, "img_size": segmenter.img_size}
        row |= {f"{name} %": 100 * float((segmenter(p) >= threshold).mean()) for name, p in pictures.items()}
        for share in (1 / 2, 1 / 4, 1 / 8):
            rng = np.random.default_rng(0)
            both = total = 0
            for folder in args.data_dir:
                photos = choose_photos(folder, segmenter, "valid", None)
                for k, i in enumerate(rng.permutation(len(photos))[: args.limit]):
                    photo, hair = paste_at(*photos.load(i), canvases[k % len(canvases)], share, rng)
                    found = segmenter(photo) >= threshold
                    both += 2 * int((found & (hair > 0)).sum())
                    total += int(found.sum()) + int(hair.sum())
            row[f"Dice at 1/{round(1 / share)}"] = both / total
        table.append(row)
    print(markdown(pd.DataFrame(table)))


if __name__ == "__main__":
    main()

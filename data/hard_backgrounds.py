"""Pick the backgrounds that a trained model takes for hair, to show them more often in a further training.

    python data/hard_backgrounds.py --weights weights/<run>
    python train_celeb.py --weights weights/<run> --backgrounds data/backgrounds data/hard_backgrounds ...

Each is looked at as a whole and in close-up, as training shows it. What is picked is linked, not copied.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dataset import open_backgrounds  # noqa: E402
from inference import HairSegmenter  # noqa: E402
from pictures import read_image  # noqa: E402
from utils import HelpFormatter, UserError, new_folder, number, run  # noqa: E402


def share_of_hair(segmenter: HairSegmenter, path: Path) -> float:
    """The share of a picture's pixels called hair, in [0, 1]: of the whole or of its middle, whichever is more."""
    picture = read_image(path)
    height, width = picture.shape[:2]
    middle = picture[height // 4 : max(1, height * 3 // 4), width // 4 : max(1, width * 3 // 4)].copy()
    return max(float((found >= segmenter.threshold).mean()) for found in segmenter.predict_batch([picture, middle]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a run folder")
    default = [str(ROOT / "data/backgrounds")]
    parser.add_argument("--backgrounds", nargs="+", default=default, help="folders to choose from")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "data/hard_backgrounds", help="a new folder")
    parser.add_argument(
        "--least", type=number(float, 0, 1), default=0.02, help="share of hair of those that are picked"
    )
    args = parser.parse_args()

    paths = open_backgrounds(args.backgrounds)
    try:
        segmenter = HairSegmenter(args.weights, multi_scale=False)
    except ValueError as error:
        raise UserError(str(error)) from error
    with new_folder(args.output_dir) as folder:
        picked = [path for path in tqdm(paths, unit="picture") if share_of_hair(segmenter, path) >= args.least]
        if not picked:
            raise UserError(f"none of the {len(paths)} pictures has {args.least:g} of hair; try a lower --least")
        for i, path in enumerate(picked):  # folders may hold files of the same name
            (folder / f"{i:04d}{path.suffix}").symlink_to(path.resolve())
    print(f"{len(picked)} of {len(paths)} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)

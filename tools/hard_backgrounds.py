"""Select the backgrounds in which a trained model finds hair, to show them more often in further training.

    python -m tools.hard_backgrounds --weights weights/<run>
    python train_celeb.py --weights weights/<run> --backgrounds data/backgrounds data/hard_backgrounds ...

Each picture is scored as a whole and in close-up, as in training. The selected ones are linked, not copied.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from dataset import open_backgrounds
from hair import HairSegmenter, read_photo
from hair.cli import HelpFormatter, number
from hair.errors import UserError, run
from hair.files import new_folder


def share_of_hair(segmenter: HairSegmenter, path: Path) -> float:
    """The fraction of pixels marked as hair, in [0, 1], of the whole picture or of its middle, whichever is higher."""
    picture = read_photo(path)
    height, width = picture.shape[:2]
    middle = picture[height // 4 : max(1, height * 3 // 4), width // 4 : max(1, width * 3 // 4)].copy()
    return max(float((found >= segmenter.threshold).mean()) for found in segmenter.predict_batch([picture, middle]))


def main() -> None:
    """Select the pictures. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="a run folder")
    parser.add_argument("--backgrounds", nargs="+", default=["data/backgrounds"], help="folders to choose from")
    parser.add_argument("--output_dir", type=Path, default=Path("data/hard_backgrounds"), help="a new folder")
    parser.add_argument(
        "--least", type=number(float, 0, 1), default=0.02, help="select pictures with at least this fraction of hair"
    )
    args = parser.parse_args()

    paths = open_backgrounds(args.backgrounds)
    segmenter = HairSegmenter(args.weights, multi_scale=False)
    with new_folder(args.output_dir) as folder:
        chosen = [path for path in tqdm(paths, unit="picture") if share_of_hair(segmenter, path) >= args.least]
        if not chosen:
            raise UserError(f"none of the {len(paths)} pictures reaches --least {args.least:g}; try a lower value")
        for i, path in enumerate(chosen):  # numbered, because folders may contain files with the same name
            (folder / f"{i:04d}{path.suffix}").symlink_to(path.resolve())
    print(f"{len(chosen)} of {len(paths)} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)

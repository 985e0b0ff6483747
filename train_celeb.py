"""Train on CelebAMask-HQ, or on any folder with image/ and mask/.

python train_celeb.py --data_dir data/CelebAMask-HQ --apex --num_workers 4
python train_celeb.py --img_size 256 --epochs 3 --limit 500          # a quick look
python train_celeb.py --resume                                       # go on after a stop
torchrun --nproc_per_node=4 train_celeb.py --apex --num_workers 4    # on four GPUs
"""

import argparse
from pathlib import Path

from utils import parse_training, run, training_parser


def build_parser() -> argparse.ArgumentParser:
    return training_parser(__doc__, data_dir="data/CelebAMask-HQ", name="celeb")


def main() -> None:
    args = parse_training(build_parser())

    import dataset  # the heavy imports come after the flags, so that --help and a mistyped flag answer at once
    import engine

    engine.train(args, lambda: [dataset.open_folder(Path(folder)) for folder in args.data_dir])


if __name__ == "__main__":
    run(main)

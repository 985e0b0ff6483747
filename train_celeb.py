"""Train on CelebAMask-HQ, or on your own photos with masks or labels.

python train_celeb.py --data_dir data/CelebAMask-HQ --apex --num_workers 4
python train_celeb.py --img_size 256 --epochs 3 --limit 500          # a quick run
python train_celeb.py --resume                                       # continue after a stop
torchrun --nproc_per_node=4 train_celeb.py --apex --num_workers 4    # on four GPUs
"""

import argparse

from hair.errors import run
from training.flags import parse_training, plan_from, training_parser
from training.sources import source_of
from training.stops import imports


def build_parser() -> argparse.ArgumentParser:
    return training_parser(__doc__, data_dir="data/CelebAMask-HQ", name="celeb")


def main() -> None:
    plan = plan_from(parse_training(build_parser()))

    with imports():  # torch takes seconds to import, so it comes after --help and mistyped flags
        import dataset
        from training.fit import train

    train(plan, lambda: [dataset.open_data(source_of(text)[0], None, plan.hair_label) for text in plan.data_dir])


if __name__ == "__main__":
    run(main)

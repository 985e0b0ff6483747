"""Train on the Korean salon photos (niahair/ganhackerton).

python train_korean.py --preset light --apex --num_workers 4
python train_korean.py --img_size 256 --epochs 3 --limit 2000                         # a quick run
python train_korean.py --preset light --resume                                        # continue after a stop
torchrun --nproc_per_node=4 train_korean.py --preset heavy --apex --num_workers 4     # on four GPUs
"""

import argparse

from hair.errors import run
from training.flags import parse_training, plan_from, training_parser
from training.sources import source_of
from training.stops import imports

PRESETS = {
    "light": {"name": "light", "epochs": 10, "encoder_type": "timm-efficientnet-b0", "augment": "light"},
    "heavy": {"name": "heavy", "epochs": 20, "encoder_type": "se_resnext101_32x4d", "augment": "heavy"},
}


def build_parser() -> argparse.ArgumentParser:
    usage = __doc__
    for name, flags in PRESETS.items():
        usage += f"\n--preset {name}: " + " ".join(f"--{key} {value}" for key, value in flags.items())
    parser = training_parser(usage, data_dir="data/ganhackerton", name="light")
    parser.add_argument(
        "--preset", choices=PRESETS, help="use the flags listed above; flags that you give override them"
    )
    parser.add_argument("--filter", metavar="QUERY", help="a pandas query on the labels, such as \"length == '장발'\"")
    parser.add_argument("--strict", action="store_true", help="stop if a row of the CSV files cannot be used")
    return parser


def main() -> None:
    args = parse_training(build_parser(), presets=PRESETS)
    plan = plan_from(args)

    with imports():  # torch takes seconds to import, so it comes after --help and mistyped flags
        import dataset
        from training.fit import train

    folders = [source_of(text)[0] for text in plan.data_dir]
    train(plan, lambda: [dataset.open_korean(folder, args.filter, args.strict) for folder in folders])


if __name__ == "__main__":
    run(main)

"""Train on CelebAMask-HQ, or on any folder with image/ and mask/.

python train_celeb.py --data_dir data/CelebAMask-HQ --apex --num_workers 4
python train_celeb.py --img_size 256 --epochs 3 --limit 500          # a quick look
python train_celeb.py --resume                                       # go on after a stop
"""

from pathlib import Path

from utils import parse_training, run, training_parser


def main() -> None:
    parser = training_parser(__doc__, data_dir="data/CelebAMask-HQ")
    parser.add_argument("--name", default="celeb", help="ends the run folder's name")
    args = parse_training(parser)

    import dataset  # the heavy imports come after the flags, so that --help and a mistyped flag answer at once
    import engine

    indexes = [dataset.open_folder(Path(folder)) for folder in args.data_dir]
    engine.fit(args, args.name, *dataset.split(indexes, args.fold, args.n_folds, args.limit))


if __name__ == "__main__":
    run(main)

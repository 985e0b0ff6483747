"""Average the weights of trained models of the same network, and write them as a run folder in float16.

python -m tools.average --output_dir weights/average weights/one=0.7 weights/two=0.3
python -m tools.average --output_dir weights/half weights/one=1             # only converts to float16

The average of several stages of a training, or of models fine-tuned from the same weights, often generalises better
than each of them (Wortsman et al., "Model soups", ICML 2022, https://arxiv.org/abs/2203.05482).
"""

import argparse
from pathlib import Path

from hair.cli import HelpFormatter, number
from hair.errors import UserError, run

OF_ONE_RUN = ("epoch", "scores")  # metadata that do not apply to an average


def share_of(text: str) -> tuple[Path, float]:
    """An argparse type: `RUN=SHARE`."""
    folder, _, share = text.rpartition("=")
    try:
        return Path(folder), float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not RUN=SHARE") from None


def average(shares: list[tuple[Path, float]], output_dir: Path, img_size: int | None) -> None:
    """Write the weighted average of the weights in several run folders.

    Args:
        shares: run folders with their shares, which add up to 1.
        output_dir: the run folder to write.
        img_size: input size to store, in pixels; that of the last run folder if None.

    Raises:
        UserError: shares that do not add up to 1, folders that cannot be loaded, different networks.
    """
    import models  # slow, so not before --help is printed

    if abs(sum(share for _, share in shares) - 1) > 1e-6:
        raise UserError("the shares must add up to 1")
    mean: dict = {}
    for folder, share in shares:
        model, facts = models.load_model(folder)
        tensors = model.state_dict()
        if mean and {key: t.shape for key, t in tensors.items()} != {key: t.shape for key, t in mean.items()}:
            raise UserError(f"{folder}: not the same network as {shares[0][0]}")
        for key, tensor in tensors.items():
            mean[key] = mean.get(key, 0) + share * tensor.double()
    model.load_state_dict(mean)
    if len(shares) > 1:
        facts = {name: fact for name, fact in facts.items() if name not in OF_ONE_RUN}
    models.save_model(model, output_dir, facts | {"img_size": img_size or facts["img_size"]}, half=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("shares", type=share_of, nargs="+", metavar="RUN=SHARE", help="run folders and their shares")
    parser.add_argument("--output_dir", type=Path, required=True, help="the run folder to write")
    parser.add_argument("--img_size", type=number(int, 32), help="input size to store (default: the last run's)")
    args = parser.parse_args()
    average(args.shares, args.output_dir, args.img_size)
    print(args.output_dir)


if __name__ == "__main__":
    run(main)

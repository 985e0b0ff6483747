"""The results table: run folders scored on the fold that they held out, with their size and their speed.

    python -m benchmarks.table --data_dir data/CelebAMask-HQ --weights weights/<run> weights/<run> --plot demo/speed.png

Prints a row for each run: Dice, IoU and boundary F1 at the photos' own size (evaluate.py), parameters,
multiply-accumulate operations (GMAC) and ONNX Runtime's milliseconds for one photo. The networks take turns, so that
their times compare.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from hair import HairSegmenter
from hair.backends import load_torch_model, open_network
from hair.cli import HelpFormatter, number
from hair.errors import run
from training.exporting import export_onnx, portable_facts, time_in_turns
from training.scoring import choose_photos, markdown, score_photos, summarise


def gmac(model: torch.nn.Module, size: int) -> float:
    """Billions of multiply-accumulate operations for one photo of size × size pixels."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def draw_plot(table: pd.DataFrame, path: Path) -> None:
    """Plot Dice against milliseconds, a point for each network. Raises OSError."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(table["ms"], table["dice"])
    for i, row in table.iterrows():
        offset = (5, 4 if i % 2 else -11)
        axes.annotate(row["network"], (row["ms"], row["dice"]), xytext=offset, textcoords="offset points", fontsize=7)
    axes.set(xlabel="milliseconds, ONNX Runtime", ylabel="Dice")
    axes.margins(x=0.4, y=0.15)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="data set whose held-out photos are scored")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--speed_size", type=number(int, 32), default=512, help="pixels for GMAC and milliseconds")
    parser.add_argument("--plot", type=Path, help="write a plot of Dice against milliseconds to this file")
    args = parser.parse_args()
    rows, networks = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for i, weights in enumerate(args.weights):
            model, facts = load_torch_model(weights)
            file = Path(folder) / f"{i}.onnx"
            export_onnx(model, file, portable_facts(weights, model, facts, None))
            networks[i] = open_network(file, "onnx", "cpu")
            segmenter = HairSegmenter(file, "onnx", multi_scale=False)
            scores = summarise(score_photos(segmenter, choose_photos(args.data_dir, segmenter), 0.5))
            encoder = model.config["encoder_name"].removeprefix("timm-").removeprefix("tf_")
            rows.append(
                {
                    "network": f"{encoder} {type(model).__name__}",
                    "img_size": segmenter.img_size,
                    **{key: scores[key] for key in ("dice", "iou", "boundary_f1")},
                    "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M",
                    "GMAC": round(gmac(model, args.speed_size), 2),
                }
            )
        times = time_in_turns(networks, np.zeros((1, 3, args.speed_size, args.speed_size), np.float32))
    table = pd.DataFrame(rows).assign(ms=[round(times[i]) for i in networks])
    print(markdown(table.assign(GMAC=table["GMAC"].astype(str))))
    if args.plot:
        draw_plot(table, args.plot)


if __name__ == "__main__":
    run(main)

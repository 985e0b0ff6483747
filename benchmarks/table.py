"""The results table: run folders scored on the fold that they held out, with their size and their speed.

    python benchmarks/table.py --data_dir data/CelebAMask-HQ --weights weights/<run> weights/<run> --plot demo/speed.png

Prints a row a run: Dice, IoU and boundary F1 at the photos' own size (evaluate.py), parameters, multiplications and
additions (GMAC) and ONNX Runtime's milliseconds for one photo. All networks take turns, so the times compare.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import export
import models
from backends import open_network
from evaluate import choose_photos, markdown, score_photos, summarise
from inference import HairSegmenter


def gmac(model: torch.nn.Module, size: int) -> float:
    """Billions of multiplications with an addition for one photo of size × size."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() / 2e9


def draw_plot(table: pd.DataFrame, path: Path) -> None:
    """Dice against milliseconds, a point a network."""
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.scatter(table["ms"], table["dice"])
    for number, row in table.iterrows():
        place = {"xytext": (5, 4 if number % 2 else -11), "textcoords": "offset points"}
        axes.annotate(row["network"], (row["ms"], row["dice"]), fontsize=7, **place)
    axes.set(xlabel="milliseconds, ONNX Runtime", ylabel="Dice")
    axes.margins(x=0.4, y=0.15)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="whose held-out photos are scored")
    parser.add_argument("--weights", type=Path, nargs="+", required=True, help="run folders")
    parser.add_argument("--speed_size", type=int, default=512, help="pixels for GMAC and milliseconds (default: 512)")
    parser.add_argument("--plot", type=Path, help="draw Dice against milliseconds there")
    args = parser.parse_args()
    rows, networks = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for number, weights in enumerate(args.weights):
            model, facts = models.load_model(weights)
            file = Path(folder) / f"{number}.onnx"
            own = export.portable_facts(weights, model, facts, None)
            export.export_onnx(model, file, own)
            networks[number] = open_network(file, "onnx", "cpu")
            segmenter = HairSegmenter(file, "onnx", multi_scale=False)
            scores = summarise(score_photos(segmenter, choose_photos(args.data_dir, segmenter, "valid", None), 0.5))
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
        times = export.time_in_turns(networks, np.zeros((1, 3, args.speed_size, args.speed_size), np.float32))
    table = pd.DataFrame(rows).assign(ms=[round(times[number]) for number in networks])
    print(markdown(table.assign(GMAC=table["GMAC"].astype(str))))
    if args.plot:
        draw_plot(table, args.plot)


if __name__ == "__main__":
    main()

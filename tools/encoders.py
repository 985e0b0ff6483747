"""Make the table of encoders and decoders in docs/training.md and docs/training.ko.md by building every pair.

python -m tools.encoders            # names the pages that are out of date; exit status 1 if there is one; takes minutes
python -m tools.encoders --write    # updates the tables
"""

import argparse
import sys
from pathlib import Path

import segmentation_models_pytorch as smp
from tqdm import tqdm

import models
from hair.cli import HelpFormatter
from hair.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "docs" / "training.md", ROOT / "docs" / "training.ko.md"]
START, END = "<!-- encoders, by python -m tools.encoders -->\n", "<!-- end of encoders -->\n"
SIZE = 128  # pixels of --img_size
TIMM = (  # a sample of its families
    "tu-convnext_tiny",
    "tu-convnextv2_atto",
    "tu-efficientnetv2_rw_t",
    "tu-hrnet_w18_small",
    "tu-maxvit_tiny_tf_224",
    "tu-mobilenetv3_small_100",
    "tu-mobilenetv4_conv_small",
    "tu-regnety_002",
    "tu-resnet18",
    "tu-swin_tiny_patch4_window7_224",
    "tu-swinv2_cr_tiny_224",
    "tu-tf_efficientnet_lite0",
    "tu-vit_tiny_patch16_224",
)


def fits(encoder: str, decoder: str) -> bool:
    """Whether a pair can be trained at SIZE."""
    try:
        models.check_fit(encoder, decoder, [SIZE])
    except UserError:
        return False
    return True


def row(encoder: str) -> tuple[str, ...]:
    """Of each decoder in `models.DECODERS`: ✓ or –."""
    return tuple("✓" if fits(encoder, decoder) else "–" for decoder in models.DECODERS)


def table(rows: dict[str, tuple[str, ...]]) -> str:
    """A Markdown table in which encoders with equal rows share one."""
    shared: dict[tuple[str, ...], list[str]] = {}
    for encoder, marks in rows.items():
        shared.setdefault(marks, []).append(f"`{encoder}`")
    lines = [("encoders", *models.DECODERS), ("---",) * (1 + len(models.DECODERS))]
    lines += [(", ".join(encoders), *marks) for marks, encoders in shared.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def stated(text: str) -> dict[str, tuple[str, ...]]:
    """The rows of a page's table, by encoder."""
    body = text[text.index(START) + len(START) : text.index(END)]
    cells = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in body.splitlines() if "`" in line]
    return {name.strip("`"): tuple(marks) for names, *marks in cells for name in names.split(", ")}


def update(text: str, rows: dict[str, tuple[str, ...]]) -> str:
    """A page's text with a new table."""
    before, after = text.index(START) + len(START), text.index(END)
    return f"{text[:before]}\n{table(rows)}\n{text[after:]}"


def main() -> None:
    """Compare or update the pages. Exit status 1 if one is out of date and --write is not given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--write", action="store_true", help="update the tables")
    write = parser.parse_args().write
    rows = {encoder: row(encoder) for encoder in tqdm([*smp.encoders.encoders, *TIMM], unit="encoder")}
    outdated = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        if update(text, rows) != text:
            outdated.append(path.name)
            if write:
                path.write_text(update(text, rows), encoding="utf-8")
    if outdated and write:
        print(f"updated: {', '.join(outdated)}")
    elif outdated:
        sys.exit(f"out of date: {', '.join(outdated)}; python -m tools.encoders --write")


if __name__ == "__main__":
    main()

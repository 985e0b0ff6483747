"""Find the hair in photos and videos.

    python inference.py --num 1                       # demo/1.jpg -> result/1_overlay.png and result/1_mask.png
    python inference.py me.jpg holiday/ "*.png" clip.mp4 --save overlay alpha json
    python inference.py me.jpg --save recolor --color auburn
    python inference.py me.jpg --weights weights/<run>    # your own model: a run folder or an exported file

From Python:

    from inference import HairSegmenter
    probabilities = HairSegmenter()("me.jpg")         # float32 (H, W) in [0, 1]
"""

import argparse
from pathlib import Path

from hair import HairSegmenter, cli, read_photo
from hair.errors import run

__all__ = ["HairSegmenter", "read_photo"]
DEMO = Path(__file__).resolve().parent / "demo"


def build_parser() -> argparse.ArgumentParser:
    return cli.build_parser(__doc__, DEMO)


def main() -> None:
    cli.main(__doc__, DEMO)


if __name__ == "__main__":
    run(main)

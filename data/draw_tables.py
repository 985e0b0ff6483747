"""Draw wooden tables with crockery as further --backgrounds: grain in hair's colours is taken for hair.

    python data/draw_tables.py
    python train_celeb.py --backgrounds data/backgrounds data/tables ...

The table is drawn; what is seen beyond its edge is one of the pictures of data/make_backgrounds.py, out of focus.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dataset import open_backgrounds  # noqa: E402
from pictures import read_image  # noqa: E402
from render import encode  # noqa: E402
from utils import HelpFormatter, new_folder, number, run  # noqa: E402

SIDE = 640  # of a picture
BOARD = 1024  # of the table's top before it is turned and seen from an angle


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Normal noise on a grid of (rows, columns) cells, interpolated to float32 (size, size)."""
    return cv2.resize(rng.normal(size=cells).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def wood(rng: np.random.Generator) -> np.ndarray:
    """The top of a table, RGB float32 (BOARD, BOARD, 3): noise drawn out along the grain, in one hue."""
    grain = np.zeros((BOARD, BOARD), np.float32)
    for rows in (BOARD // 40, BOARD // 12, BOARD // 4, BOARD):
        grain += smooth_noise(rng, (rows, max(2, rows // int(rng.integers(12, 40)))), BOARD)
    y, x = np.mgrid[:BOARD, :BOARD].astype(np.float32)
    bent = y + rng.uniform(0, BOARD / 80) * smooth_noise(rng, (4, 4), BOARD)
    grain = cv2.remap(grain, x, bent, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    hue = np.cumprod([rng.uniform(50, 230), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.9)])  # brown: R > G > B
    boards = np.repeat(rng.uniform(0.8, 1.1, 16), BOARD // 16) if rng.random() < 0.4 else np.ones(BOARD)
    return (hue * boards[:, None, None] * (1 + rng.uniform(0.04, 0.16) * grain[..., None])).astype(np.float32)


def put_on_table(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw something round into a picture, in place: a saucer, a cup and what is in it, with a shadow."""
    center, radius = rng.uniform(0.1, 0.9, 2) * SIDE, rng.uniform(0.08, 0.4) * SIDE
    flat = rng.uniform(0.5, 1)

    def disc(middle: np.ndarray, radius: float) -> np.ndarray:
        box = (tuple(middle.tolist()), (2 * radius, 2 * radius * flat), 0)
        return cv2.ellipse(np.zeros((SIDE, SIDE), np.float32), box, 1, -1, cv2.LINE_AA)[..., None]

    shadow = cv2.GaussianBlur(disc(center + 0.12 * radius, radius), (0, 0), radius / 8)[..., None]
    picture *= 1 - rng.uniform(0.2, 0.7) * shadow
    for _ in range(rng.integers(1, 5)):
        white = np.full(3, rng.uniform(150, 240))
        color = white if rng.random() < 0.4 else rng.uniform(0, 255, 3) * rng.uniform(0.2, 1)
        shade = cv2.resize(rng.uniform(0.6, 1.2, (2, 2)).astype(np.float32), (SIDE, SIDE))
        picture += disc(center, radius) * (color.astype(np.float32) * shade[..., None] - picture)
        radius *= rng.uniform(0.5, 0.95)
        center = center + rng.uniform(-0.1, 0.1, 2) * radius


def draw_table(room: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A table in a room, and up to three things on it.

    Args:
        room: any picture without people, RGB uint8 (H, W, 3).
        rng: decides on all else.

    Returns:
        RGB uint8 (SIDE, SIDE, 3).
    """
    corners = np.array([[0, 0], [BOARD, 0], [BOARD, BOARD], [0, BOARD]], np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    seen = (corners - BOARD / 2) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    seen *= rng.uniform(0.7, 2.0) * SIDE / BOARD * np.array([1, rng.uniform(0.4, 1)])
    seen += (0.5 + rng.uniform(-0.35, 0.35, 2) + rng.uniform(-0.1, 0.1, (4, 2))) * SIDE
    view = cv2.getPerspectiveTransform(corners, seen.astype(np.float32))
    picture = cv2.resize(room, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(1, 20)) * rng.uniform(0, 1)
    cover = cv2.warpPerspective(np.ones((BOARD, BOARD), np.float32), view, (SIDE, SIDE))[..., None]
    picture += cover * (cv2.warpPerspective(wood(rng), view, (SIDE, SIDE)) - picture)
    light = cv2.resize(rng.uniform(0.3, 1.5, (3, 3)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    picture *= light[..., None]
    for _ in range(rng.integers(0, 4)):
        put_on_table(picture, rng)
    return picture.clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    default = [str(ROOT / "data/backgrounds")]
    parser.add_argument("--backgrounds", nargs="+", default=default, help="folders with pictures to stand in")
    parser.add_argument("--output_dir", type=Path, default=ROOT / "data/tables", help="a new folder")
    parser.add_argument("--number", type=number(int, 1), default=1000, help="of tables")
    args = parser.parse_args()

    rooms, rng = open_backgrounds(args.backgrounds), np.random.default_rng(0)
    with new_folder(args.output_dir) as folder:
        for i in tqdm(range(args.number), unit="picture"):
            room = read_image(rooms[rng.integers(len(rooms))])
            (folder / f"{i:04d}.jpg").write_bytes(encode(draw_table(room, rng), ".jpg"))
    print(f"{args.number} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)

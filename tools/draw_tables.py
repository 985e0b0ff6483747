"""Draw wooden tables with dishes for the training scripts' --backgrounds: models mistake wood grain for hair.

    python -m tools.draw_tables
    python train_celeb.py --backgrounds data/backgrounds data/tables ...

Behind each drawn table is a picture from tools/make_backgrounds.py, out of focus.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from dataset import open_backgrounds
from hair import read_photo
from hair.cli import HelpFormatter, number
from hair.errors import run
from hair.files import encode_picture, new_folder

SIDE = 640  # of a picture, in pixels
BOARD = 1024  # of the table top before the perspective, in pixels
BOARDS = 16  # number of boards, for a table made of boards
BOARDS_PROBABILITY = 0.4  # that a table is made of boards of different brightness
WHITE_PROBABILITY = 0.4  # that a dish is white or grey


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int], size: int) -> np.ndarray:
    """Normal noise on a grid of (rows, columns) cells, interpolated to float32 (size, size)."""
    return cv2.resize(rng.normal(size=cells).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)


def wood(rng: np.random.Generator) -> np.ndarray:
    """Draw a table top, RGB float32 (BOARD, BOARD, 3): noise in one hue, stretched along the grain."""
    grain = np.zeros((BOARD, BOARD), np.float32)
    for rows in (BOARD // 40, BOARD // 12, BOARD // 4, BOARD):
        grain += smooth_noise(rng, (rows, max(2, rows // int(rng.integers(12, 40)))), BOARD)
    y, x = np.mgrid[:BOARD, :BOARD].astype(np.float32)
    bent = y + rng.uniform(0, BOARD / 80) * smooth_noise(rng, (4, 4), BOARD)
    grain = cv2.remap(grain, x, bent, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    hue = np.cumprod([rng.uniform(50, 230), rng.uniform(0.4, 0.8), rng.uniform(0.4, 0.9)])  # brown: R > G > B
    brightness = np.ones(BOARD)
    if rng.random() < BOARDS_PROBABILITY:
        brightness = np.repeat(rng.uniform(0.8, 1.1, BOARDS), BOARD // BOARDS)
    return (hue * brightness[:, None, None] * (1 + rng.uniform(0.04, 0.16) * grain[..., None])).astype(np.float32)


def put_on_table(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw round objects with a shadow into a picture, in place: a saucer, a cup and its contents."""
    center, radius = rng.uniform(0.1, 0.9, 2) * SIDE, rng.uniform(0.08, 0.4) * SIDE
    flat = rng.uniform(0.5, 1)

    def disc(middle: np.ndarray, radius: float) -> np.ndarray:
        box = (tuple(middle.tolist()), (2 * radius, 2 * radius * flat), 0)
        return cv2.ellipse(np.zeros((SIDE, SIDE), np.float32), box, 1, -1, cv2.LINE_AA)[..., None]

    shadow = cv2.GaussianBlur(disc(center + 0.12 * radius, radius), (0, 0), radius / 8)[..., None]
    picture *= 1 - rng.uniform(0.2, 0.7) * shadow
    for _ in range(rng.integers(1, 5)):
        white = np.full(3, rng.uniform(150, 240))
        is_white = rng.random() < WHITE_PROBABILITY
        color = white if is_white else rng.uniform(0, 255, 3) * rng.uniform(0.2, 1)
        shade = cv2.resize(rng.uniform(0.6, 1.2, (2, 2)).astype(np.float32), (SIDE, SIDE))
        picture += disc(center, radius) * (color.astype(np.float32) * shade[..., None] - picture)
        radius *= rng.uniform(0.5, 0.95)
        center = center + rng.uniform(-0.1, 0.1, 2) * radius


def draw_table(room: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a table in a room, with up to three objects on it.

    Args:
        room: any picture without people, RGB uint8 (H, W, 3).
        rng: random generator for everything else.

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
    """Draw the tables. Raises OSError or UserError."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument(
        "--backgrounds", nargs="+", default=["data/backgrounds"], help="folders of pictures to show behind the tables"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("data/tables"), help="a new folder")
    parser.add_argument("--number", type=number(int, 1), default=1000, help="number of pictures")
    args = parser.parse_args()

    rooms, rng = open_backgrounds(args.backgrounds), np.random.default_rng(0)
    with new_folder(args.output_dir) as folder:
        for i in tqdm(range(args.number), unit="picture"):
            room = read_photo(rooms[rng.integers(len(rooms))])
            (folder / f"{i:04d}.jpg").write_bytes(encode_picture(draw_table(room, rng), ".jpg"))
    print(f"{args.number} pictures in {args.output_dir}")


if __name__ == "__main__":
    run(main)

"""How well dyed hair meets the dye, on photos whose hair is known.

    python -m benchmarks.dye --data_dir data/figaro data/CelebAMask-HQ

Each folder has `image/` and `mask/`, or is CelebAMask-HQ as downloaded. Photos are grouped by the mean colour of their
hair. For each group and dye at full strength the table gives:

    dE00      CIEDE2000 between the dye and the mean colour (CIELAB) of sure hair: mean, worst, share within 12
    spread    standard deviation of lightness after ÷ before: median, worst
    of room   the same ÷ the room that the dye leaves towards black and white beside the photo's own, at most 1: worst
    outside   pixels changed where there is surely no hair, in all photos

Then the time at 12 megapixels, with bleach beside without, in turns.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from hair import read_photo
from hair.cli import HelpFormatter, number
from hair.colors import parse_color, to_lab
from hair.dye import Dye, recolor
from hair.errors import UserError, run

DYES = ("black", "dark brown", "auburn", "copper", "blond", "platinum", "pink", "blue")
GROUPS = ("blond", "brown", "black")
WITHIN = 12  # dE00 up to which hair has the dye's colour
MASK_BLUR = 0.004  # of the longer side: masks have steps, networks give edges about this soft
SURE = 0.01  # of the longer side: hair that is this far within the mask is sure
MIN_HAIR = 0.02  # share of the photo
LARGE = (4000, 3000)  # height and width, for the times


def pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Photos and masks of a folder. Raises UserError for a folder of neither layout."""
    if (folder / "image").is_dir() and (folder / "mask").is_dir():
        masks = {path.stem: path for path in (folder / "mask").iterdir()}
        photos = sorted((folder / "image").iterdir())
        yield from ((path, masks[path.stem]) for path in photos if path.stem in masks)
    elif (folder / "CelebA-HQ-img").is_dir():
        masks = {int(path.name.split("_")[0]): path for path in folder.glob("CelebAMask-HQ-mask-anno/*/*_hair.png")}
        photos = sorted((folder / "CelebA-HQ-img").glob("*.jpg"), key=lambda path: int(path.stem))
        yield from ((path, masks[int(path.stem)]) for path in photos if int(path.stem) in masks)
    else:
        raise UserError(f"{folder}: neither image/ and mask/ nor CelebAMask-HQ as downloaded")


def read_pair(photo: Path, mask: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo, RGB uint8; the probabilities of its hair, float32, from its mask; its sure hair, bool."""
    image = read_photo(photo)
    hair = (cv2.resize(read_photo(mask)[..., 0], image.shape[1::-1]) > 127).astype(np.uint8)
    side = max(hair.shape)
    probabilities = cv2.GaussianBlur(hair.astype(np.float32), (0, 0), MASK_BLUR * side)
    window = np.ones([2 * max(1, round(SURE * side)) + 1] * 2, np.uint8)
    return image, probabilities.clip(0, 1), cv2.erode(hair, window) > 0


def group(color: Sequence[float] | np.ndarray) -> str | None:
    """The group of a mean colour in CIELAB, of hair that clearly belongs to one."""
    lightness, a, b = color
    chroma = float(np.hypot(a, b))
    if lightness <= 14 and chroma <= 8:
        return "black"
    if 20 <= lightness <= 40 and chroma >= 12 and b > 8:
        return "brown"
    if 50 <= lightness <= 78 and b >= 14:
        return "blond"
    return None


def choose(folders: Sequence[Path], count: int) -> dict[str, list[tuple[Path, Path]]]:
    """`count` photos of each group, evenly over the folders and within each. Raises UserError where they are fewer."""
    chosen: dict[str, list[tuple[Path, Path]]] = {name: [] for name in GROUPS}
    for done, folder in enumerate(folders):
        found: dict[str, list[tuple[Path, Path]]] = {name: [] for name in GROUPS}
        for pair in pairs(folder):
            image, _, sure = read_pair(*pair)
            name = group(to_lab(image)[sure].mean(axis=0)) if sure.mean() >= MIN_HAIR else None
            if name:
                found[name].append(pair)
        for name, all_of_it in found.items():
            wanted = (count - len(chosen[name])) // (len(folders) - done)
            places = np.linspace(0, len(all_of_it) - 1, min(wanted, len(all_of_it))).round().astype(int)
            chosen[name] += [all_of_it[place] for place in places]
    for name, photos in chosen.items():
        if not photos:
            raise UserError(f"--data_dir: no photo of {name} hair")
    return chosen


def ciede2000(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Difference of two colours in CIELAB (Sharma, Wu, Dalal 2005)."""
    (l1, a1, b1), (l2, a2, b2) = (np.asarray(color, float) for color in (first, second))
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + 25.0**7))
    c1, c2 = np.hypot(stretch * a1, b1), np.hypot(stretch * a2, b2)
    h1, h2 = (np.degrees(np.arctan2(b, stretch * a)) % 360 for a, b in ((a1, b1), (a2, b2)))
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    hue = h1 + turn / 2 if c1 * c2 else h1 + h2
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    t = 1 + sum(
        weight * np.cos(np.radians(factor * hue + shift))
        for weight, factor, shift in ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    )
    from_middle = (lightness - 50) ** 2
    dl = (l2 - l1) / (1 + 0.015 * from_middle / np.sqrt(20 + from_middle))
    dc = (c2 - c1) / (1 + 0.045 * chroma)
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * chroma * t)
    rotation = 30 * np.exp(-((((hue % 360) - 275) / 25) ** 2))
    rt = -2 * np.sqrt(chroma**7 / (chroma**7 + 25.0**7)) * np.sin(np.radians(2 * rotation))
    return float(np.sqrt(dl * dl + dc * dc + dh * dh + rt * dc * dh))


def measure(pair: tuple[Path, Path]) -> dict[str, tuple[float, float, float, int]]:
    """For each dye: dE00, spread of lightness after ÷ before, the same ÷ the room, pixels changed outside."""
    image, probabilities, sure = read_pair(*pair)
    before = to_lab(image)[sure]
    results = {}
    for name in DYES:
        color = parse_color(name)
        dyed = recolor(image, probabilities, 0.5, Dye((color,)))
        after, goal = to_lab(dyed)[sure], to_lab(color)
        spread = float(after[:, 0].std() / before[:, 0].std())
        own, left = (min(lightness, 100 - lightness) for lightness in (float(before[:, 0].mean()), float(goal[0])))
        outside = int((dyed != image).any(axis=2)[probabilities == 0].sum())
        results[name] = ciede2000(after.mean(axis=0), goal), spread, spread / min(1, left / own), outside
    return results


def print_times(photos: Sequence[tuple[Path, Path]], rounds: int) -> None:
    """Seconds at 12 megapixels without bleach and with it, as medians over `photos`."""
    auburn, platinum, blond = (parse_color(name) for name in ("auburn", "platinum", "blond"))
    dyes = {
        "without bleach": Dye((auburn,), bleach=False),
        "auburn": Dye((auburn,)),
        "platinum": Dye((platinum,)),
        "auburn to blond": Dye((auburn, blond)),
        "auburn with highlights": Dye((auburn,), highlights=0.3),
    }
    seconds: dict[str, list[float]] = {name: [] for name in dyes}
    for pair in photos:
        image, probabilities, _ = read_pair(*pair)
        image = cv2.resize(image, LARGE[::-1], interpolation=cv2.INTER_CUBIC)
        probabilities = cv2.resize(probabilities, LARGE[::-1])
        for turn in range(rounds + 1):
            for name, dye in dyes.items():
                start = time.perf_counter()
                recolor(image, probabilities, 0.5, dye)
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    plain = np.median(seconds["without bleach"])
    print(f"\n12 megapixels, {len(photos)} photos:")
    for name, values in seconds.items():
        print(f"  {name:24} {np.median(values):5.2f} s  {np.median(values) / plain:4.1f} ×")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--data_dir", nargs="+", type=Path, required=True, help="folders of photos and masks")
    parser.add_argument("--photos", type=number(int, 1), default=40, help="of each group")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="of the times")
    args = parser.parse_args()
    chosen = choose(args.data_dir, args.photos)
    print("hair   dye         photos   dE00 mean  worst  within   spread median  worst  of room worst  outside")
    for name, photos in chosen.items():
        results = [measure(pair) for pair in photos]
        for dye in DYES:
            error, spread, room, outside = (np.array(column) for column in zip(*(r[dye] for r in results), strict=True))
            within = (error <= WITHIN).mean()
            print(
                f"{name:6} {dye:11} {len(photos):6} {error.mean():11.1f} {error.max():6.1f} {within:7.0%}"
                f" {np.median(spread):15.2f} {spread.min():6.2f} {room.min():14.2f} {outside.sum():8}"
            )
    print_times([photos[0] for photos in chosen.values()], args.rounds)


if __name__ == "__main__":
    run(main)

"""How right and how fast cut-outs and refined edges are.

    python -m benchmarks.cutout
    python -m benchmarks.cutout --data_dir data/figaro data/CelebAMask-HQ --limit 30

Cut-outs are judged on composed photos: hair of a known colour and opacity, with single strands and gaps drawn at its
edge, before a known background. Without `--data_dir` hair and background are drawn and the network's probabilities are
simulated; with it they come from photos with masks, and the shipped network finds the hair. Refined edges are judged on
the photos' own masks. pymatting, if installed (`pip install pymatting`), is compared as well. Errors are in levels of
0 to 255 and in percent of opacity; times are relative, taken in turns.
"""

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from hair.cutout import cut_out, estimate_foreground, place_on
from hair.files import encode_picture
from hair.opacity import hair_opacity, soft_edge
from hair.photos import read_photo
from hair.refine import refine_edges
from hair.segmenter import HairSegmenter
from hair.strips import strips

IMG_SIZE, THRESHOLD = 384, 0.5  # of the simulated network
NEW_BACKGROUNDS = ((0, 0, 0), (255, 255, 255), (0, 170, 60))
LONGEST_STRAND, LONGEST_GAP = 0.09, 0.04  # of the longer side
FOUND = 0.9  # Dice of network and mask from which a photo's hair counts as found


@dataclass(frozen=True)
class Composed:
    """A composed photo.

    Attributes:
        photo: RGB uint8 (H, W, 3).
        hair: the hair's own colour everywhere, RGB uint8 (H, W, 3).
        opacity: of the hair, float32 (H, W) in [0, 1].
    """

    photo: np.ndarray
    hair: np.ndarray
    opacity: np.ndarray


def compose(hair: np.ndarray, background: np.ndarray, opacity: np.ndarray) -> Composed:
    """Lay hair before a background: pictures RGB uint8 (H, W, 3), `opacity` float32 (H, W)."""
    photo = background + opacity[..., None] * (hair.astype(np.float32) - background)
    return Composed(photo.round().astype(np.uint8), hair, opacity)


# ---------------------------------------------------------------------------------------------------- photos


def draw_opacity(mask: np.ndarray, rng: np.random.Generator, strands: int = 150, gaps: int = 80) -> np.ndarray:
    """The opacity of hair with a soft edge, strands that leave it and gaps that enter it.

    Args:
        mask: uint8 (H, W), 0 and 1.
        rng: where from, where to, how long, how wide.
        strands: how many.
        gaps: how many.

    Returns:
        float32 (H, W) in [0, 1].
    """
    side = max(mask.shape)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), side / 640 * rng.uniform(0.7, 2.5))
    inside, outside = cv2.distanceTransform(mask, cv2.DIST_L2, 5), cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    across = np.dstack(np.gradient(cv2.GaussianBlur(inside - outside, (0, 0), side / 60))[::-1])
    edge = np.argwhere(cv2.dilate(mask, np.ones((3, 3), np.uint8)) > mask)
    outward, inward = (
        _draw_curves(edge, direction, count, longest, rng)
        for direction, count, longest in ((-across, strands, LONGEST_STRAND), (across, gaps, LONGEST_GAP))
    )
    opacity = (1 - (1 - soft) * (1 - outward)) * (1 - 0.9 * inward)
    opacity[opacity < 0.01], opacity[opacity > 0.99] = 0, 1
    return opacity


def _draw_curves(
    edge: np.ndarray, direction: np.ndarray, count: int, longest: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw bent lines that become thinner.

    Args:
        edge: points (N, 2), y and x, of which some are beginnings.
        direction: x and y, (H, W, 2), in about which the lines run.
        count: how many.
        longest: share of the longer side.
        rng: which and how.

    Returns:
        float32 (H, W) in [0, 1].
    """
    height, width = direction.shape[:2]
    side, steps, scale = max(height, width), 24, 2
    layer = np.zeros((height * scale, width * scale), np.uint8)
    for y, x in edge[rng.integers(0, len(edge), count)]:
        angle = np.arctan2(direction[y, x, 1], direction[y, x, 0]) + rng.normal(0, 0.9)
        angles = angle + rng.normal(0, 1.2) * np.linspace(0, 1, steps)
        steps_taken = np.c_[np.cos(angles), np.sin(angles)] * side * rng.uniform(0.02, longest) / steps
        start = np.array([x, y]) - side / 80 * np.array([np.cos(angle), np.sin(angle)])
        points = ((start + np.cumsum(steps_taken, 0)) * scale * 16).astype(int).tolist()
        thickest = scale * rng.uniform(0.7, 2.2) * side / 640
        for i in range(steps - 1):
            thickness = max(1, round(thickest * (1 - i / steps)))
            cv2.line(layer, points[i], points[i + 1], 255, thickness, cv2.LINE_AA, 4)
    reduced = cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return cv2.GaussianBlur(reduced, (0, 0), 0.6)


def draw_photo(rng: np.random.Generator, side: int = 512) -> Composed:
    """Striped hair of a random colour before a smooth background of another."""
    mask = np.zeros((side, side), np.uint8)
    cv2.ellipse(mask, (side // 2, side // 2), (side // 4, side // 3), 0, 0, 360, 1, -1)
    stripes = cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), sigmaX=1.2, sigmaY=20)
    cloud = cv2.resize(rng.normal(0, 18, (5, 5, 3)), (side, side), interpolation=cv2.INTER_CUBIC)
    hair = rng.integers(20, 150, 3) + 12 / stripes.std() * stripes[..., None] * np.ones(3)
    background = rng.choice([rng.integers(170, 256, 3), rng.integers(0, 256, 3)]) + cloud
    hair, background = (picture.clip(0, 255).astype(np.uint8) for picture in (hair, background))
    return compose(hair, background, draw_opacity(mask, rng))


def simulate_network(opacity: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (H, W), as of a network that sees the photo at IMG_SIZE and knows no strands."""
    scale = IMG_SIZE / max(opacity.shape)
    small = cv2.resize(opacity, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    solid = cv2.morphologyEx(cv2.morphologyEx(small, cv2.MORPH_OPEN, kernel), cv2.MORPH_CLOSE, kernel)
    return cv2.resize(cv2.GaussianBlur(solid, (0, 0), 1.2), opacity.shape[::-1]).clip(0, 1)


def take_apart(photo: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Composed | None:
    """Compose a photo anew: its hair, continued beyond its edge, before what lies around it, continued below it.

    Args:
        photo: RGB uint8 (H, W, 3).
        mask: uint8 (H, W), 0 and 1.
        rng: for strands and gaps.

    Returns:
        The photo, or None where hardly anything is hair, or hardly anything is not.
    """
    radius = max(2, max(mask.shape) // 50)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    inside, outside = cv2.erode(mask, kernel, borderValue=1), 1 - cv2.dilate(mask, kernel)
    if min(inside.sum(), outside.sum()) < 0.01 * mask.size:
        return None
    return compose(_mirror(photo, inside), _mirror(photo, outside), draw_opacity(mask, rng))


def _mirror(photo: np.ndarray, source: np.ndarray) -> np.ndarray:
    """A photo whose pixels outside `source`, uint8 (H, W), mirror those inside it at its edge."""
    _, labels = cv2.distanceTransformWithLabels(1 - source, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    places = np.zeros((labels.max() + 1, 2), np.int32)
    places[labels[source > 0]] = np.argwhere(source)
    nearest = places[labels]
    mirrored = np.clip(2 * nearest - np.dstack(np.indices(source.shape)), 0, np.array(source.shape) - 1)
    good = source[mirrored[..., 0], mirrored[..., 1]] > 0
    y, x = np.moveaxis(np.where(good[..., None], mirrored, nearest), 2, 0)
    return photo[y, x]


def read_masked(folder: Path, limit: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photos and their masks, uint8 0 and 1, of image/ and mask/ or of the raw CelebAMask-HQ."""
    celeb = folder / "CelebAMask-HQ-mask-anno"
    masks = sorted(celeb.glob("*/*_hair.png") if celeb.is_dir() else (folder / "mask").glob("*.png"))
    count = 0
    for i in rng.permutation(len(masks)):
        number = masks[i].stem
        found = (
            folder / "CelebA-HQ-img" / f"{int(number[:5])}.jpg"
            if celeb.is_dir()
            else folder / "image" / f"{number}.jpg"
        )
        if count == limit:
            return
        if found.is_file():
            photo, mask = read_photo(found), cv2.imread(str(masks[i]), cv2.IMREAD_GRAYSCALE)
            if photo.shape[:2] != mask.shape:
                photo = cv2.resize(photo, mask.shape[::-1], interpolation=cv2.INTER_AREA)
            count += 1
            yield photo, (mask > 127).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------- other ways


def plain_foreground(photo: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """The photo's own colours, as in cut-outs until 2026."""
    return photo


def blur_fusion(passes: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021, of one or two passes."""

    def estimate(photo: np.ndarray, opacity: np.ndarray) -> np.ndarray:
        image, alpha = photo.astype(np.float32), opacity[..., None].astype(np.float32) / 255
        hair = behind = image
        for radius in (90, 6)[:passes]:
            hair, behind = (_mean_where(picture, w, radius) for picture, w in ((hair, alpha), (behind, 1 - alpha)))
            hair = (hair + alpha * (image - alpha * hair - (1 - alpha) * behind)).clip(0, 255)
        return hair.round().astype(np.uint8)

    return estimate


def _mean_where(picture: np.ndarray, weight: np.ndarray, radius: int) -> np.ndarray:
    blur = lambda plane: cv2.blur(plane, (radius, radius))  # noqa: E731
    return blur(picture * weight) / (blur(weight)[..., None] + 1e-5)


def multilevel(photo: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """pymatting's estimate_foreground_ml."""
    from pymatting import estimate_foreground_ml

    return (estimate_foreground_ml(photo / 255, opacity / 255) * 255).round().clip(0, 255).astype(np.uint8)


def full_guided_filter(photo: np.ndarray, probabilities: np.ndarray, img_size: int) -> np.ndarray:
    """`refine_edges` until 2026: He, Sun, Tang 2010 on the photo's lightness, at its full size."""
    radius = max(1, round(4 * max(photo.shape[:2]) / img_size))
    window = (2 * radius + 1, 2 * radius + 1)
    refined = np.empty_like(probabilities)
    for read, write, place in strips(photo.shape, overlap=2 * radius):
        guide = cv2.cvtColor(photo[read], cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        source = probabilities[read]
        mean_guide, mean_source = cv2.blur(guide, window), cv2.blur(source, window)
        variance = cv2.blur(guide * guide, window) - mean_guide * mean_guide
        covariance = cv2.blur(guide * source, window) - mean_guide * mean_source
        slope = covariance / (variance + 1e-3)
        offset = mean_source - slope * mean_guide
        refined[write] = (cv2.blur(slope, window) * guide + cv2.blur(offset, window))[place]
    return refined.clip(0, 1, out=refined)


def closed_form(photo: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """pymatting's estimate_alpha_cf; what lies within 6 of the network's pixels of its edge is unknown."""
    from pymatting import estimate_alpha_cf

    kernel = np.ones((2 * round(6 * max(photo.shape) / IMG_SIZE) + 1,) * 2, np.uint8)
    sure, none = (cv2.erode(part.astype(np.uint8), kernel) for part in (probabilities > 0.7, probabilities < 0.3))
    if not sure.any() or not none.any():
        return soft_edge(probabilities, THRESHOLD)
    with warnings.catch_warnings(action="ignore"):
        alpha = estimate_alpha_cf(photo / 255, 0.5 + 0.5 * sure - 0.5 * none)
    return (alpha * 255).round().astype(np.uint8)


# ---------------------------------------------------------------------------------------------------- tables


class Table:
    """Rows of figures by method; `show` prints each one's mean, or median, beside its ratio to the first row's."""

    def __init__(self, middle: Callable = np.mean) -> None:
        self._middle = middle
        self._values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def add(self, method: str, **values: float) -> None:
        for name, value in values.items():
            self._values[method][name].append(value)

    def show(self, title: str) -> None:
        print(f"\n{title}")
        first = next(iter(self._values.values()))
        for method, row in self._values.items():
            middles = {name: (self._middle(values), self._middle(first[name])) for name, values in row.items()}
            cells = [f"{name} {mine:8.4g} ({mine / theirs:.2f})" for name, (mine, theirs) in middles.items()]
            print(f"  {method:34s}" + "   ".join(cells))


def timed(work: Callable, *arguments: object) -> tuple[np.ndarray, float]:
    """A result, and its milliseconds of this process's processor time, on which other work has little influence."""
    start = time.process_time()
    result = work(*arguments)
    return result, 1000 * (time.process_time() - start)


def weighted(error: np.ndarray, weight: np.ndarray) -> float:
    """Mean of an error over pixels by weight."""
    return float((error * weight).sum() / weight.sum())


def compare(photos: list[tuple[Composed, np.ndarray]]) -> None:
    """Print how right opacity and colour of the edge are, by method; photos with their probabilities."""
    opacities = {"soft edge (until 2026)": lambda photo, found: soft_edge(found, THRESHOLD)}
    opacities["its probabilities refined in grey"] = lambda photo, found: soft_edge(
        full_guided_filter(photo, found, IMG_SIZE), THRESHOLD
    )
    opacities["hair_opacity"] = lambda photo, found: hair_opacity(photo, found, THRESHOLD)
    colors = {"the photo's colours (until 2026)": plain_foreground, "blur fusion, one pass": blur_fusion(1)}
    colors |= {"blur fusion, two passes": blur_fusion(2), "estimate_foreground": estimate_foreground}
    if find_spec("pymatting"):
        opacities["closed form (pymatting)"] = closed_form
        colors["multilevel (pymatting)"] = multilevel
        multilevel(photos[0][0].photo, soft_edge(photos[0][1], THRESHOLD))  # numba compiles it once
    else:
        print("\npymatting is not installed and not compared")
    edges, true_opacity, own_opacity, whole = Table(), Table(), Table(), Table()
    for composed, found in photos:
        for name, method in opacities.items():
            opacity, cost = timed(method, composed.photo, found)
            edges.add(name, error=100 * _opacity_error(composed, opacity), ms=cost)
        known = (255 * composed.opacity).round().astype(np.uint8)
        own = hair_opacity(composed.photo, found, THRESHOLD)
        for name, method in colors.items():
            for table, opacity in ((true_opacity, known), (own_opacity, own)):
                hair, cost = timed(method, composed.photo, opacity)
                table.add(name, error=_color_error(composed, hair), ms=cost)
        plain = np.dstack([composed.photo, soft_edge(found, THRESHOLD)])
        for name, cut in (("until 2026", plain), ("cut_out", cut_out(composed.photo, found, THRESHOLD))):
            whole.add(name, **_cut_errors(composed, cut))
    edges.show(f"opacity near the edge, percent, {len(photos)} photos")
    true_opacity.show("colour of the edge, with its true opacity")
    own_opacity.show("colour of the edge, with hair_opacity's")
    whole.show("the whole cut-out: colour by its own opacity; laid on black, white and green")


def _near_edge(composed: Composed) -> np.ndarray:
    soft = (composed.opacity > 0) & (composed.opacity < 1)
    return cv2.dilate(soft.astype(np.uint8), np.ones((2 * (max(soft.shape) // 64) + 1,) * 2, np.uint8))


def _opacity_error(composed: Composed, opacity: np.ndarray) -> float:
    return weighted(np.abs(opacity / np.float32(255) - composed.opacity), _near_edge(composed))


def _color_error(composed: Composed, hair: np.ndarray) -> float:
    """Over the soft edge, by its true opacity."""
    error = cv2.absdiff(hair, composed.hair).mean(2)
    return weighted(error, composed.opacity * (composed.opacity < 1))


def _cut_errors(composed: Composed, cut: np.ndarray) -> dict[str, float]:
    near, opacity = _near_edge(composed), cut[..., 3] / np.float32(255)
    seen = near * opacity * ((opacity < 1) | (composed.opacity < 1))
    laid = [
        cv2.absdiff(
            place_on(cut, color, composed.photo),
            compose(composed.hair, np.full_like(composed.photo, color), composed.opacity).photo,
        )
        for color in NEW_BACKGROUNDS
    ]
    return {
        "colour": weighted(cv2.absdiff(cut[..., :3], composed.hair).mean(2), seen),
        "laid": weighted(np.mean(laid, (0, 3)), near),
    }


def compare_refined(photos: list[tuple[np.ndarray, np.ndarray, np.ndarray]], img_size: int, threshold: float) -> None:
    """Print Dice and boundary F1 of refined edges; photos with their masks and probabilities."""
    from utils import boundary_f1  # with torch

    print(f"\nrefined edges, {len(photos)} photos")
    ways = {"not refined": None, "full size, in grey (until 2026)": full_guided_filter, "refine_edges": refine_edges}
    for name, refine in ways.items():
        both, total, scores = 0, 0, []
        for photo, mask, found in photos:
            hair = (refine(photo, found, img_size) if refine else found) >= threshold
            both, total = both + 2 * int((hair & (mask > 0)).sum()), total + int(hair.sum()) + int(mask.sum())
            scores.append(boundary_f1(hair, mask > 0))
        print(f"  {name:34s}Dice {both / total:.4f}   boundary F1 {np.mean(scores):.4f}")


def compare_times(composed: Composed, found: np.ndarray, rounds: int) -> None:
    """Print times at 12 megapixels, in turns."""
    height, width = (3000, 4000) if found.shape[1] >= found.shape[0] else (4000, 3000)
    photo = cv2.resize(composed.photo, (width, height), interpolation=cv2.INTER_CUBIC)
    scale = IMG_SIZE / max(found.shape)
    found = cv2.resize(cv2.resize(found, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), (width, height))
    found = np.clip(found, 0, 1)
    cut = cut_out(photo, found, THRESHOLD)
    pairs = {
        "refined edges": {"until 2026": full_guided_filter, "refine_edges": refine_edges},
        "cut-out": {
            "until 2026": lambda *_: np.dstack([photo, soft_edge(found, THRESHOLD)]),
            "cut_out": lambda *_: cut_out(photo, found, THRESHOLD),
            "its colour background": lambda *_: place_on(cut, (9, 9, 99), photo),
            "its picture": lambda *_: place_on(cut, composed.photo, photo),
            "its blur": lambda *_: place_on(cut, "blur", photo),
        },
    }
    for title, ways in pairs.items():
        table = Table(np.median)
        for _ in range(rounds):
            for name, way in ways.items():
                start = time.perf_counter()
                _, cost = timed(way, photo, found, IMG_SIZE)
                table.add(name, processor_ms=cost, ms=1000 * (time.perf_counter() - start))
        table.show(f"{title} of 12 megapixels")
    plain = np.dstack([photo, soft_edge(found, THRESHOLD)])
    sizes = [len(encode_picture(picture)) / 1e6 for picture in (plain, cut)]
    print(f"\nthe cut-out as PNG: {sizes[1]:.1f} MB, until 2026 {sizes[0]:.1f} MB ({sizes[1] / sizes[0]:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, nargs="+", default=[], help="image/ and mask/, or CelebAMask-HQ")
    parser.add_argument("--limit", type=int, default=30, help="photos of each folder (default: 30)")
    parser.add_argument("--rounds", type=int, default=5, help="of times (default: 5)")
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    if not args.data_dir:
        drawn = [draw_photo(rng) for _ in range(args.limit)]
        photos = [(composed, simulate_network(composed.opacity)) for composed in drawn]
    else:
        segmenter = HairSegmenter()
        masked = [pair for folder in args.data_dir for pair in read_masked(folder, args.limit, rng)]
        compare_refined(
            [(photo, mask, segmenter(photo)) for photo, mask in masked], segmenter.img_size, segmenter.threshold
        )
        taken_apart = filter(None, (take_apart(photo, mask, rng) for photo, mask in masked))
        photos = [(composed, segmenter(composed.photo)) for composed in taken_apart]
        tried = len(photos)
        photos = [(composed, found) for composed, found in photos if _dice(found, composed.opacity) >= FOUND]
        print(f"\n{len(photos)} of {tried} composed photos whose hair the network finds")
    compare(photos)
    compare_times(*photos[0], args.rounds)


def _dice(found: np.ndarray, opacity: np.ndarray) -> float:
    one, other = found >= THRESHOLD, opacity >= 0.5
    return 2 * (one & other).sum() / (one.sum() + other.sum())


if __name__ == "__main__":
    main()

"""Where to look at a photo again, closer, and how several looks become one result.

The network sees a photo at its own size, 384 pixels, and was trained on heads that fill much of it. One look is enough
for a portrait, and for a photo in which nothing looks like hair. Otherwise:

1. **Turned looks** at a portrait whose hair is doubtful: the photo may lie on its side or stand on its head. Of the
   photo and its three turns by a quarter, the least doubtful look counts.
2. **Windows** around small heads: squares in which the hair fills 40%. A window may add hair beside hair that the
   first look suspected. Elsewhere both must agree, because texture that fills a window is easily taken for hair.
3. **Tiles** instead of windows in a crowd: overlapping squares of a size that suits its heads, all over the photo,
   since heads that were missed stand among those that were found. Where the first look finds FEW heads or more, a
   look at the whole photo at one and a half times the size tells whether they are a crowd.

What each is worth: docs/results.md.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np

SUSPECTED = 0.15  # probability from which pixels may be hair, and worth a closer look …
SURE = 0.6  # … if a pixel connected with them reaches this
BESIDE = 0.1  # probability of an earlier look beside which a window may add hair
SMALLEST_HAIR = 8  # pixels of a look; less is noise
DOUBTFUL = 0.08  # doubt (see `doubt`) from which a portrait is looked at turned …
CLEARER = 0.85  # … and most doubt of a turned look, over that of the first one, for which it counts instead
PORTRAIT = 0.33  # side of the largest hair, over the photo's longer side, from which the photo is a portrait …
PORTRAIT_OF_MANY = 0.5  # … and from which it is one although there is much else: heads in a crowd may be connected
FEW, CROWD = 3, 6  # heads in a first look from which there may be a crowd; heads of a crowd
ENLARGED = 1.5  # size of the look that tells, over that of the first one; the two are averaged
CLOSE = 2.5  # side of a window over the longer side of the hair in its middle …
LARGEST_WINDOW = 0.6  # … at most this part of the photo's longer side; a larger window would show little new …
CLOSEST = 1.5  # … and at least this over the hair's side
GROWTH = 1.3  # most hair in a window of the largest size over what was known: fur that fills it is taken for hair
SHARE = 0.67  # of a window in the average with what was known before; measured between 0.5 and 1
TILE = 2.8  # side of a tile over that of the median head's hair
OVERLAP = 0.15  # of a tile with the next one, at least
MOST_LOOKS = 20  # in windows or tiles

Look = Callable[[np.ndarray, float], np.ndarray]  # RGB uint8 (h, w, 3) and a factor of the size -> float32 (h, w)
Box = tuple[np.ndarray, np.ndarray]  # low and high corner (row, column) in pixels of the photo
Window = tuple[slice, slice]


def look_closer(photo: np.ndarray, first: np.ndarray, probabilities: np.ndarray, look: Look) -> None:
    """Improve the probabilities of a photo by closer looks where they are needed.

    A portrait gets none, or three where its hair is doubtful, a crowd a larger look and at most MOST_LOOKS tiles.

    Args:
        photo: RGB uint8 (H, W, 3).
        first: float32 (h, w), the first look in the photo's proportions at the network's size.
        probabilities: float32 (H, W), the first look at the photo's size; changed in place.
        look: runs the network on a part of the photo, RGB uint8 (h, w, 3), at its own size times a factor, and returns
            float32 (h, w) in [0, 1].
    """
    longer = max(photo.shape[:2])
    heads = find_heads(first, photo.shape)
    largest = max((_side(head) for head in heads), default=0) / longer
    if largest >= PORTRAIT and doubt(first) > DOUBTFUL:
        _look_turned(photo, first, probabilities, look)
    may_be_crowd = len(heads) >= FEW and largest < (PORTRAIT if len(heads) < CROWD else PORTRAIT_OF_MANY)
    if may_be_crowd or (not heads and first.max() >= SUSPECTED):
        larger = look(photo, ENLARGED)
        if not heads:
            probabilities += larger
            probabilities *= 0.5
            heads = find_heads(_shrink(larger, first), photo.shape)
        else:
            crowd = find_heads(_shrink((probabilities + larger) / 2, first), photo.shape)
            if len(crowd) >= CROWD:
                _look_at_tiles(photo, tiles(crowd, photo.shape), probabilities, look)
                return
    for window, is_largest in windows(heads, photo.shape):
        _look_at_window(photo[window], probabilities[window], look, is_largest)


def doubt(probabilities: np.ndarray) -> float:
    """How doubtful the hair of a look is: 0 where all probabilities are 0 or 1, 1 where all are almost 0."""
    return float((probabilities * (1 - probabilities)).sum() / (probabilities.sum() + 1))


def find_heads(probabilities: np.ndarray, shape: Sequence[int]) -> list[Box]:
    """The hair of each head, or of several where it is connected.

    Args:
        probabilities: float32 (h, w) of a look, in the photo's proportions at any size.
        shape: the photo's (H, W, …).

    Returns:
        A box around each connected piece of hair of which a pixel is sure, the largest pieces first.
    """
    scale = max(shape[:2]) / max(probabilities.shape)
    suspected = (probabilities >= SUSPECTED).astype(np.uint8)
    # BBDT: OpenCV's default takes three times as long.
    count, places, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(suspected, 8, cv2.CV_32S, cv2.CCL_BBDT)
    heads = []
    for number in sorted(range(1, count), key=lambda n: -stats[n, cv2.CC_STAT_AREA]):
        x, y, width, height, area = stats[number]
        box = np.s_[y : y + height, x : x + width]
        if area >= SMALLEST_HAIR and probabilities[box][places[box] == number].max() >= SURE:
            heads.append((np.array((y, x)) * scale, np.array((y + height, x + width)) * scale))
    return heads


def windows(heads: Sequence[Box], shape: Sequence[int]) -> list[tuple[Window, bool]]:
    """Squares of a photo around those heads that are too small for a whole look, and not a part of a larger one.

    Args:
        heads: from `find_heads`.
        shape: the photo's (H, W, …).

    Returns:
        At most MOST_LOOKS slices of the photo, in the order of the heads, and whether each is of the largest size.
    """
    longer = max(shape[:2])
    largest = LARGEST_WINDOW * longer
    portraits = [head for head in heads if _side(head) >= PORTRAIT * longer]
    found = []
    for low, high in heads:
        side, centre = max(high - low), (low + high) / 2
        belongs = any((np.abs(centre - (a + b) / 2) <= CLOSE / 2 * max(b - a)).all() for a, b in portraits)
        if CLOSEST * side <= largest and not belongs:
            reach = min(CLOSE * side, largest) / 2
            start = np.maximum(0, np.floor(centre - reach)).astype(int)
            stop = np.minimum(shape[:2], np.ceil(centre + reach)).astype(int)
            found.append((np.s_[start[0] : stop[0], start[1] : stop[1]], bool(CLOSE * side > largest)))
    return found[:MOST_LOOKS]


def tiles(heads: Sequence[Box], shape: Sequence[int]) -> list[Window]:
    """Overlapping squares of one size that cover a photo.

    Args:
        heads: from `find_heads`; they decide on the size.
        shape: the photo's (H, W, …).

    Returns:
        At most MOST_LOOKS slices of the photo.
    """
    side = max(1.0, TILE * float(np.median([_side(head) for head in heads])))
    while True:
        starts = [_tile_starts(length, int(side)) for length in shape[:2]]
        if len(starts[0]) * len(starts[1]) <= MOST_LOOKS:
            return [np.s_[top : top + int(side), left : left + int(side)] for top in starts[0] for left in starts[1]]
        side *= 1.05


def _shrink(probabilities: np.ndarray, first: np.ndarray) -> np.ndarray:
    return cv2.resize(probabilities, first.shape[::-1], interpolation=cv2.INTER_AREA)


def _side(head: Box) -> float:
    """The side of a square as large as a box: a row of connected heads is not as large as it is long."""
    return float(np.sqrt(np.prod(head[1] - head[0])))


def _tile_starts(length: int, side: int) -> np.ndarray:
    """Where tiles begin along a photo's side of `length`."""
    count = 1 + max(0, int(np.ceil((length - side) / max(1, side * (1 - OVERLAP)))))
    return np.linspace(0, max(0, length - side), count).astype(int)


def _look_turned(photo: np.ndarray, first: np.ndarray, probabilities: np.ndarray, look: Look) -> None:
    """Replace the probabilities by those of the photo turned by a quarter, a half or three, where these are clearer."""
    small = cv2.resize(photo, first.shape[::-1], interpolation=cv2.INTER_AREA)
    turned = [np.rot90(look(np.rot90(small, quarters), 1), -quarters) for quarters in (1, 2, 3)]
    clearest = min(turned, key=doubt)
    if doubt(clearest) <= CLEARER * doubt(first):
        probabilities[:] = cv2.resize(np.ascontiguousarray(clearest), photo.shape[1::-1])


def _look_at_window(photo: np.ndarray, probabilities: np.ndarray, look: Look, is_largest: bool) -> None:
    """Improve the probabilities of a window, in place."""
    found = look(photo, 1)
    agreed = np.minimum(probabilities, found)
    if is_largest and found.sum() > GROWTH * probabilities.sum():
        probabilities[:] = agreed
        return
    reach = 2 * (max(found.shape) // 16) + 1
    beside = cv2.dilate((probabilities >= BESIDE).astype(np.uint8), np.ones((reach, reach), np.uint8))
    probabilities[:] = np.where(beside, SHARE * found + (1 - SHARE) * probabilities, agreed)


def _look_at_tiles(photo: np.ndarray, squares: Sequence[Window], probabilities: np.ndarray, look: Look) -> None:
    """Replace the probabilities by those of tiles, in place; where tiles overlap, their middles count most."""
    total, weights = np.zeros_like(probabilities), np.zeros_like(probabilities)
    for square in squares:
        found = look(photo[square], 1)
        rows, columns = (np.minimum(np.arange(1, n + 1), np.arange(n, 0, -1)).astype(np.float32) for n in found.shape)
        weight = np.outer(rows, columns)
        total[square] += found * weight
        weights[square] += weight
    np.divide(total, weights, out=probabilities)

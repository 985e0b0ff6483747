"""Where along the hair a pixel lies, from roots to tips, and strands that follow the hair."""

import cv2
import numpy as np

WAY = 192  # pixels: longer side at which the way from the roots is measured
ROOTS = 0.1  # of a piece of hair's height: its top, where the roots are
HEAD = 0.5  # of the largest top's area: smaller ones are not those of heads
GAP = 0.12  # of the hair's longer side: pieces that are nearer to each other belong to one head
PIECE = 0.1  # of the largest piece's area: smaller ones are parts of the nearest
TIPS = 95  # percentile of the distance from the roots from which on hair counts as tips
FIELD_BLUR = 0.03  # of the hair's longer side
STRAND_WIDTHS = (0.002, 0.008)  # of the hair's longer side, sigmas of blurs: single strands, and those in one foil
FOIL = 0.3  # weight of the latter
SMEARS = ((1.0, 4), (3.0, 14))  # a short and a long one: pixels from sample to sample, and samples either way
DIRECTION_BLUR = 0.02  # of the hair's longer side: neighbouring strands have one direction
FALL = 0.4  # weight of the way from roots to tips beside the direction seen in the photo
OWN_STRANDS = 0.5  # weight of the photo's own lighter strands beside drawn ones


def smooth_within(field: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a field within the hair; what lies outside does not count. Far from all hair it is the field's mean.

    Args:
        field: float32 (H, W) or (H, W, channels).
        weight: float32 (H, W), 0 to 1: how much each pixel counts.
        sigma: pixels.
    """
    columns = weight.reshape(*weight.shape, *[1] * (field.ndim - 2))
    total = (field * columns).sum((0, 1), dtype=np.float64) / max(weight.sum(dtype=np.float64), 1e-9)
    little = np.float32(1e-3)
    blurred = cv2.GaussianBlur(field * columns, (0, 0), sigma)
    return (blurred + little * total.astype(np.float32)) / (
        cv2.GaussianBlur(weight, (0, 0), sigma).reshape(columns.shape) + little
    )


def roots_to_tips(opacity: np.ndarray) -> np.ndarray:
    """How far along the hair each pixel lies.

    The roots are at the top of each piece of hair; the way from there leads through the hair, so that a ponytail's end
    is far away although it may lie beside the crown.

    Args:
        opacity: uint8 (H, W), of a small picture of the hair.

    Returns:
        float32 (H, W): 0 at the roots, 1 at the tips. Pixels without hair have the value of the nearest hair.
    """
    scale = min(1, WAY / max(opacity.shape))
    size = [max(1, round(n * scale)) for n in opacity.shape[::-1]]
    small = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
    hair = (small >= min(128, small.max())).astype(np.uint8)
    gap = round(GAP * max(hair.shape)) + 1
    padded = np.pad(hair, gap)  # closing would else join hair to the border
    joined = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap, gap)))
    joined = joined[gap:-gap, gap:-gap]
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(joined)
    areas = stats[1:, cv2.CC_STAT_AREA]
    along = np.zeros(hair.shape, np.float32)
    known = np.zeros(hair.shape, np.uint8)
    for piece in range(1, count):
        if areas[piece - 1] >= PIECE * areas.max():
            place = pieces == piece
            along[place] = _distance_from_top(place.astype(np.uint8))[place]
            known[place] = 1
    # Elsewhere the value of the nearest known pixel.
    _, nearest = cv2.distanceTransformWithLabels(1 - known, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(nearest.max() + 1, np.float32)
    values[nearest[known > 0]] = along[known > 0]
    # Pixels without hair count a little, so that the blur has a value there as well.
    smooth = smooth_within(values[nearest], known.astype(np.float32) + 0.01, FIELD_BLUR * max(hair.shape) + 0.3)
    return cv2.resize(smooth, opacity.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _distance_from_top(piece: np.ndarray) -> np.ndarray:
    """Distance within a connected piece, uint8 (H, W) of 0 and 1, from its top: float32, 1 at the far end."""
    rows = np.flatnonzero(piece.any(axis=1))
    tops = piece.copy()
    tops[rows[0] + max(1, round(ROOTS * len(rows))) :] = 0
    _, parts, stats, _ = cv2.connectedComponentsWithStats(tops)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    reached = (areas >= HEAD * areas.max())[parts].astype(np.uint8)  # not a ponytail's end, high as it may be
    distance = np.zeros(piece.shape, np.float32)
    # Squares and crosses in turns grow to octagons, which are nearly circles.
    kernels = [cv2.getStructuringElement(shape, (3, 3)) for shape in (cv2.MORPH_RECT, cv2.MORPH_CROSS)]
    for step in range(1, piece.size):
        grown = cv2.dilate(reached, kernels[step % 2]) & piece
        added = grown > reached
        if not added.any():
            break
        distance[added] = step
        reached = grown
    far = float(np.percentile(distance[piece > 0], TIPS))
    return (distance / max(far, 1)).clip(0, 1)


def strand_ranks(lightness: np.ndarray, opacity: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Strands that follow the hair, each with a rank.

    Noise is smeared along the hair (line integral convolution, Cabral and Leedom 1993); the photo's own lighter strands
    rank higher.

    Args:
        lightness: float32 (H, W), of a small picture of the hair.
        opacity: uint8 (H, W).
        along: float32 (H, W), see `roots_to_tips`.

    Returns:
        float32 (H, W) in [0, 1]. Within the hair all ranks are equally frequent: those above 1 − s are a share s.
    """
    size = max(lightness.shape)
    weight = opacity.astype(np.float32) / 255
    contrast = np.log(lightness + 3)
    # What is beside the hair would draw strands along its outline.
    contrast = smooth_within(contrast, weight**4, 4) * (1 - weight) + contrast * weight
    thin, thick = (max(width * size, 0.6) for width in STRAND_WIDTHS)
    noise = np.random.default_rng(0).standard_normal(lightness.shape, np.float32)
    strands, foils = (_standardised(cv2.GaussianBlur(noise, (0, 0), width), weight) for width in (thin, thick))
    direction = _strand_direction(contrast, weight, along)
    own = _standardised(smooth_within(contrast, weight, thin) - smooth_within(contrast, weight, 2 * thick), weight)
    own = own.clip(-2, 2) * cv2.GaussianBlur(weight, (0, 0), 2 * thick) ** 4  # not skin and light at the edge
    score = strands + FOIL * foils + OWN_STRANDS * own
    for step, count in SMEARS:
        score = _smear(score, direction, step, count)
    score = cv2.GaussianBlur(score, (0, 0), thin)  # it is rough where directions meet
    order = np.argsort(score, axis=None)
    ranks = np.empty(score.size, np.float32)
    below = np.cumsum(weight.ravel()[order], dtype=np.float64)
    ranks[order] = below / max(below[-1], 1e-9)
    return ranks.reshape(score.shape)


def _standardised(field: np.ndarray, weight: np.ndarray) -> np.ndarray:
    mean = np.average(field, weights=weight)
    return (field - mean) / max(np.sqrt(np.average((field - mean) ** 2, weights=weight)), 1e-6)


def _strand_direction(contrast: np.ndarray, weight: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Unit vectors (x, y) along the strands, float32 (H, W, 2), from the structure tensor and the way to the tips."""
    sigma = max(DIRECTION_BLUR * max(contrast.shape), 1)
    contrast, along = cv2.GaussianBlur(contrast, (0, 0), 1), cv2.GaussianBlur(along, (0, 0), sigma)
    (x, y), (forth, down) = (
        [cv2.Scharr(f, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))] for f in (contrast, along)
    )
    inner = weight**4
    across = _orientation(x * inner, y * inner, sigma) - FALL * _orientation(forth * inner, down * inner, sigma)
    angle = np.arctan2(across[..., 1], across[..., 0]) / 2 + np.float32(np.pi / 2)
    return np.dstack([np.cos(angle), np.sin(angle)])


def _orientation(x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    """The orientation of gradients around each pixel: cosine and sine of twice its angle, float32 (H, W, 2).

    Its length is 1 where all gradients agree and 0 where they have no orientation. Negated, it is that across.
    """
    tensor = cv2.GaussianBlur(np.dstack([x * x - y * y, 2 * x * y, x * x + y * y]), (0, 0), sigma)
    energy = tensor[..., 2:]
    return tensor[..., :2] / (energy + 0.1 * max(float(energy.mean()), 1e-9))


def _smear(noise: np.ndarray, direction: np.ndarray, step: float, count: int) -> np.ndarray:
    """Average of `noise`, float32 (H, W), over `count` samples either way along `direction`, (H, W, 2)."""
    start = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in noise.shape[::-1]))
    total = noise.copy()
    for sign in (1, -1):
        heading = sign * direction
        x, y = start[0].copy(), start[1].copy()
        for _ in range(count):
            x += np.float32(step) * heading[..., 0]
            y += np.float32(step) * heading[..., 1]
            total += cv2.remap(noise, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            here = cv2.remap(direction, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
            # A direction has no sign: go on, not back.
            backwards = here[..., 0] * heading[..., 0] + here[..., 1] * heading[..., 1] < 0
            heading = np.where(backwards[..., None], -here, here)
    return total / (2 * count + 1)

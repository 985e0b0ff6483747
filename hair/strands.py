"""The position of each pixel between roots and tips, and strands that follow the hair."""

import cv2
import numpy as np

WAY = 192  # pixels; longer side at which the distance from the roots is measured
ROOTS = 0.1  # the roots are in this top fraction of the height of a region of hair
HEAD = 0.5  # tops with a smaller fraction of the largest top's area do not belong to heads
GAP = 0.12  # regions nearer than this fraction of the hair's longer side belong to one head
PIECE = 0.1  # regions with a smaller fraction of the largest region's area belong to the nearest one
TIPS = 95  # percentile of the distance from the roots from which hair counts as tips
FIELD_BLUR = 0.03  # fraction of the hair's longer side
STRAND_WIDTHS = (0.002, 0.008)  # blur sigmas, as fractions of the hair's longer side: single strands, strands in a foil
FOIL = 0.3  # weight of strands in a foil
SMEARS = ((1.0, 4), (3.0, 14))  # a short and a long smear: pixels between samples, and samples in each direction
DIRECTION_BLUR = 0.02  # fraction of the hair's longer side; makes neighbouring strands parallel
FALL = 0.4  # weight of the direction from roots to tips, compared with the direction seen in the photo
OWN_STRANDS = 0.5  # weight of the photo's own lighter strands, compared with drawn ones


def smooth_within(field: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Blur a field within the hair, ignoring pixels outside. Far from all hair, the result is the mean of the field.

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
    """The position of each pixel between roots and tips.

    The roots are at the top of each region of hair. The distance from there is measured through the hair, so that the
    end of a ponytail is far away even if it is next to the top of the head.

    Args:
        opacity: uint8 (H, W), of a small image of the hair.

    Returns:
        float32 (H, W): 0 at the roots, 1 at the tips. Pixels without hair have the value of the nearest hair.
    """
    scale = min(1, WAY / max(opacity.shape))
    size = [max(1, round(n * scale)) for n in opacity.shape[::-1]]
    small = cv2.resize(opacity, size, interpolation=cv2.INTER_AREA)
    hair = (small >= min(128, small.max())).astype(np.uint8)
    gap = round(GAP * max(hair.shape)) + 1
    padded = np.pad(hair, gap)  # otherwise closing would join hair to the border
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
    # Pixels without hair have a small weight, so that the blur has a value there as well.
    smooth = smooth_within(values[nearest], known.astype(np.float32) + 0.01, FIELD_BLUR * max(hair.shape) + 0.3)
    return cv2.resize(smooth, opacity.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _distance_from_top(piece: np.ndarray) -> np.ndarray:
    """The distance from the top within a connected region, uint8 (H, W) of 0 and 1: float32, 1 at the far end."""
    rows = np.flatnonzero(piece.any(axis=1))
    tops = piece.copy()
    tops[rows[0] + max(1, round(ROOTS * len(rows))) :] = 0
    _, parts, stats, _ = cv2.connectedComponentsWithStats(tops)
    areas = stats[:, cv2.CC_STAT_AREA].copy()
    areas[0] = 0
    reached = (areas >= HEAD * areas.max())[parts].astype(np.uint8)  # excludes the end of a ponytail that is high up
    distance = np.zeros(piece.shape, np.float32)
    # Alternating squares and crosses gives octagons, which are nearly circles.
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

    Noise is smeared along the hair (line integral convolution, Cabral and Leedom 1993); lighter strands of the photo
    have a higher rank.

    Args:
        lightness: float32 (H, W), of a small image of the hair.
        opacity: uint8 (H, W).
        along: float32 (H, W), see `roots_to_tips`.

    Returns:
        float32 (H, W) in [0, 1]. Within the hair, ranks are uniformly distributed: a fraction s is above 1 − s.
    """
    size = max(lightness.shape)
    weight = opacity.astype(np.float32) / 255
    contrast = np.log(lightness + 3)
    # Pixels next to the hair would cause strands along its outline.
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
    score = cv2.GaussianBlur(score, (0, 0), thin)  # smooths it where different directions meet
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

    The length is 1 if all gradients agree and 0 if they have no orientation. The negated value is the orientation at a
    right angle.
    """
    tensor = cv2.GaussianBlur(np.dstack([x * x - y * y, 2 * x * y, x * x + y * y]), (0, 0), sigma)
    energy = tensor[..., 2:]
    return tensor[..., :2] / (energy + 0.1 * max(float(energy.mean()), 1e-9))


def _smear(noise: np.ndarray, direction: np.ndarray, step: float, count: int) -> np.ndarray:
    """The average of `noise`, float32 (H, W), over `count` samples in each direction along `direction`, (H, W, 2)."""
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
            # A direction has no sign: continue forwards, not back.
            backwards = here[..., 0] * heading[..., 0] + here[..., 1] * heading[..., 1] < 0
            heading = np.where(backwards[..., None], -here, here)
    return total / (2 * count + 1)

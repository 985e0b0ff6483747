"""Dye hair in any colour, with or without bleach; ombré (two colours from roots to tips); highlights."""

from dataclasses import dataclass

import cv2
import numpy as np

from hair.colors import to_lab
from hair.errors import UserError
from hair.opacity import hair_opacity
from hair.strands import roots_to_tips, smooth_within, strand_ranks
from hair.strips import SMALL_STRIP, enlarge, sample, strips
from hair.tones import LEVELS, LIGHTNESS, OFFSET, level, lighter, lightness_curve, shades

Color = tuple[int, int, int]

SURELY_NOT = 0.005  # pixels with at most this probability of hair are not changed
SMALL = 384  # pixels: longer side of the reduced hair, on which colours are measured and strands drawn
OMBRE = (0.3, 0.85)  # fractions of the way from roots to tips: where the second colour begins, and where it is alone
RAGGED = 0.12  # fraction of the way: irregularity of the transition between strands of an ombré
HIGHLIGHT_LIFT = 0.45  # fraction of the way to white, for highlights with a single colour
STRAND_EDGE = 0.9  # softness of the edge of a highlight, 0 to 1
GAMUT_FALL_OFF = 0.75  # without bleach: how fast chroma falls towards black and white; by eye, on the demo photos
# Uneven light and old dye: some of the slow changes of lightness are removed, the strands stay.
EVEN, SLOW = 0.4, 0.05  # fraction removed; blur, as a fraction of the hair's longer side
# When nearly black hair is lightened, details as small as noise and JPEG blocks are amplified less than the rest.
NOISE, NOISE_RADIUS, DETAIL_GAIN = 1.5, 3, 2.0  # lightness; pixels; largest gain of details
STEEP = 1.2  # gain of lightness from which this is done
# Mixed pixels at the edge. The mask of dark hair often holds skin, which bleach would make glow: there, colours decide.
RIM, RIM_WIDTH, RIM_LIFT = 0.5, 0.04, 30  # doubt at the very edge; of the hair's longer side; lightness for full doubt
COLOR_BLURS = (0.06, 0.016, 0.005)  # of the hair's longer side: from far to near, to find colours beside the edge
FAIR = 50  # lightness of hair from which on there is no doubt: its own light strands look like skin
DOUBT_FADE = 10  # lightness above the hair's mean at which doubt is full
EVIDENCE = 0.02  # the smaller, the more a pixel's colour says about its opacity
MASK_SAYS = 0.4  # power of the mask's odds beside those of the colour
CERTAIN = 0.2  # opacity, from 0 or 1, up to which the mask is nearly certain
FAR_COLORS = 60  # RGB distance of hair and background from which on colours are trusted fully


@dataclass(frozen=True)
class Dye:
    """A dye and how it is applied.

    Attributes:
        colors: RGB, 0 to 255: one colour, or two: for roots and tips, or for the hair and its highlights.
        strength: strength of the dye, 0 to 1.
        bleach: whether lightness also changes to that of the dye. Without bleach, dark hair stays dark.
        highlights: fraction of strands, 0 to 1, with the second colour, or a lighter shade of the only one. If None,
            two colours make an ombré, from roots to tips.

    Raises:
        UserError: wrong number of colours, a value outside 0 to 1, or highlights that would not be visible.
    """

    colors: tuple[Color, ...]
    strength: float = 1.0
    bleach: bool = True
    highlights: float | None = None

    def __post_init__(self) -> None:
        if len(self.colors) not in (1, 2):
            raise UserError(f"--color: a dye has one colour or two, not {len(self.colors)}")
        if not 0 <= self.strength <= 1:
            raise UserError(f"the strength of a dye must be between 0 and 1, not {self.strength}")
        if self.highlights is not None and not 0 <= self.highlights <= 1:
            raise UserError(f"--highlights {self.highlights} is not between 0 and 1")
        if self.highlights is not None and not self.bleach and len(self.colors) == 1:
            raise UserError("--highlights: lighter strands need bleach; without bleach, give two colours")


@dataclass(frozen=True)
class _Plan:
    """Measurements on the reduced hair. Arrays are float32 (h, w) or (h, w, 3), for `enlarge`.

    Attributes:
        curves: for each colour, float32 (LEVELS,): lightness after dyeing.
        shades: for each colour, uint8 (LEVELS, 3): colour after dyeing, by lightness after dyeing.
        mean: lightness of the hair.
        lift: whether hair gets lighter, 0 to 1: then background that is taken for hair would glow.
        evening: factor of (lightness + OFFSET) that evens the hair.
        second: share of the second colour, or None.
        doubt: whether what the mask calls hair is hair, where it is light, 0 to 255; None for no doubt.
        nearby: (h, w, 7 or 8): colours of hair and of background nearby, RGB, 0 to 255; evening; second if not None.
        strength: of the dye.
        shape: (height, width) of the hair, pixels.
    """

    curves: tuple[np.ndarray, ...]
    shades: tuple[np.ndarray, ...]
    mean: float
    lift: float
    evening: np.ndarray
    second: np.ndarray | None
    doubt: np.ndarray | None
    nearby: np.ndarray
    strength: float
    shape: tuple[int, int]


def recolor(image: np.ndarray, probabilities: np.ndarray, threshold: float, dye: Dye) -> np.ndarray:
    """Dye the hair.

    With bleach, the lightness changes to that of the dye, and the strands stay visible: dark hair can become light, and
    fair hair dark. Without bleach, only hue and chroma change to those of the dye.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the dye covers half of a pixel.
        dye: the colours and how they are applied.

    Returns:
        RGB uint8 (H, W, 3). Pixels that are clearly not hair are not changed.
    """
    dyed = np.array(image, order="C")
    if not (probabilities >= threshold).any():
        return dyed
    opacity = hair_opacity(image, probabilities, threshold)
    opacity[probabilities < SURELY_NOT] = 0
    left, top, width, height = cv2.boundingRect(opacity)
    if not width or not dye.strength:
        return dyed
    box = np.s_[top : top + height, left : left + width]
    if dye.bleach:
        _bleach(image[box], opacity[box], dye, dyed[box])
    else:
        _tint(image[box], opacity[box], dye, dyed[box])
    return dyed


# ------------------------------------------------------------------------------------------------- without bleach


def _tint(photo: np.ndarray, opacity: np.ndarray, dye: Dye, out: np.ndarray) -> None:
    """Change hue and chroma in CIELAB to those of the dye; lightness, and with it every strand, stays."""
    colors = [to_lab(color) for color in dye.colors]
    second = _second_color(*_reduced(photo, opacity), dye) if len(colors) == 2 else None
    for _, rows, _ in strips(photo.shape):
        lab = cv2.cvtColor(photo[rows].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        lightness, cover = lab[..., 0], opacity[rows] * np.float32(dye.strength / 255)
        goal = colors[0]
        if second is not None:
            goal = colors[0] + enlarge(second, opacity.shape, rows)[..., None] * (colors[1] - colors[0])
        # Near black and white, sRGB cannot show the full chroma of the dye; outside the gamut, hues would shift.
        darkest, brightest = np.maximum(goal[..., 0], 1), np.maximum(100 - goal[..., 0], 1)
        room = np.minimum(lightness / darkest, (100 - lightness) / brightest).clip(0, 1) ** GAMUT_FALL_OFF
        for channel in (1, 2):
            lab[..., channel] += cover * (goal[..., channel] * room - lab[..., channel])
        out[rows] = (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255).round().clip(0, 255).astype(np.uint8)
        unchanged = (cover == 0).view(np.uint8)  # CIELAB and back is off by one at times
        cv2.copyTo(np.ascontiguousarray(photo[rows]), unchanged, out[rows])


# ---------------------------------------------------------------------------------------------------- with bleach


def _bleach(photo: np.ndarray, opacity: np.ndarray, dye: Dye, out: np.ndarray) -> None:
    """Change lightness, hue and chroma to those of the dye; lighter strands stay lighter than the others."""
    plan = _measure(photo, opacity, dye)
    steepest = max(float(np.diff(curve).max()) for curve in plan.curves) * (LEVELS - 1) / 100
    overlap = 2 * NOISE_RADIUS if steepest > STEEP else 0
    for read, write, place in strips(photo.shape, overlap, SMALL_STRIP):
        lab = cv2.cvtColor(np.multiply(photo[read], 1 / 255, dtype=np.float32), cv2.COLOR_RGB2LAB)
        lightness = _evened(cv2.extractChannel(lab, 0), enlarge(plan.evening, plan.shape, read))
        base = _denoised(lightness)[place] if overlap else None
        second = None if plan.second is None else enlarge(plan.second, plan.shape, write)
        dyed = _dye_lightness(lightness[place], base, second, plan)
        if dye.strength < 1:
            dyed = cv2.addWeighted(dyed, dye.strength, np.ascontiguousarray(photo[write]), 1 - dye.strength, 0)
        cover = np.ascontiguousarray(opacity[write])
        if plan.doubt is not None:
            bright = ((lightness[place] - plan.mean) * np.float32(1 / DOUBT_FADE)).clip(0, 1)
            trust = (255 - bright * enlarge(plan.doubt, plan.shape, write)).astype(np.uint8)
            cover = np.minimum(cover, trust)
        cv2.copyTo(dyed, (cover == 255).view(np.uint8), out[write])
        row, column = np.nonzero((cover > 0) & (cover < 255))
        if len(row):
            mixed = photo[write][row, column], cover[row, column]
            out[write][row, column] = _dye_mixed(*mixed, (row, column), write, plan)


def _measure(photo: np.ndarray, opacity: np.ndarray, dye: Dye) -> _Plan:
    """Measure the hair on a reduced image and plan the dye."""
    small, cover = _reduced(photo, opacity)
    side = max(cover.shape)
    lightness = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    share = cover.astype(np.float32) / 255
    weight = (share / share.max()) ** 4  # the edge, where colours are mixed, counts little
    logs = np.log(lightness + OFFSET)
    slow = smooth_within(logs, weight, SLOW * side + 0.3) - np.average(logs, weights=weight)
    evening = np.exp(-EVEN * slow)
    spread = float(np.sqrt(np.average((lightness - np.average(lightness, weights=weight)) ** 2, weights=weight)))
    weights = np.bincount(level(_evened(lightness, evening)).ravel(), weight.ravel(), LEVELS)
    colors = list(dye.colors)
    if dye.highlights is not None and len(colors) == 1:
        colors.append(lighter(colors[0], HIGHLIGHT_LIFT))
    targets = [float(to_lab(color)[0]) for color in colors]
    mean = float(np.average(LIGHTNESS, weights=weights))
    doubt, hair, background = _edge(small, cover)
    lift = float(np.clip((max(targets) - mean) / RIM_LIFT, 0, 1))
    doubt *= 255 * lift * np.clip((FAIR - mean) / RIM_LIFT, 0, 1)
    second = _second_color(small, cover, dye) if len(colors) == 2 else None
    return _Plan(
        curves=tuple(lightness_curve(weights, target, spread) for target in targets),
        shades=tuple(shades(color) for color in colors),
        evening=evening.astype(np.float32),
        second=second,
        mean=mean,
        lift=lift,
        doubt=doubt if doubt.max() > 1 else None,
        nearby=np.dstack([hair, background, evening] + ([] if second is None else [second])).astype(np.float32),
        strength=dye.strength,
        shape=opacity.shape,
    )


def _edge(photo: np.ndarray, opacity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is needed to dye the edge.

    Args:
        photo: RGB uint8 (H, W, 3), reduced.
        opacity: uint8 (H, W).

    Returns:
        Doubt of hair that the mask takes for sure, float32 (H, W), 0 to 1: near the edge, beside what is lighter than
        the hair. The colours of hair and background near each pixel, float32 (H, W, 3).
    """
    share = opacity.astype(np.float32) / 255
    side = max(opacity.shape)
    from_edge = cv2.distanceTransform((opacity >= 254).astype(np.uint8), cv2.DIST_L2, 5).clip(0, side)
    rim = RIM * np.exp(-((from_edge / np.float32(RIM_WIDTH * side)) ** 2))
    hair, background = _nearby_color(photo, (share * (1 - rim)) ** 8), _nearby_color(photo, (1 - share) ** 4)
    own, other = (to_lab(color.round().clip(0, 255))[..., 0] for color in (hair, background))
    return rim * ((other - own) / RIM_LIFT).clip(0, 1), hair, background


def _reduced(photo: np.ndarray, opacity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photo and opacity, uint8, with a longer side of at most SMALL pixels."""
    scale = min(1, SMALL / max(opacity.shape))
    size = [max(1, round(n * scale)) for n in opacity.shape[::-1]]
    small, cover = (cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in (photo, opacity))
    return small, cover if cover.any() else np.maximum(cover, 1)  # faint hair may round to none


def _second_color(photo: np.ndarray, opacity: np.ndarray, dye: Dye) -> np.ndarray:
    """The fraction of the second colour, float32 (H, W): towards the tips, or in highlights."""
    along = roots_to_tips(opacity)
    lightness = cv2.cvtColor(photo.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0]
    ranks = strand_ranks(lightness, opacity, along)
    if dye.highlights is None:
        first, last = OMBRE
        share = ((along + RAGGED * (ranks - 0.5) - first) / (last - first)).clip(0, 1)
        return share * share * (3 - 2 * share)
    edge = max(STRAND_EDGE * min(dye.highlights, 1 - dye.highlights), 1e-6)
    return ((ranks - (1 - dye.highlights)) / (2 * edge) + 0.5).clip(0, 1)


def _nearby_color(photo: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weighted mean colour around each pixel, float32 (H, W, 3); far from all weight, the nearest colour."""
    photo = photo.astype(np.float32)
    sigmas = [blur * max(weight.shape) + 0.3 for blur in COLOR_BLURS]
    color = smooth_within(photo, weight, sigmas[0])
    for sigma in sigmas[1:]:
        amount = cv2.GaussianBlur(weight, (0, 0), sigma)[..., None]
        blurred = cv2.GaussianBlur(photo * weight[..., None], (0, 0), sigma)
        color = (blurred + 0.02 * color) / (amount + 0.02)
    return color


def _evened(lightness: np.ndarray, evening: np.ndarray) -> np.ndarray:
    evened = (lightness + np.float32(OFFSET)) * evening
    evened -= OFFSET
    return evened


def _denoised(lightness: np.ndarray) -> np.ndarray:
    """Lightness without details as faint as noise: a guided filter with itself as guide."""
    window = (2 * NOISE_RADIUS + 1, 2 * NOISE_RADIUS + 1)
    mean = cv2.blur(lightness, window)
    variance = np.maximum(cv2.sqrBoxFilter(lightness, cv2.CV_32F, window) - mean * mean, 0)
    slope = variance / (variance + NOISE**2)
    return cv2.blur(slope, window) * lightness + cv2.blur(mean - slope * mean, window)


def _dye_lightness(
    lightness: np.ndarray, base: np.ndarray | None, second: np.ndarray | None, plan: _Plan
) -> np.ndarray:
    """The dyed hair, RGB uint8 (H, W, 3), for lightness (H, W); its details beside `base` gain no more than allowed."""
    pictures = []
    tables = list(zip(plan.curves, plan.shades, strict=True))
    if second is not None and (second.max() == 0 or second.min() == 1):  # much of an ombré has one colour
        tables, second = [tables[int(second.flat[0])]], None
    for curve, shade in tables:
        if base is None:
            pictures.append(_look_up(shade[level(curve)], level(lightness)))
            continue
        gain = np.minimum(np.gradient(curve) * np.float32((LEVELS - 1) / 100), np.float32(DETAIL_GAIN))
        place = level(base)
        dyed = gain[place]
        dyed *= lightness - base
        dyed += curve[place]
        pictures.append(_look_up(shade, level(np.minimum(dyed, curve[-1], out=dyed))))
    if second is None:
        return pictures[0]
    return np.asarray(cv2.blendLinear(pictures[0], pictures[1], 1 - second, second))


def _look_up(table: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`table[places]` for a table of RGB uint8; with 32-bit numbers this is ten times as fast."""
    padded = np.pad(table, ((0, 0), (0, 1))).view(np.uint32)[:, 0]
    return cv2.cvtColor(padded[places].view(np.uint8).reshape(*places.shape, 4), cv2.COLOR_RGBA2RGB)


def _dye_mixed(
    pixels: np.ndarray, cover: np.ndarray, places: tuple[np.ndarray, np.ndarray], rows: slice, plan: _Plan
) -> np.ndarray:
    """Dye the hair's share of mixed pixels.

    Args:
        pixels: RGB uint8 (N, 3).
        cover: uint8 (N,), opacity by the mask.
        places: their rows, counted from the first of `rows`, and columns.
        rows: of the hair.
        plan: as measured.

    Returns:
        RGB uint8 (N, 3).
    """
    pixels = pixels.astype(np.float32)
    nearby = sample(plan.nearby, plan.shape, rows, places)
    hair, background, evening = nearby[:, :3], nearby[:, 3:6], nearby[:, 6]
    opacity = _opacity_by_color(pixels, cover * np.float32(1 / 255), hair, background, plan.lift)[:, None]
    # The hair in a mixed pixel: its mean nearby, with what the pixel has beside the two means (Forte 2021).
    hair = (hair + opacity * (pixels - opacity * hair - (1 - opacity) * background)).clip(0, 255)
    lightness = cv2.cvtColor(hair[None] / 255, cv2.COLOR_RGB2LAB)[..., 0]
    lightness = _evened(lightness, evening[None])
    second = None if plan.second is None else np.ascontiguousarray(nearby[None, :, 7])
    dyed = _dye_lightness(lightness, None, second, plan)[0]
    return (pixels + opacity * plan.strength * (dyed - hair)).round().clip(0, 255).astype(np.uint8)


def _opacity_by_color(
    pixels: np.ndarray, opacity: np.ndarray, hair: np.ndarray, background: np.ndarray, most: float
) -> np.ndarray:
    """Correct opacities, (N,), by where each pixel's colour lies between background and hair, (N, 3); at `most` 1."""
    span = hair - background
    square = np.einsum("ij,ij->i", span, span)
    seen = (np.einsum("ij,ij->i", pixels - background, span) / (square + 100)).clip(0, 1)
    odds = (opacity / (1 - opacity + 1e-3)) ** MASK_SAYS * (seen + EVIDENCE) / (1 - seen + EVIDENCE)
    trust = most * np.minimum(np.sqrt(square) / FAR_COLORS, 1)
    # Where the mask is nearly certain it fades in and out, lest its end be seen in hair that goes on.
    trust *= (np.minimum(opacity, 1 - opacity) / CERTAIN).clip(0, 1)
    return opacity + trust * (odds / (1 + odds) - opacity)

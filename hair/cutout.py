"""Cut-outs: removes the background's colour from the edge of the hair; other backgrounds."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from hair.errors import UserError
from hair.opacity import hair_opacity
from hair.photos import read_photo
from hair.strips import SMALL_STRIP, Reduction, pick, strips

REDUCED_PIXELS = 60_000  # about the size of the reduced photo on which colours of hair and background are averaged
PURITY = 20  # colours are weighted by opacity to this power, so that mixed pixels hardly count
ENOUGH = 0.05  # weight from which the average of a neighbourhood counts more than that of a larger one
LEAST_VARIANCE = 25  # levels squared
DOUBT = 0.04  # the assumed variance of an opacity a is a * (1 - a) times this
BLUR = "blur"  # the background that is the photo itself
BLUR_RADIUS = 1 / 50  # of the photo's longer side

Background = tuple[int, int, int] | np.ndarray | str
Planes = Sequence[np.ndarray]  # one array each channel


def estimate_foreground(image: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Estimate the colour of the hair alone, without the background that shows through at its edge.

    Each pixel is a mixture of hair and background. Both colours are averaged over pure pixels nearby. The part of the
    pixel that they do not explain then corrects the hair's colour, as in blur fusion (Forte, "Approximate Fast
    Foreground Colour Estimation", 2021). The correction is larger where the colours of the hair vary more, as in
    Bayesian matting (Chuang 2001).

    Args:
        image: RGB uint8 (H, W, 3).
        opacity: opacity of the hair, uint8 (H, W).

    Returns:
        RGB uint8 (H, W, 3): the photo's pixels where the hair is opaque; the colour of the nearest hair, in flat
        squares that compress well, where it is transparent.
    """
    foreground = np.empty(image.shape, np.uint8)  # empty_like would keep the memory order of a rotated photo
    for rows, strip in _foreground(image, opacity):
        foreground[rows] = strip
    return foreground


def _foreground(image: np.ndarray, opacity: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """`estimate_foreground` in strips: rows, and RGB uint8 (rows, W, 3)."""
    small = Reduction(image.shape, 1, REDUCED_PIXELS)
    colors, cover = small.reduce(image).astype(np.float32), small.reduce(opacity).astype(np.float32) / 255
    hair, behind = _spread(colors, cover**PURITY), _spread(colors, (1 - cover) ** PURITY)
    squares = hair[..., :3].round().astype(np.uint8)
    for _, rows, _ in strips(image.shape, pixels=SMALL_STRIP):
        strip, alpha = small.repeat(squares, rows), opacity[rows]
        cv2.copyTo(image[rows], (alpha == 255).view(np.uint8), strip)
        pixels = _mixed(alpha)
        points, count = small.locate(rows, pixels), len(pixels)
        share = alpha.reshape(-1).take(pixels) / np.float32(255)
        pure, other = (small.enlarge(layer, points, count) for layer in (hair, behind))
        strip.reshape(-1, 3)[pixels] = _unmix(pick(image[rows], pixels), share, pure, other)
        yield rows, strip


def _unmix(mixed: Planes, share: np.ndarray, hair: Planes, behind: Planes) -> np.ndarray:
    """The most likely colour of the hair in mixed pixels.

    Args:
        mixed: red, green and blue of the pixels, uint8 (N,).
        share: opacity of the hair, float32 (N,) in (0, 1).
        hair: red, green, blue and variance of the hair nearby, float32 (N,).
        behind: the same for the background.

    Returns:
        RGB uint8 (N, 3).
    """
    rest, contrasts = 1 - share, [one - other for one, other in zip(hair[:3], behind[:3], strict=True)]
    doubt = DOUBT / 3 * share * rest * sum(contrast * contrast for contrast in contrasts)
    gain = share * hair[3]
    gain /= share * gain + rest * rest * behind[3] + doubt
    unmixed = np.empty((len(share), 3), np.uint8)
    for channel, contrast in enumerate(contrasts):
        color = hair[channel] + gain * (mixed[channel] - behind[channel] - share * contrast)
        unmixed[:, channel] = color.round().clip(0, 255)
    return unmixed


def _spread(colors: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted mean colours, each over the smallest neighbourhood with enough weight, and their variance.

    Args:
        colors: float32 (h, w, 3).
        weight: float32 (h, w), at least 0.

    Returns:
        float32 (h, w, 4): mean colour; variance, the mean of all channels, at least LEAST_VARIANCE.
    """
    weight = weight[..., None] / max(weight.max(), np.float32(1e-30))
    squares = (colors * colors).mean(2, keepdims=True)
    levels = [(np.dstack([colors, squares]) * weight, weight)]
    while max(levels[-1][1].shape[:2]) > 1:
        levels.append((cv2.pyrDown(levels[-1][0]), cv2.pyrDown(levels[-1][1])[..., None]))
    top, top_weight = levels.pop()
    mean = top / np.maximum(top_weight, 1e-12)
    for level, level_weight in reversed(levels):
        mean = cv2.pyrUp(mean, dstsize=level.shape[1::-1]).reshape(level.shape)
        mean = (level + ENOUGH * mean) / (level_weight + ENOUGH)
    variance = mean[..., 3] - (mean[..., :3] ** 2).mean(2)
    mean[..., 3] = np.maximum(variance, LEAST_VARIANCE)
    return mean


def cut_out(image: np.ndarray, probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Cut the hair out.

    Args:
        image: RGB uint8 (H, W, 3).
        probabilities: float32 (H, W) in [0, 1].
        threshold: probability at which the hair is half transparent.

    Returns:
        RGBA uint8 (H, W, 4), transparent without hair; see `hair_opacity` and `estimate_foreground`.
    """
    cut = np.empty((*image.shape[:2], 4), np.uint8)
    opacity = hair_opacity(image, probabilities, threshold)
    for rows, strip in _foreground(image, opacity):
        cv2.cvtColor(strip, cv2.COLOR_RGB2RGBA, dst=cut[rows])
        cv2.insertChannel(opacity[rows], cut[rows], 3)
    return cut


def read_background(text: str) -> Background:
    """The background that `--background` names: see `parse_background`; or an image file, as RGB uint8 (h, w, 3).

    Raises UserError if it is none of these, or if the file is not an image.
    """
    background = parse_background(text)
    if background is not None:
        return background
    if Path(text).is_file():
        return read_photo(text)
    raise UserError(f"--background {text}: neither a colour, nor a file, nor {BLUR}")


def parse_background(text: str) -> tuple[int, int, int] | str | None:
    """`blur`, or RGB from 0 to 255 of a CSS colour or `#rrggbb`; None for anything else. No file is read."""
    if text.lower() == BLUR:
        return BLUR
    try:
        color = ImageColor.getrgb(text)[:3]  # in `parse_color`, "white" is the colour of white hair
    except ValueError:
        return None
    return color if max(color) <= 255 else None  # Pillow accepts rgb(300, 0, 0)


def place_on(cut: np.ndarray, background: Background, photo: np.ndarray) -> np.ndarray:
    """Place a cut-out in front of another background.

    Args:
        cut: RGBA uint8 (H, W, 4).
        background: RGB from 0 to 255; or an image, RGB uint8 (h, w, 3), which is scaled and cropped to cover
            everything; or `blur`, the photo itself out of focus.
        photo: the photo from which the hair was cut, RGB uint8 (H, W, 3).

    Returns:
        RGB uint8 (H, W, 3).
    """
    if isinstance(background, str):
        placed = _blurred(photo, cut[..., 3])
    elif isinstance(background, np.ndarray):
        placed = _cover(background, cut.shape)
    else:
        placed = np.full((*cut.shape[:2], 3), background, np.uint8)
    for _, rows, _ in strips(cut.shape, pixels=SMALL_STRIP):
        alpha, behind = np.ascontiguousarray(cut[rows][..., 3]), placed[rows].reshape(-1, 3)
        cv2.copyTo(cv2.cvtColor(cut[rows], cv2.COLOR_RGBA2RGB), (alpha == 255).view(np.uint8), placed[rows])
        pixels = _mixed(alpha)
        hair, other = cut[rows].reshape(-1, 4).take(pixels, 0).astype(np.float32), behind.take(pixels, 0)
        behind[pixels] = (other + hair[:, 3:] / 255 * (hair[:, :3] - other)).round()
    return placed


def _mixed(opacity: np.ndarray) -> np.ndarray:
    """The indices, int32, of the pixels that are neither opaque nor transparent."""
    return np.flatnonzero(opacity - np.uint8(1) < 254).astype(np.int32)  # 0 becomes 255


def _cover(picture: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The largest centre crop of an image with the aspect ratio of `shape`, scaled to `shape` (H, W, …)."""
    scale = max(size / side for size, side in zip(shape[:2], picture.shape[:2], strict=True))
    height, width = (max(1, round(size / scale)) for size in shape[:2])  # cropped first: the rest may be very large
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    part = picture[top : top + height, left : left + width]
    return cv2.resize(part, (shape[1], shape[0]), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _blurred(photo: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """The photo out of focus, without colours of the hair in it."""
    small = Reduction(photo.shape, 1, REDUCED_PIXELS)
    weight = 1 - small.reduce(opacity).astype(np.float32) / 255
    behind = _spread(small.reduce(photo).astype(np.float32), weight)[..., :3]
    sigma = BLUR_RADIUS * max(behind.shape[:2])
    blurred = cv2.GaussianBlur(behind, (0, 0), sigma).round().astype(np.uint8)
    return cv2.resize(blurred, (photo.shape[1], photo.shape[0]), interpolation=cv2.INTER_CUBIC)

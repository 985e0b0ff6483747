"""The tones of a dye: the lightness of hair after dyeing, and the dye's colour at each lightness."""

from collections.abc import Sequence

import cv2
import numpy as np

from hair.colors import to_lab

LEVELS = 2048  # steps of lightness in the tables, from 0 to 100
LIGHTNESS = np.linspace(0, 100, LEVELS)
# Measured on the hair in 1,621 photos of CelebAMask-HQ and Figaro-1k, by mean lightness: the standard deviation of
# log(lightness + OFFSET), and the difference between the 95th percentile of lightness and the mean.
OFFSET = 3.0  # reduces the noise of nearly black pixels
MEANS = (0, 8, 12, 18, 25, 35, 45, 55, 65, 75, 84, 100)
SPREADS = (0.50, 0.57, 0.61, 0.61, 0.56, 0.48, 0.43, 0.35, 0.30, 0.20, 0.13, 0.08)
GLOSS = (10, 15, 20, 24, 28, 29, 29, 26, 23, 17, 13, 6)
# In the same photos the chroma at a lightness, relative to that at the mean, goes about with these powers of the
# distance from black and from white, and the hue of hair turns from red in the shadows to yellow in the light.
SHADOW_FALL_OFF, LIGHT_RISE, LIGHT_FALL_OFF = 0.6, 0.4, 0.4
HUE_TURN = 0.35  # degrees per unit of lightness
NATURAL_HUE, NATURAL_WIDTH = 65, (60, 26)  # degrees; distances from this hue: without any and with the full change
# Chosen by eye:
EXTRA_GLOSS = 0.6  # more contrast where hair is darkened: dark hair reflects light more visibly than fair hair
GLOSS_LIMIT = 1.4  # times GLOSS: limit of the lightness, so that skin and light between strands do not glow
LEAST_SPREAD = 0.6
UNDER_LIFT = 0.06  # bleached hair stops this fraction of the way below the dye's lightness


def level(lightness: np.ndarray) -> np.ndarray:
    """The index in a table for a lightness, uint16."""
    return (lightness * ((LEVELS - 1) / 100) + 0.5).clip(0, LEVELS - 1).astype(np.uint16)


def lightness_curve(weights: np.ndarray, target: float, spread: float = 0) -> np.ndarray:
    """A table of the lightness after dyeing for each lightness before.

    It is a power of (lightness + OFFSET), so that the contrast changes as between natural hair of different lightness.

    Args:
        weights: (LEVELS,), how much hair has each lightness.
        target: lightness of the dye, which is about the mean after dyeing.
        spread: standard deviation of the photo's lightness; at least LEAST_SPREAD of it is kept.

    Returns:
        float32 (LEVELS,), rising, 0 to 100.
    """
    mean = np.average(LIGHTNESS, weights=weights)
    gain = np.interp(target, MEANS, SPREADS) / np.interp(mean, MEANS, SPREADS)
    gain *= 1 + EXTRA_GLOSS * np.clip((mean - target) / 30, 0, 1)
    target = np.clip(target - UNDER_LIFT * max(0, target - mean), 1, 99)
    room = min(100 - target, GLOSS_LIMIT * np.interp(target, MEANS, GLOSS))
    logs = np.log(LIGHTNESS + OFFSET)
    middle = np.average(logs, weights=weights)
    shift = np.log(target + OFFSET)
    for _ in range(12):  # until mean and spread are right despite the limits
        curve = np.exp(shift + gain * (logs - middle)) - OFFSET
        above = np.maximum(curve - target, 0)
        curve = np.minimum(curve, target) + above / np.cbrt(1 + (above / room) ** 3)
        curve = np.maximum(curve, 0)
        left = np.sqrt(np.average((curve - np.average(curve, weights=weights)) ** 2, weights=weights))
        gain *= np.clip(LEAST_SPREAD * spread / max(left, 1e-6), 1, 1.2)
        shift += np.log((target + OFFSET) / (np.average(curve, weights=weights) + OFFSET))
    return curve.astype(np.float32)


def shades(color: Sequence[int]) -> np.ndarray:
    """The colour of dyed hair at each lightness: shadows and gloss have less chroma. RGB uint8 (LEVELS, 3)."""
    lightness, a, b = to_lab(color).astype(float)
    lightness = np.clip(lightness, 1, 99)
    from_black, from_white = LIGHTNESS / lightness, (100 - LIGHTNESS) / (100 - lightness)
    rise = np.where(from_black < 1, from_black**SHADOW_FALL_OFF, from_black**LIGHT_RISE)
    chroma = np.hypot(a, b) * rise * from_white**LIGHT_FALL_OFF
    hue = np.arctan2(b, a)
    none, full = np.cos(np.radians(NATURAL_WIDTH))
    natural = np.clip((np.cos(hue - np.radians(NATURAL_HUE)) - none) / (full - none), 0, 1)
    hue += natural * np.radians(HUE_TURN) * (LIGHTNESS - lightness)
    full = np.stack([LIGHTNESS, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).astype(np.float32)[None]
    # Less chroma where sRGB has no such colour, so that hues do not shift: the most that fits, by bisection.
    share = np.zeros((1, LEVELS, 1), np.float32)
    for step in (1, *(2.0**-n for n in range(1, 8))):
        lab = full * np.dstack([np.ones_like(share), share + step, share + step])
        fits = np.abs(cv2.cvtColor(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), cv2.COLOR_RGB2LAB) - lab).max(axis=-1) <= 1
        share[fits] = np.minimum(share[fits] + step, 1)
    rgb = cv2.cvtColor(full * np.dstack([np.ones_like(share), share, share]), cv2.COLOR_LAB2RGB)
    return (rgb[0] * 255).round().clip(0, 255).astype(np.uint8)


def lighter(color: Sequence[int], by: float) -> tuple[int, int, int]:
    """The same dye, lighter by the fraction `by` of the way to white."""
    lightness = float(to_lab(color)[0])
    red, green, blue = shades(color)[int(level(np.asarray(lightness + by * (100 - lightness))))].tolist()
    return red, green, blue

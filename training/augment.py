"""Augmentation of photos and masks."""

import os
from functools import partial

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # otherwise every worker looks for a newer version online

import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2

from hair.decoding import JPEG_SCALES
from hair.geometry import fit_square

# Fractions of photos that `heavy` rotates by 90 or 180 degrees, tilts like hand-held photos, or rotates by any angle.
TURNED, TILTED, SLANTED = 2 / 5, 1 / 2, 0.15
OUT_OF_FOCUS, DIM, SPOILT = 0.2, 0.2, 0.3  # fractions of the photos; SPOILT: motion blur, compression or noise
BLUR = (0.3 / 512, 5 / 512)  # sigma of photos out of focus, as a fraction of the photo's side
DIM_LIGHT = (0.15, 0.6)  # brightness factor of dim photos
SENSOR_NOISE = (0, 10 / 255)  # standard deviation of the noise in dim photos

# Fractions of the photos, if there are backgrounds.
COMPOSITIONS = {
    "unchanged": 0.38,
    "hat": 0.10,
    "coat": 0.06,
    "on photo": 0.05,  # shrunk and pasted onto another photo
    "on background": 0.14,  # shrunk and pasted onto a background
    "crowd": 0.10,  # shrunk and pasted onto a background with up to four others
    "background": 0.17,  # replaced with a background
}
PASTED_SIZE = (1 / 8, 2 / 3)  # of a pasted photo, as a fraction of the canvas's shorter side; log-uniform
CROWD_SIZE = (1 / 8, 2 / 5)  # the same for the others in a crowd
CROWD = 5  # people at most
SMALLEST_PASTED = 8  # pixels
CLOSEST_CROP = 0.25  # of the photo's area, in `heavy`; closer crops of hair teach the network that any texture is hair

# Hats: probabilities, and ranges of uniform distributions.
BRIM_HEIGHT = (0.25, 0.6)  # below the top of the hair, as a fraction of the hair's width; BRIM_SLOPE and OVERHANG, too
BRIM_SLOPE = (-0.2, 0.2)
OVERHANG = (0.01, 0.06)  # how far the hat extends beyond the hair
SMALLEST_HAT = 64  # covered pixels of hair; smaller hats are left out
NO_BAND = 0.5  # probability; the other hats have a band of another colour, like caps
BAND_HEIGHT = (0.2, 0.7)  # as a fraction of the hat's height
BRIGHTEST_CLOTH = 240  # of 255
STITCH = (0.02, 0.06)  # period of the knit, as a fraction of the hair's width
KNIT_CONTRAST = (-0.2, 0.3)  # values below 0 count as 0: two in five hats are smooth
SHADE = (0, 0.5)  # how much darker the sides of the hat are

# Fur coats: ranges of uniform distributions, in widths of the head's hair.
SHOULDERS = (1.2, 2.0)  # from the top of the hair down to the coat
COAT_LENGTH = (1.5, 4.5)
COAT_TOP, COAT_BOTTOM = (1.0, 2.0), (1.8, 3.5)  # widths
TUFT = (0.4, 2.5)  # side of the piece of hair that is repeated as fur
SMALLEST_TUFT = 12  # pixels; smaller pieces have no texture
FUR_LIGHT = (0.4, 1.5)  # brightness factor


def eval_transform(size: int) -> A.Compose:
    """Photo and mask in a square of `size` pixels, as in inference."""
    return A.Compose([_letterbox(size), ToTensorV2()], strict=True)


def train_transform(strength: str, size: int) -> A.Compose:
    """The augmentation `none`, `light` or `heavy`: geometric for both, photometric for the photo; all in uint8."""
    steps = {"none": [_letterbox(size)], "light": _light(size), "heavy": _heavy(size)}[strength]
    return A.Compose([*steps, ToTensorV2()], strict=True)


def jpeg_scale(strength: str, size: int, width: int, height: int) -> int:
    """The scale at which a JPEG of width × height is decoded for training: the largest without loss of detail.

    `none` and `light` show the whole photo, so its longer side needs `size` pixels. `heavy` crops it: the shorter side
    needs more. The scale divides both sides, so that the mask can be reduced to the same size.
    """
    is_cropped = strength == "heavy"
    side, needed = (min(width, height), size / CLOSEST_CROP**0.5) if is_cropped else (max(width, height), size)
    fits = (scale for scale in JPEG_SCALES if side >= needed * scale and width % scale == height % scale == 0)
    return max(fits, default=1)


def _letterbox(size: int) -> A.Lambda:
    fit = partial(_fit, size=size)
    return A.Lambda(image=fit, mask=partial(fit, interpolation=cv2.INTER_NEAREST_EXACT), name="letterbox")


def _fit(picture: np.ndarray, size: int, interpolation: int | None = None, **_: object) -> np.ndarray:
    return fit_square(picture, size, interpolation)  # a named function, so that it can be pickled for spawned workers


def _light(size: int) -> list:
    return [
        _letterbox(size),
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(0.9, 1.1), rotate=(-10, 10), translate_percent=(-0.05, 0.05), p=0.5),
        A.RandomBrightnessContrast(p=0.3),
        A.HueSaturationValue(hue_shift_limit=8, p=0.2),
    ]


def _heavy(size: int) -> list:
    crop = A.RandomResizedCrop(
        (size, size),
        scale=(CLOSEST_CROP, 1.0),
        ratio=(0.7, 1.4),
        area_for_downscale="image",
        mask_interpolation=cv2.INTER_NEAREST_EXACT,
    )
    lit = [A.RandomBrightnessContrast(0.25, 0.25, p=0.5), A.RandomGamma((70, 140), p=0.2)]
    dim = [
        A.ColorJitter(brightness=DIM_LIGHT, contrast=(1, 1), saturation=(1, 1), hue=(0, 0), p=1),
        A.GaussNoise(std_range=SENSOR_NOISE, p=1),
        A.ImageCompression(quality_range=(50, 95), p=1),
    ]
    spoilt = [
        A.MotionBlur(blur_limit=(3, 7)),
        A.ImageCompression(quality_range=(30, 80)),
        A.GaussNoise(std_range=(0.02, 0.08)),
    ]
    return [
        A.OneOf([crop, _letterbox(size)], p=1),
        A.HorizontalFlip(p=0.5),
        A.RandomRotate90(p=TURNED * 4 / 3),  # one in four of its rotations is by 0 degrees
        A.OneOf([_tilt(35, TILTED), _tilt(180, SLANTED)], p=TILTED + SLANTED),
        A.HueSaturationValue(15, 40, 15, p=0.4),
        A.ToGray(p=0.1),
        # In the order of a camera: the lens, then light and noise on the sensor, then the file.
        A.GaussianBlur(sigma_limit=(BLUR[0] * size, BLUR[1] * size), blur_limit=0, p=OUT_OF_FOCUS),
        A.OneOf([A.Sequential(dim, p=DIM), A.Sequential(lit, p=1 - DIM)], p=1),  # both together would be almost black
        A.OneOf(spoilt, p=SPOILT),
    ]


def _tilt(degrees: int, p: float) -> A.Affine:
    """A random rotation by up to `degrees`, with a shift, a shear and a scale."""
    return A.Affine(scale=(0.7, 1.25), rotate=(-degrees, degrees), shear=(-8, 8), translate_percent=(-0.12, 0.12), p=p)


# ---------------------------------------------------------------------------------------------------- compositions


def choose_composition(rng: np.random.Generator) -> str:
    """Draw one of COMPOSITIONS."""
    draw, end = rng.random(), 0.0
    for name, share in COMPOSITIONS.items():
        end += share
        if draw < end:
            return name
    return name  # the shares may sum up to just below 1


def paste(
    image: np.ndarray,
    mask: np.ndarray,
    canvas: np.ndarray,
    canvas_mask: np.ndarray,
    rng: np.random.Generator,
    size: tuple[float, float] = PASTED_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
    """Shrink a photo and paste it at a random place onto another image: small heads, several people.

    Args:
        image, canvas: RGB uint8 (H, W, 3), of any two sizes.
        mask, canvas_mask: their masks, uint8 {0, 1} (H, W).
        rng: random generator for size and position.
        size: range of the photo's longer side, as a fraction of the canvas's shorter side.

    Returns:
        The canvas with the photo on it, and its mask.
    """
    smallest, largest = np.log(size)
    scale = np.exp(rng.uniform(smallest, largest)) * min(canvas.shape[:2]) / max(image.shape[:2])
    height = min(canvas.shape[0], max(SMALLEST_PASTED, round(image.shape[0] * scale)))
    width = min(canvas.shape[1], max(SMALLEST_PASTED, round(image.shape[1] * scale)))
    top = int(rng.integers(0, canvas.shape[0] - height + 1))
    left = int(rng.integers(0, canvas.shape[1] - width + 1))
    canvas, canvas_mask = canvas.copy(), canvas_mask.copy()
    window = np.s_[top : top + height, left : left + width]
    canvas[window] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    canvas_mask[window] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return canvas, canvas_mask


def put_hat(
    image: np.ndarray, mask: np.ndarray, fabric: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cover the top of the hair with a synthetic hat: data sets have too few hats to learn that they are not hair.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: uint8 {0, 1} (H, W).
        fabric: any picture without people, RGB uint8.
        rng: random generator for size, tilt, colour and knit.

    Returns:
        The photo with a hat, and its mask without the covered hair; both unchanged if there is too little hair.
    """
    if not mask.any():
        return image, mask
    top, middle, width = _head(mask)
    height, slope = rng.uniform(*BRIM_HEIGHT) * width, rng.uniform(*BRIM_SLOPE)
    brim = top + height + slope * (np.arange(mask.shape[1]) - middle)
    y, x = np.nonzero(mask & (np.arange(mask.shape[0])[:, None] < brim))
    if len(y) < SMALLEST_HAT:
        return image, mask
    hat = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(np.stack([x, y], 1).astype(np.int32)), 1)
    reach = 2 * round(rng.uniform(*OVERHANG) * width) + 3
    hat = cv2.dilate(hat, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    left, top, across, down = cv2.boundingRect(hat)
    window = np.s_[top : top + down, left : left + across]
    cloth = _make_cloth(cv2.resize(fabric, (across, down), interpolation=cv2.INTER_AREA), width, rng)
    alpha = cv2.blur(hat[window].astype(np.float32), (3, 3))[..., None]
    image, mask = image.copy(), mask.copy()
    image[window] = (image[window] + alpha * (cloth - image[window])).astype(np.uint8)
    mask[hat > 0] = 0
    return image, mask


def put_coat(
    image: np.ndarray, mask: np.ndarray, other: np.ndarray, other_mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put a synthetic fur coat below the face, behind the hair: fur differs from hair by its place, not its texture.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: uint8 {0, 1} (H, W).
        other: the photo whose hair becomes fur, RGB uint8 (h, w, 3).
        other_mask: its mask, uint8 {0, 1} (h, w).
        rng: random generator for size, shape and brightness.

    Returns:
        The photo with a coat, and its mask, which does not change; the photo as it was if there is too little hair.
    """
    tuft = _tuft(other, other_mask)
    if not mask.any() or len(tuft) < SMALLEST_TUFT:
        return image, mask
    top, middle, width = _head(mask)
    top += rng.uniform(*SHOULDERS) * width
    bottom = top + rng.uniform(*COAT_LENGTH) * width
    upper, lower = rng.uniform(*COAT_TOP) * width / 2, rng.uniform(*COAT_BOTTOM) * width / 2
    corners = [(middle - upper, top), (middle + upper, top), (middle + lower, bottom), (middle - lower, bottom)]
    coat = cv2.fillConvexPoly(np.zeros_like(mask), np.round(corners).astype(np.int32), 255)
    coat = cv2.blur(coat, (int(width) // 2 + 1,) * 2) > 127  # with round shoulders
    side = max(SMALLEST_TUFT, round(rng.uniform(*TUFT) * width))
    fur = cv2.resize(tuft, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    missing = [max(0, length - side) for length in mask.shape]
    fur = np.pad(fur, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")[: mask.shape[0], : mask.shape[1]]
    fur = (fur * rng.uniform(*FUR_LIGHT)).clip(0, 255)
    alpha = cv2.blur((coat & (mask == 0)).astype(np.float32), (3, 3))[..., None]
    return (image + alpha * (fur - image)).astype(np.uint8), mask


def _head(mask: np.ndarray) -> tuple[float, float, float]:
    """Top, horizontal middle and width of the upper third of the hair, in pixels."""
    rows = np.flatnonzero(mask.any(1))
    columns = np.flatnonzero(mask[rows[0] : rows[0] + max(8, len(rows) // 3)].any(0))
    return float(rows[0]), float(columns.mean()), float(columns[-1] - columns[0] + 1)


def _tuft(photo: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The largest square of nothing but hair, RGB uint8 (S, S, 3)."""
    distances = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_C, 3)[1:-1, 1:-1]
    row, column = np.unravel_index(distances.argmax(), distances.shape)
    reach = max(0, int(distances[row, column]) - 1)
    return photo[row - reach : row + reach + 1, column - reach : column + reach + 1]


def _make_cloth(fabric: np.ndarray, head_width: float, rng: np.random.Generator) -> np.ndarray:
    """The surface of a hat, float32 (H, W, 3) from 0 to 255, from an image uint8 of the same shape."""
    cloth = fabric.astype(np.float32)
    down, across = cloth.shape[:2]
    band = 0 if rng.random() < NO_BAND else round(rng.uniform(*BAND_HEIGHT) * down)
    for part in (cloth[: down - band], cloth[down - band :]):
        grey = BRIGHTEST_CLOTH * rng.uniform(0, 1) ** 2
        color = grey + rng.uniform(0, 1) ** 2 * (rng.integers(0, 256, 3) - grey)  # dark and muted, as most hair is
        part += rng.uniform(0, 1) ** 0.5 * (color - part)  # from the picture itself to a plain colour
    ribs = np.arange(across) * 2 * np.pi / (rng.uniform(*STITCH) * head_width + 2)
    stitches = np.arange(down) * 2 * np.pi / (rng.uniform(*STITCH) * head_width + 2)
    knit = 1 + max(0, rng.uniform(*KNIT_CONTRAST)) * np.sin(ribs) * np.abs(np.sin(stitches))[:, None]
    shade = 1 - rng.uniform(*SHADE) * np.linspace(-1, 1, across) ** 2
    cloth *= (knit * shade)[..., None].astype(np.float32)
    return cloth.clip(0, 255)

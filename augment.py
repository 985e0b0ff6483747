"""What training does to a photo and its mask before the network sees them."""

import os
from functools import partial

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else every worker asks the network for a newer version

import albumentations as A
import cv2
import numpy as np
from albumentations.pytorch import ToTensorV2

from geometry import fit_square


def eval_transform(size: int) -> A.Compose:
    """Photo and mask to a square of `size`, as inference brings them there."""
    return A.Compose([_letterbox(size), ToTensorV2()], strict=True)


def train_transform(strength: str, size: int) -> A.Compose:
    """Augmentations `none`, `light` or `heavy`: geometry on both, photometry on the photo. All stays uint8."""
    steps = {"none": lambda size: [_letterbox(size)], "light": _light, "heavy": _heavy}[strength](size)
    return A.Compose([*steps, ToTensorV2()], strict=True)


def _letterbox(size: int) -> A.Lambda:
    fit = partial(_fit, size=size)
    return A.Lambda(image=fit, mask=partial(fit, interpolation=cv2.INTER_NEAREST_EXACT), name="letterbox")


def _fit(picture: np.ndarray, size: int, interpolation: int | None = None, **_: object) -> np.ndarray:
    return fit_square(picture, size, interpolation)  # a function of its own, since spawned workers are sent its name


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
        scale=(0.25, 1.0),  # in closer crops hair is a texture, and textures would become hair
        ratio=(0.7, 1.4),
        area_for_downscale="image",
        mask_interpolation=cv2.INTER_NEAREST_EXACT,
    )
    return [
        A.OneOf([crop, _letterbox(size)], p=1),
        A.HorizontalFlip(p=0.5),
        A.Affine(scale=(0.7, 1.25), rotate=(-35, 35), shear=(-8, 8), translate_percent=(-0.12, 0.12), p=0.5),
        A.RandomBrightnessContrast(0.25, 0.25, p=0.5),
        A.RandomGamma((70, 140), p=0.2),
        A.HueSaturationValue(15, 40, 15, p=0.4),
        A.ToGray(p=0.1),
        A.OneOf(
            [
                A.GaussianBlur(sigma_limit=(0.5, 2.0)),
                A.MotionBlur(blur_limit=(3, 7)),
                A.ImageCompression(quality_range=(30, 80)),
                A.GaussNoise(std_range=(0.02, 0.08)),
            ],
            p=0.35,
        ),
    ]


def paste(
    image: np.ndarray, mask: np.ndarray, canvas: np.ndarray, canvas_mask: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Shrink a photo to 1/8 to 2/3 of another one's shorter side and put it there: small heads, several people.

    Args:
        image, canvas: RGB uint8 (H, W, 3), of any two sizes.
        mask, canvas_mask: uint8 {0, 1} (H, W) of the same.
        rng: decides on size and place.

    Returns:
        The canvas with the photo on it, and its mask.
    """
    scale = np.exp(rng.uniform(np.log(1 / 8), np.log(2 / 3))) * min(canvas.shape[:2]) / max(image.shape[:2])
    height, width = (
        min(space, max(8, round(side * scale))) for side, space in zip(image.shape[:2], canvas.shape, strict=False)
    )
    top, left = (
        int(rng.integers(0, space - side + 1)) for space, side in zip(canvas.shape, (height, width), strict=False)
    )
    canvas, canvas_mask = canvas.copy(), canvas_mask.copy()
    window = np.s_[top : top + height, left : left + width]
    canvas[window] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    canvas_mask[window] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return canvas, canvas_mask


def put_hat(
    image: np.ndarray, mask: np.ndarray, fabric: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cover the top of the hair with something like a hat, of which data sets have too few to learn that it is no hair.

    Args:
        image: RGB uint8 (H, W, 3).
        mask: uint8 {0, 1} (H, W).
        fabric: any picture without people, RGB uint8.
        rng: decides on size, tilt, colour and knit.

    Returns:
        The photo with a hat, and its mask without what the hat covers; both as they were where there is no hair.
    """
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return image, mask
    columns = np.flatnonzero(mask[rows[0] : rows[0] + max(8, len(rows) // 3)].any(0))
    width, middle = columns[-1] - columns[0] + 1, columns.mean()
    brim = rows[0] + rng.uniform(0.25, 0.6) * width + rng.uniform(-0.2, 0.2) * (np.arange(mask.shape[1]) - middle)
    y, x = np.nonzero(mask & (np.arange(mask.shape[0])[:, None] < brim))
    if len(y) < 64:
        return image, mask
    hat = cv2.fillConvexPoly(np.zeros_like(mask), cv2.convexHull(np.stack([x, y], 1).astype(np.int32)), 1)
    wider = 2 * round(rng.uniform(0.01, 0.06) * width) + 3
    hat = cv2.dilate(hat, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (wider, wider)))
    left, top, across, down = cv2.boundingRect(hat)
    window = np.s_[top : top + down, left : left + across]
    cloth = cv2.resize(fabric, (across, down), interpolation=cv2.INTER_AREA).astype(np.float32)
    band = 0 if rng.random() < 0.5 else round(rng.uniform(0.2, 0.7) * down)  # caps have one of another colour
    for part in (cloth[: down - band], cloth[down - band :]):
        grey = 240 * rng.uniform(0, 1) ** 2
        color = grey + rng.uniform(0, 1) ** 2 * (rng.integers(0, 256, 3) - grey)  # dark and muted, as most hair is
        part += rng.uniform(0, 1) ** 0.5 * (color - part)  # from the picture itself to a plain colour
    ribs, stitches = (np.arange(side) * 2 * np.pi / (rng.uniform(0.02, 0.06) * width + 2) for side in (across, down))
    knit = 1 + max(0, rng.uniform(-0.2, 0.3)) * np.sin(ribs) * np.abs(np.sin(stitches))[:, None]
    shade = 1 - rng.uniform(0, 0.5) * np.linspace(-1, 1, across) ** 2
    cloth *= (knit * shade)[..., None].astype(np.float32)
    alpha = cv2.blur(hat[window].astype(np.float32), (3, 3))[..., None]
    image, mask = image.copy(), mask.copy()
    image[window] = (image[window] + alpha * (cloth.clip(0, 255) - image[window])).astype(np.uint8)
    mask[hat > 0] = 0
    return image, mask

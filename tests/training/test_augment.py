"""What augmentation and compositions do to a photo, they do to its mask."""

from collections import Counter

import cv2
import numpy as np
import pytest

from training import augment


@pytest.mark.parametrize("strength", ["none", "light", "heavy"])
def test_augmentations_keep_the_mask_on_the_photo(strength: str) -> None:
    """Where the photo is white the mask is 1: after any geometry the two still agree."""
    image = np.zeros((96, 128, 3), np.uint8)
    cv2.circle(image, (70, 50), 30, (255, 255, 255), -1)
    transform = augment.train_transform(strength, 64)
    overlaps = []
    for seed in range(30):
        transform.set_random_seed(seed)
        out = transform(image=image, mask=(image[..., 0] > 0).astype(np.uint8))
        assert out["image"].shape == (3, 64, 64)
        assert out["mask"].shape == (64, 64)
        assert set(out["mask"].unique().tolist()) <= {0, 1}
        photo = out["image"].float()
        bright, hair = photo.mean(0) > photo.mean(), out["mask"] > 0
        overlaps.append(((bright & hair).sum() + 1) / ((bright | hair).sum() + 1))
    assert np.median(overlaps) > 0.9


def test_heavy_turns_photos_any_way_and_light_keeps_them_upright() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:20, 24:40] = 1  # hair on top
    for strength, upside in (("light", 0), ("heavy", 0.02)):
        transform = augment.train_transform(strength, 64)
        transform.set_random_seed(0)
        masks = [transform(image=image, mask=mask)["mask"].numpy() for _ in range(200)]
        at = np.array([np.argwhere(found).mean(0) / 63 - 0.5 for found in masks if found.any()])
        assert (at[:, 0] > 0.2).mean() >= upside and (abs(at[:, 1]) > 0.2).mean() >= upside
        assert strength == "heavy" or ((at[:, 0] < 0).all() and (abs(at[:, 1]) < 0.2).all())


def test_heavy_darkens_some_photos() -> None:
    """Evening photos are among what is learned."""
    rng = np.random.default_rng(0)
    image = rng.integers(150, 250, (64, 64, 3), np.uint8)
    transform = augment.train_transform("heavy", 64)
    transform.set_random_seed(0)
    photos = [transform(image=image, mask=image[..., 0])["image"].numpy() for _ in range(200)]
    light = np.array([photo.max() / 250 for photo in photos])
    assert augment.DIM / 2 < (light < augment.DIM_LIGHT[1]).mean() < augment.DIM * 2


@pytest.mark.parametrize(
    ("strength", "size", "width", "height", "scale"),
    [
        ("light", 256, 512, 512, 2),
        ("none", 256, 1024, 1024, 4),
        ("light", 288, 512, 512, 1),
        ("light", 256, 300, 512, 2),  # the longer side decides
        ("light", 256, 427, 640, 1),  # the scale divides both sides
        ("light", 384, 3024, 4032, 8),
        ("light", 512, 3024, 4032, 4),
        ("light", 64, 4000, 4000, 8),  # there is no smaller scale
        ("heavy", 256, 512, 512, 1),
        ("heavy", 256, 1024, 1024, 2),
        ("heavy", 256, 900, 2048, 1),  # the shorter side decides
        ("heavy", 256, 3024, 4032, 4),
    ],
)
def test_jpegs_are_decoded_as_small_as_the_augmentation_allows(
    strength: str, size: int, width: int, height: int, scale: int
) -> None:
    assert augment.jpeg_scale(strength, size, width, height) == scale


def test_compositions_have_their_shares() -> None:
    assert sum(augment.COMPOSITIONS.values()) == pytest.approx(1)
    rng = np.random.default_rng(0)
    drawn = Counter(augment.choose_composition(rng) for _ in range(20_000))
    assert {name: drawn[name] / 20_000 for name in drawn} == pytest.approx(augment.COMPOSITIONS, abs=0.015)


def test_paste_puts_photo_and_mask_at_the_same_place() -> None:
    rng = np.random.default_rng(0)
    image, mask = np.full((60, 40, 3), 255, np.uint8), np.ones((60, 40), np.uint8)
    canvas, empty = np.zeros((100, 200, 3), np.uint8), np.zeros((100, 200), np.uint8)
    for _ in range(20):
        out, out_mask = augment.paste(image, mask, canvas, empty, rng)
        np.testing.assert_array_equal(out[..., 0] > 0, out_mask > 0)
        assert 100 / 8 - 1 <= np.flatnonzero(out_mask.any(1)).size <= 100 * 2 / 3 + 1
        small = augment.paste(image, mask, canvas, empty, rng, (1 / 4, 1 / 4))[1]
        assert np.flatnonzero(small.any(1)).size == 25
    assert not canvas.any()
    for low in (canvas[:3], canvas[:, :1]):
        assert augment.paste(image, mask, low, empty[: low.shape[0], : low.shape[1]], rng)[0].shape == low.shape


def test_a_hat_covers_hair_from_above() -> None:
    image, mask = np.full((120, 160, 3), 90, np.uint8), np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (80, 60), (40, 50), 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (80, 75), (22, 30), 0, 0, 360, 0, -1)  # the face
    fabric = np.full((40, 50, 3), 200, np.uint8)
    for seed in range(20):
        out, out_mask = augment.put_hat(image, mask, fabric, np.random.default_rng(seed))
        covered = (mask > 0) & (out_mask == 0)
        assert covered.any() and out_mask.any()
        assert not (out_mask & ~mask).any()  # a hat adds no hair
        assert np.nonzero(covered)[0].mean() < np.nonzero(out_mask)[0].mean()
        below = np.nonzero((out != image).any(2))[0].max() + 1
        np.testing.assert_array_equal(out[below:], image[below:])
    bald = np.zeros_like(mask)
    assert augment.put_hat(image, bald, fabric, np.random.default_rng(0))[0] is image


def test_a_coat_of_fur_lies_below_the_face_and_behind_the_hair() -> None:
    image, mask = np.full((300, 160, 3), 90, np.uint8), np.zeros((300, 160), np.uint8)
    cv2.ellipse(mask, (80, 60), (20, 25), 0, 0, 360, 1, -1)
    mask[60:150, 60:66] = 1  # long hair
    other, other_mask = np.random.default_rng(0).integers(100, 120, (80, 90, 3), np.uint8), np.zeros((80, 90), np.uint8)
    other_mask[10:50, 20:60] = 1
    other[other_mask == 0] = 255  # nothing of it may be in the fur
    for seed in range(20):
        out, out_mask = augment.put_coat(image, mask, other, other_mask, np.random.default_rng(seed))
        assert out_mask is mask
        coat = (out != image).any(2)
        assert coat.sum() > 40 * 40
        assert np.nonzero(coat)[0].min() > 60 and not coat[100:140, 61:65].any()
        assert out[coat].max() <= 120 * 1.5
    bald = np.zeros_like(mask)
    assert augment.put_coat(image, bald, other, other_mask, np.random.default_rng(0))[0] is image
    assert augment.put_coat(image, mask, image, bald, np.random.default_rng(0))[0] is image

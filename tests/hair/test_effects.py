"""Overlay, cut-out, dye and refined edges change the hair and leave the rest."""

import cv2
import numpy as np
import pytest

from hair import effects
from hair.colors import parse_color
from tests.pictures import by_brightness


def test_overlay_tints_hair_alone(head: np.ndarray) -> None:
    mask = np.zeros(head.shape[:2], bool)
    mask[40:60, 40:60] = True
    overlay = effects.draw_overlay(head, mask)
    assert (overlay[45:55, 45:55] != head[45:55, 45:55]).any(axis=2).all()
    np.testing.assert_array_equal(overlay[:30], head[:30])


def test_recolor_keeps_lightness_and_the_rest(head: np.ndarray) -> None:
    probabilities = np.zeros(head.shape[:2], np.float32)
    probabilities[30:60, 30:60] = 1

    def lightness(rgb: np.ndarray) -> np.ndarray:
        return cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[30:60, 30:60, 0]

    dyed = effects.recolor(head, probabilities, 0.5, parse_color("blue"))
    assert np.abs(lightness(dyed) - lightness(head)).mean() < 2
    assert dyed[30:60, 30:60, 2].mean() > head[30:60, 30:60, 2].mean() + 10
    noisy = np.random.default_rng(0).integers(0, 256, head.shape, np.uint8)
    turned = effects.recolor(np.rot90(head), np.rot90(probabilities), 0.5, parse_color("blue"))
    np.testing.assert_array_equal(turned, np.rot90(dyed))
    pale = effects.recolor(noisy, probabilities, 0.5, (0, 0, 255), strength=0)
    np.testing.assert_array_equal(pale, noisy)
    for image in (head, noisy):
        changed = effects.recolor(image, probabilities, 0.5, (0, 0, 255))
        np.testing.assert_array_equal(changed[:28], image[:28])


def test_alpha_is_half_at_the_threshold(head: np.ndarray) -> None:
    probabilities = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (96, 1))
    cut = effects.cut_out(head, probabilities, 0.7)
    np.testing.assert_array_equal(cut[..., :3], head)
    alpha = cut[0, :, 3].astype(int)
    assert alpha[0] == 0 and alpha[-1] == 255 and (np.diff(alpha) >= 0).all()
    assert abs(np.interp(0.7, probabilities[0], alpha) - 127.5) < 5


def test_looks_reach_every_kind_of_picture(head: np.ndarray) -> None:
    """Each field of Looks changes the pictures that it is for, and no others."""
    probabilities = by_brightness(head)
    plain = effects.Looks(0.5, (9, 9, 99))
    others = {
        "threshold": effects.Looks(0.7, (9, 9, 99)),
        "color": effects.Looks(0.5, (99, 9, 9)),
        "opacity": effects.Looks(0.5, (9, 9, 99), opacity=0.9),
        "strength": effects.Looks(0.5, (9, 9, 99), strength=0.5),
    }
    changes = {
        field: {
            kind
            for kind in ("overlay", "mask", "alpha", "recolor")
            if (effects.draw(kind, head, probabilities, looks) != effects.draw(kind, head, probabilities, plain)).any()
        }
        for field, looks in others.items()
    }
    assert changes == {
        "threshold": {"overlay", "mask", "alpha", "recolor"},
        "color": {"recolor"},
        "opacity": {"overlay"},
        "strength": {"recolor"},
    }


def test_refined_edges_follow_the_photo() -> None:
    photo = np.full((128, 128, 3), 220, np.uint8)
    photo[:, :64] = 40
    blurred = np.tile(np.clip((70 - np.arange(128)) / 24 + 0.5, 0, 1).astype(np.float32), (128, 1))  # 6 px off

    def wrong(probabilities: np.ndarray) -> int:
        return np.count_nonzero((probabilities >= 0.5) != (photo[..., 0] < 128))

    assert wrong(effects.refine_edges(photo, blurred, 64)) < 0.7 * wrong(blurred)


def test_strips_give_the_same_picture(head: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    refined = effects.refine_edges(head, by_brightness(head), 32)
    dyed = effects.recolor(head, by_brightness(head), 0.5, (9, 9, 99))
    monkeypatch.setattr(effects, "STRIP", 96 * 20)
    np.testing.assert_allclose(effects.refine_edges(head, by_brightness(head), 32), refined, atol=1e-4)
    np.testing.assert_array_equal(effects.recolor(head, by_brightness(head), 0.5, (9, 9, 99)), dyed)

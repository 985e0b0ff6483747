"""Each kind of picture changes the hair and leaves the rest."""

from dataclasses import replace

import numpy as np
import pytest

from hair import effects, strips
from hair.colors import parse_color, to_lab
from hair.dye import Dye
from hair.results import PICTURES
from tests.pictures import by_brightness

DYE = Dye(((9, 9, 99),))


def test_overlay_tints_hair_alone(head: np.ndarray) -> None:
    mask = np.zeros(head.shape[:2], bool)
    mask[40:60, 40:60] = True
    overlay = effects.draw_overlay(head, mask)
    assert (overlay[45:55, 45:55] != head[45:55, 45:55]).any(axis=2).all()
    np.testing.assert_array_equal(overlay[:30], head[:30])


def test_without_bleach_lightness_stays(head: np.ndarray) -> None:
    probabilities = np.zeros(head.shape[:2], np.float32)
    probabilities[30:60, 30:60] = 1
    dyed = effects.recolor(head, probabilities, 0.5, Dye((parse_color("blue"),), bleach=False))
    lightness = [to_lab(picture)[30:60, 30:60, 0] for picture in (dyed, head)]
    assert np.abs(lightness[0] - lightness[1]).mean() < 2
    assert dyed[30:60, 30:60, 2].mean() > head[30:60, 30:60, 2].mean() + 10
    np.testing.assert_array_equal(dyed[:28], head[:28])


def test_looks_reach_every_kind_of_picture(head: np.ndarray) -> None:
    """Each field of Looks changes the pictures that it is for, and no others."""
    head = np.ascontiguousarray(head[::2, ::2])
    probabilities = by_brightness(head)
    plain = effects.Looks(0.5, DYE)
    others = {
        "threshold": replace(plain, threshold=0.95),
        "opacity": replace(plain, opacity=0.9),
        "color": replace(plain, dye=Dye(((99, 9, 9),))),
        "strength": replace(plain, dye=replace(DYE, strength=0.5)),
        "bleach": replace(plain, dye=replace(DYE, bleach=False)),
        "highlights": replace(plain, dye=replace(DYE, highlights=0.5)),
        "background": replace(plain, background=(9, 99, 9)),
    }
    before = {kind: effects.draw(kind, head, probabilities, plain) for kind in PICTURES}
    changes = {
        field: {
            kind
            for kind, picture in before.items()
            if not np.array_equal(effects.draw(kind, head, probabilities, looks), picture)
        }
        for field, looks in others.items()
    }
    assert changes == {
        "threshold": {"overlay", "mask", "alpha", "recolor", "palette"},
        "opacity": {"overlay"},
        "color": {"recolor"},
        "strength": {"recolor", "palette"},
        "bleach": {"recolor", "palette"},
        "highlights": {"recolor"},
        "background": {"alpha"},
    }


def test_strips_give_the_same_picture(head: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    dyed = effects.recolor(head, by_brightness(head), 0.5, DYE)
    monkeypatch.setattr(strips, "STRIP", 96 * 20)
    np.testing.assert_array_equal(effects.recolor(head, by_brightness(head), 0.5, DYE), dyed)

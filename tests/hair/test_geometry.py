"""From photos to the network's square and back, and where to look closer, over random layouts of heads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hair import geometry
from tests.pictures import FUZZ


@pytest.mark.parametrize("shape", [(64, 64), (50, 90), (90, 50), (300, 200), (31, 400)])
def test_preprocess_is_the_eval_transform(shape: tuple[int, int]) -> None:
    pytest.importorskip("torch")
    import models
    from training import augment

    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ours = geometry.preprocess(image, 64, mean, std)
    theirs = models.Normalise(mean, std)(augment.eval_transform(64)(image=image)["image"]).numpy()
    assert ours.shape == theirs.shape == (3, 64, 64)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((96, 96), (0, 96, 0, 96)),
        ((80, 100), (9, 86, 0, 96)),
        ((400, 200), (0, 96, 24, 72)),
        ((1, 1000), (47, 48, 0, 96)),
    ],
)
def test_photos_keep_their_proportions_in_the_square(shape: tuple[int, int], place: tuple[int, int, int, int]) -> None:
    rows, columns = geometry.letterbox(*shape, 96)
    assert (rows.start, rows.stop, columns.start, columns.stop) == place
    photo = np.full((*shape, 3), 200, np.uint8)
    square = geometry.fit_square(photo, 96)
    assert (square[rows, columns] == 200).all() and square.sum() == square[rows, columns].sum()


@FUZZ
@given(height=st.integers(1, 400), width=st.integers(1, 400), size=st.sampled_from([32, 64, 96]))
def test_there_and_back_keeps_the_shape(height: int, width: int, size: int) -> None:
    photo = np.full((height, width, 3), 255, np.uint8)
    square = geometry.preprocess(photo, size, (0, 0, 0), (1, 1, 1))
    assert square.shape == (3, size, size) and square.dtype == np.float32
    back = geometry.restore(square[0], photo.shape)
    assert back.shape == (height, width) and back.dtype == np.float32
    np.testing.assert_allclose(back, 1, atol=1e-6)  # nothing of the square's margin comes in
    wild = geometry.restore(np.tile(np.float32([-5, 5]), (size, size // 2)), photo.shape)
    assert wild.min() >= 0 and wild.max() <= 1


# ---------------------------------------------------------------------------------------------------- closer looks


def test_small_heads_get_a_closer_look() -> None:
    look = np.zeros((100, 100), np.float32)
    look[10:18, 20:26] = look[70:80, 70:80] = 0.2
    assert geometry.crops_around(look, (1000, 1000)) == []  # doubt alone is no head
    look[12:14, 22:24] = look[75, 75] = 0.9
    crops = geometry.crops_around(look, (1000, 1000))
    assert len(crops) == 2
    assert crops[0] == np.s_[625:875, 625:875]  # the larger one first
    look[20:90, 10:90] = 1
    assert geometry.crops_around(look, (1000, 1000)) == []  # a portrait needs none


def test_closer_looks_never_overlap_and_begin_with_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        look = np.zeros(rng.integers(60, 130, 2), np.float32)
        for _ in range(rng.integers(2, 9)):
            height, width = rng.integers(3, 12, 2)
            top, left = (rng.integers(0, side - 12) for side in look.shape)
            look[top : top + height, left : left + width] = 0.9
        scale = rng.uniform(0.5, 9)
        shape = tuple(round(side * scale) for side in look.shape)
        taken = np.zeros(shape, np.uint8)
        crops = geometry.crops_around(look, shape)
        for crop in crops:
            assert taken[crop].size and not taken[crop].any()
            taken[crop] = 1
        # All the crops are the most wanted ones of those that there would be without a limit.
        with monkeypatch.context() as unlimited:
            unlimited.setattr(geometry, "MOST_CROPS", 99)
            assert crops == geometry.crops_around(look, shape)[: len(crops)]


def test_a_merged_square_keeps_the_place_of_its_largest_head(monkeypatch: pytest.MonkeyPatch) -> None:
    look = np.zeros((200, 200), np.float32)
    look[20:30, 20:30] = 0.9
    look[22:28, 36:42] = 0.9  # its square meets the first one's
    look[120:129, 120:129] = 0.9
    assert len(geometry.crops_around(look, (200, 200))) == 2
    monkeypatch.setattr(geometry, "MOST_CROPS", 1)
    ((rows, columns),) = geometry.crops_around(look, (200, 200))
    assert rows.start < 20 and columns.stop > 42

"""From photos to the network's square and back."""

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

"""Where to look closer, over random layouts of heads."""

import numpy as np

import geometry


def test_closer_looks_never_overlap_and_begin_with_the_largest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        look = np.zeros(rng.integers(60, 130, 2), np.float32)
        for _ in range(rng.integers(2, 9)):
            height, width = rng.integers(3, 12, 2)
            top, left = (rng.integers(0, side - 12) for side in look.shape)
            look[top : top + height, left : left + width] = 0.9
        shape = tuple(round(side * scale) for scale in [rng.uniform(0.5, 9)] for side in look.shape)
        taken = np.zeros(shape, np.uint8)
        crops = geometry.crops_around(look, shape)
        for crop in crops:
            assert taken[crop].size and not taken[crop].any()
            taken[crop] = 1
        # All the crops are the most wanted ones of those that there would be without a limit.
        assert crops == geometry.crops_around(look, shape, most=99)[: len(crops)]


def test_a_merged_square_keeps_the_place_of_its_largest_head() -> None:
    look = np.zeros((200, 200), np.float32)
    look[20:30, 20:30] = 0.9
    look[22:28, 36:42] = 0.9  # its square meets the first one's
    look[120:129, 120:129] = 0.9
    assert len(geometry.crops_around(look, (200, 200))) == 2
    ((rows, columns),) = geometry.crops_around(look, (200, 200), most=1)
    assert rows.start < 20 and columns.stop > 42

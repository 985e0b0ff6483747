"""Where to look closer, over drawn heads: windows, crowds in tiles, how many looks, and what is not believed."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hair import looks
from tests.pictures import FUZZ, Bright

FIRST = 64  # pixels of the first look's longer side


def draw_heads(rows: int, columns: int, pitch: int = 60, striped: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Heads in a grid, RGB uint8, and where they are, bool; striped, every other one can be seen from near only."""
    photo = np.zeros((rows * pitch, columns * pitch, 3), np.uint8)
    for k in range(rows * columns):
        centre = (k % columns * pitch + pitch // 2, k // columns * pitch + pitch // 2)
        cv2.circle(photo, centre, pitch // 3, (255, 255, 255), -1)
    heads = photo[..., 0] > 0
    if striped:
        fading = np.zeros_like(heads)
        for k in range(0, rows * columns, 2):
            fading[k // columns * pitch :, k % columns * pitch :][:pitch, :pitch] = True
        photo[fading & heads] = 120
    return photo, heads


class Recorder:
    """Stands in for the network, which takes bright pixels for hair, and dim ones too if it looks from near."""

    def __init__(self, from_near: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.from_near = from_near or (lambda part: (part[..., 0] > 100).astype(np.float32))

    def __call__(self, part: np.ndarray, enlarged: float) -> np.ndarray:
        self.shapes.append(part.shape)
        return self.from_near(part) if enlarged == 1 else (part[..., 0] > 127).astype(np.float32)


def look_at(photo: np.ndarray, network: Recorder) -> np.ndarray:
    """The probabilities after all looks, of which the first takes only bright pixels for hair."""
    probabilities = (photo[..., 0] > 127).astype(np.float32)
    scale = FIRST / max(photo.shape)
    first = cv2.resize(probabilities, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    looks.look_closer(photo, first, probabilities, network)
    return probabilities


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


@pytest.mark.parametrize("grid", [(4, 8), (5, 10), (10, 3), (6, 6)])
def test_a_crowd_is_found_whole_although_half_of_it_was_missed(grid: tuple[int, int]) -> None:
    photo, heads = draw_heads(*grid, striped=True)
    assert dice(photo[..., 0] > 127, heads) < 0.7
    network = Recorder()
    assert dice(look_at(photo, network) >= 0.5, heads) > 0.97
    assert len(network.shapes) <= 1 + looks.MOST_LOOKS <= 24  # a look at the whole, and tiles
    assert network.shapes[0] == photo.shape


def test_a_portrait_and_a_photo_without_hair_take_one_look() -> None:
    portrait = np.zeros((300, 200, 3), np.uint8)
    cv2.circle(portrait, (100, 130), 70, (255, 255, 255), -1)
    cv2.circle(portrait, (100, 230), 5, (255, 255, 255), -1)  # a lock, which belongs to the head
    for photo in (portrait, np.zeros_like(portrait)):
        network = Recorder()
        found = look_at(photo, network)
        assert network.shapes == []
        np.testing.assert_array_equal(found, photo[..., 0] > 127)


def test_a_small_head_gets_a_window_in_which_its_hair_fills_two_fifths() -> None:
    photo = np.zeros((400, 700, 3), np.uint8)
    cv2.circle(photo, (350, 222), 15, (120, 120, 120), -1)  # beside the head, and seen from near only
    cv2.circle(photo, (285, 140), 5, (120, 120, 120), -1)  # in the window, and not beside it
    cv2.circle(photo, (350, 200), 30, (255, 255, 255), -1)
    network = Recorder()
    found = look_at(photo, network) >= 0.5
    ((height, width, _),) = network.shapes
    assert 0.3 < 60 / height < 0.45 and 0.3 < 60 / width < 0.45
    assert found[235, 350] and found[200, 350] and not found[140, 285]


def test_where_a_window_disagrees_texture_is_not_hair() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    cv2.rectangle(photo, (100, 100), (140, 140), (255, 255, 255), -1)
    assert not (look_at(photo, Recorder(lambda part: np.zeros(part.shape[:2], np.float32))) >= 0.5).any()


def test_fur_that_fills_the_largest_window_is_not_believed() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    cv2.rectangle(photo, (100, 150), (220, 200), (255, 255, 255), -1)
    network = Recorder(lambda part: np.ones(part.shape[:2], np.float32))
    found = look_at(photo, network) >= 0.5
    assert max(network.shapes[0]) <= looks.LARGEST_WINDOW * 400 + 2
    np.testing.assert_array_equal(found, photo[..., 0] > 0)


def test_hair_that_no_look_was_sure_of_is_looked_at_larger() -> None:
    photo = np.zeros((400, 400, 3), np.uint8)
    cv2.circle(photo, (200, 200), 30, (255, 255, 255), -1)
    probabilities = 0.3 * (photo[..., 0] > 127).astype(np.float32)  # thin and grey
    network = Recorder()
    looks.look_closer(photo, cv2.resize(probabilities, (64, 64)), probabilities, network)
    assert network.shapes[0] == photo.shape and len(network.shapes) == 2
    assert dice(probabilities >= 0.5, photo[..., 0] > 0) > 0.97


def test_doubt_alone_is_no_head() -> None:
    look = np.zeros((100, 100), np.float32)
    look[10:18, 20:26] = look[70:80, 70:80] = 0.2
    assert looks.find_heads(look, (1000, 1000)) == []
    look[12:14, 22:24] = look[75, 75] = 0.9
    heads = looks.find_heads(look, (1000, 1000))
    assert [low.tolist() for low, _ in heads] == [[700, 700], [100, 200]]  # the larger one first
    assert looks.windows(heads, (1000, 1000))[0] == (np.s_[625:875, 625:875], False)


@FUZZ
@given(height=st.integers(1, 900), width=st.integers(1, 900), size=st.floats(0.5, 700), count=st.integers(1, 40))
def test_tiles_cover_any_photo_and_windows_lie_in_it(height: int, width: int, size: float, count: int) -> None:
    rng = np.random.default_rng(count)
    lows = rng.uniform(0, 1, (count, 2)) * (height, width)
    heads = [(low, np.minimum(low + size, (height, width)) + 1e-3) for low in lows]
    squares = looks.tiles(heads, (height, width))
    covered = np.zeros((height, width), bool)
    for rows, columns in squares:
        assert covered[rows, columns].size
        covered[rows, columns] = True
    assert covered.all() and len(squares) <= looks.MOST_LOOKS
    found = looks.windows(heads, (height, width))
    assert len(found) <= looks.MOST_LOOKS
    assert all(covered[window].size and (np.array(covered[window].shape) > 0).all() for window, _ in found)


@pytest.mark.parametrize(("fixed", "sizes"), [(None, [64, 96]), (64, [64, 64])])
def test_a_file_of_a_fixed_size_sees_no_other(fixed: int | None, sizes: list[int]) -> None:
    segmenter, seen = Bright(), []
    network = segmenter._network
    segmenter._network = lambda batch: seen.append(batch.shape[-1]) or network(batch)
    segmenter.facts |= {"fixed_size": fixed}
    photo = np.full((50, 40, 3), 140, np.uint8)
    for enlarged in (1, looks.ENLARGED):
        assert segmenter._look(photo, enlarged).shape == (50, 40)
    assert seen == sizes


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("is_small", [False, True])
def test_a_doubtful_portrait_is_looked_at_turned(quarters: int, is_small: bool) -> None:
    upright = np.zeros((300, 200, 3), np.uint8)
    cv2.circle(upright, (100, 90), 20 if is_small else 70, (255, 255, 255), -1)
    photo = np.ascontiguousarray(np.rot90(upright, quarters))
    shapes = []

    def look(part: np.ndarray, _: float) -> np.ndarray:
        """Sure only where the hair is at the top; elsewhere half of it is missed."""
        shapes.append(part.shape)
        white = part[..., 0] > 127
        is_upright = np.nonzero(white)[0].mean() < 0.45 * len(part)
        doubtful = np.where(white, 0.75, 0.1)
        doubtful[:, : np.nonzero(white)[1].mean().astype(int)] = 0.1
        return (white if is_upright else doubtful).astype(np.float32)

    probabilities = look(photo, 1)
    scale = FIRST / max(photo.shape)
    first = cv2.resize(probabilities, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    shapes.clear()
    looks.look_closer(photo, first, probabilities, look)
    if is_small:
        assert max(max(shape) for shape in shapes) > FIRST  # a window of the photo
        return
    assert len(shapes) == (3 if quarters else 0)
    assert dice(probabilities >= 0.5, photo[..., 0] > 0) > 0.95


def test_a_turned_look_that_is_hardly_clearer_does_not_count() -> None:
    photo = np.zeros((300, 200, 3), np.uint8)
    cv2.circle(photo, (100, 90), 70, (255, 255, 255), -1)
    probabilities = np.where(photo[..., 0] > 127, 0.7, 0.1).astype(np.float32)
    before = probabilities.copy()
    first = cv2.resize(probabilities, (43, 64), interpolation=cv2.INTER_AREA)
    looks.look_closer(photo, first, probabilities, lambda part, _: np.where(part[..., 0] > 127, 0.72, 0.1))
    np.testing.assert_array_equal(probabilities, before)

"""Masks become outlines and come back, and outlines become masks without a bias."""

import cv2
import numpy as np
import pytest

from hair.outlines import coco, polygons, rasterise, run_lengths

SQUARE = [(1, 1), (3, 1), (3, 3), (1, 3)]


def test_polygons_give_the_mask_back() -> None:
    mask = np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (70, 60), (50, 45), 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (60, 62), (20, 25), 0, 0, 360, 0, -1)  # a face within the hair
    cv2.circle(mask, (95, 50), 6, 0, -1)
    cv2.circle(mask, (145, 20), 8, 1, -1)  # another person
    outlines = polygons(mask)
    np.testing.assert_array_equal(rasterise(outlines, mask.shape), mask)
    assert sum(map(len, outlines)) < 300, "slopes are lines, not stairs"
    assert coco("a.jpg", mask)["annotations"][0]["bbox"] == [20, 12, 134, 94]
    assert coco("a.jpg", mask * 0)["annotations"] == []


def test_polygons_give_every_mask_back() -> None:
    rng = np.random.default_rng(0)
    for number in range(60):
        noise = rng.random(rng.integers(1, 40, 2)).astype(np.float32)
        mask = (noise > rng.random() if number % 2 else cv2.GaussianBlur(noise, (0, 0), 2) > 0.5).astype(np.uint8)
        np.testing.assert_array_equal(rasterise(polygons(mask), mask.shape), mask, str(number))


def test_a_mask_of_bytes_and_one_of_booleans_are_the_same() -> None:
    mask = np.zeros((40, 50), np.uint8)
    cv2.circle(mask, (20, 20), 12, 1, -1)
    assert coco("a.jpg", mask) == coco("a.jpg", mask.astype(bool))


def test_rasterise_fills_the_pixels_whose_centres_are_inside() -> None:
    mask = rasterise([np.float32(SQUARE)], (5, 5))
    assert mask.dtype == np.uint8 and mask[1:3, 1:3].all() and mask.sum() == 4


def test_rasterise_has_no_bias() -> None:
    """The mean area over many polygons is the exact one; cv2.fillPoly's is half a pixel more along the outline."""
    rng = np.random.default_rng(0)
    exact, filled, painted, length = 0.0, 0, 0, 0.0
    for _ in range(100):
        angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        curve = 64 + rng.uniform(20, 50, (60, 1)) * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.random(2)
        x, y = curve.T
        exact += abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        length += np.linalg.norm(curve - np.roll(curve, 1, 0), axis=1).sum()
        filled += int(rasterise([curve], (128, 128)).sum())
        painted += int(cv2.fillPoly(np.zeros((128, 128)), [np.int32((curve - 0.5) * 256)], 1, shift=8).sum())
    assert abs(filled - exact) < 0.005 * length
    assert painted - exact > 0.3 * length


def test_rasterise_agrees_with_a_test_of_each_pixel_centre() -> None:
    rng = np.random.default_rng(1)
    curve = rng.uniform(-20, 60, (9, 2)).astype(np.float32)  # crosses itself and leaves the frame on all sides
    expected = np.zeros((40, 30), bool)
    for row, column in np.ndindex(40, 30):
        (x0, y0), (x1, y1) = curve.T, np.roll(curve, -1, 0).T
        spans = (y0 > row + 0.5) != (y1 > row + 0.5)
        crossing = x0[spans] + (row + 0.5 - y0[spans]) / (y1 - y0)[spans] * (x1 - x0)[spans]
        expected[row, column] = (crossing > column + 0.5).sum() % 2
    np.testing.assert_array_equal(rasterise([curve], (40, 30)), expected)


def test_rasterise_unites_overlapping_curves() -> None:
    one, two = np.float32(SQUARE), np.float32(SQUARE) + 1
    mask = rasterise([one, two], (6, 6))
    np.testing.assert_array_equal(mask, rasterise([one], (6, 6)) | rasterise([two], (6, 6)))
    assert mask[2, 2] == 1


def test_rasterise_clips_far_away_points() -> None:
    huge = np.float32([(-1e30, -1e30), (1e30, -1e30), (1e30, 1e30), (-1e30, 1e30)])
    assert rasterise([huge], (7, 9)).all()
    assert not rasterise([huge + np.float32(3e30)], (7, 9)).any()
    assert not rasterise([], (7, 9)).any()


def of_runs(runs: dict) -> np.ndarray:
    """The mask of a run-length encoding, as COCO's definition says: down the columns, beginning with no hair."""
    height, width = runs["size"]
    values = np.arange(len(runs["counts"])) % 2
    return np.repeat(values, runs["counts"]).reshape(width, height).T.astype(bool)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (30, 41)])
def test_run_lengths_give_every_pixel_back(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for mask in (np.zeros(shape, bool), np.ones(shape, bool), *(rng.random((3, *shape)) < 0.5)):
        runs = run_lengths(mask)
        assert np.array_equal(of_runs(runs), mask)
        assert sum(runs["counts"]) == mask.size and all(count > 0 for count in runs["counts"][1:])
        assert run_lengths(mask.astype(np.uint8) * 255) == runs


def test_run_lengths_as_pycocotools_writes_them() -> None:
    mask = np.array([[1, 0, 0], [1, 1, 0]], bool)
    assert run_lengths(mask) == {"size": [2, 3], "counts": [0, 2, 1, 1, 2]}
    assert run_lengths(mask & False)["counts"] == [6]


def test_coco_keeps_holes_in_run_lengths() -> None:
    mask = np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (70, 60), (50, 45), 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (60, 62), (20, 25), 0, 0, 360, 0, -1)  # a face within the hair
    (annotation,) = coco("a.jpg", mask, as_runs=True)["annotations"]
    (outlined,) = coco("a.jpg", mask)["annotations"]
    assert np.array_equal(of_runs(annotation["segmentation"]), mask)
    assert {**annotation, "segmentation": 0} == {**outlined, "segmentation": 0} and annotation["iscrowd"] == 0
    assert coco("a.jpg", mask * 0, as_runs=True)["annotations"] == []

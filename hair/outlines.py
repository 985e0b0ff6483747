"""Convert masks to polygons, run lengths and COCO, and polygons to masks."""

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

# How far simplified outlines may be from the edges of the pixels: the centre of a pixel is 0.5 from its edges and
# 0.354 from the line that cuts its corner.
TOLERANCE = 0.35


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask as polygons; `rasterise` turns them back into exactly the same mask.

    Polygons cannot have holes in formats such as COCO, but a face surrounded by hair is a hole: a region with a hole is
    cut in two through the middle of the hole.

    Args:
        mask: bool or uint8 (H, W), non-zero where there is hair.

    Returns:
        Arrays float32 (points, 2), x and y in pixels; pixel (0, 0) covers x and y from 0 to 1.
    """
    mask = _as_bytes(mask)
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [contour for contour, node in zip(contours, tree[0] if contours else [], strict=True) if node[3] >= 0]
    # The contour of a hole runs on the hair around it: for a hole of one pixel it is three wide, with the hole inside.
    cuts = sorted({int(hole[..., 0].min() + hole[..., 0].max()) // 2 for hole in holes})
    outlines = []
    for left, right in pairwise([0, *cuts, mask.shape[1]]):
        # OpenCV's contours run through pixel centres. At double size each pixel is two wide, so that the centres of
        # its first and last rows and columns distinguish its edges.
        part = cv2.resize(mask[:, left:right], None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        pieces, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for piece in pieces:
            edges = (piece[:, 0] + 1) // 2
            halves = _cut_corners(edges[(edges != np.roll(edges, 1, 0)).any(1)])
            points = cv2.approxPolyDP(halves[:, None], 2 * TOLERANCE, closed=True)[:, 0]
            outlines.append(points.astype(np.float32) / 2 + np.array((left, 0), np.float32))
    return outlines


def _cut_corners(points: np.ndarray) -> np.ndarray:
    """Cut the corners of stairs half a pixel from their tips: stairs become slopes, and no pixel centre changes sides.

    Args:
        points: int32 (points, 2), x and y of corners; the edges between them are parallel to the axes.

    Returns:
        int32 (points, 2), in half pixels.
    """
    back, ahead = np.roll(points, 1, 0) - points, np.roll(points, -1, 0) - points
    is_step = (np.minimum(abs(back).sum(1), abs(ahead).sum(1)) == 1)[:, None]
    cut = np.stack([2 * points + is_step * np.sign(back), 2 * points + is_step * np.sign(ahead)], 1).reshape(-1, 2)
    return cut[(cut != np.roll(cut, 1, 0)).any(1)].astype(np.int32)


def box(mask: np.ndarray) -> list[int] | None:
    """The bounding box of the mask, [x, y, width, height] in pixels; None for an empty mask."""
    found = cv2.boundingRect(_as_bytes(mask))
    return list(found) if found[2] else None


def run_lengths(mask: np.ndarray) -> dict:
    """A mask as COCO run-length encoding (RLE), which is exact and can have holes.

    It is uncompressed, as in COCO's own files: pycocotools, Detectron2, torchvision, DALI and CVAT read it.

    Args:
        mask: bool or uint8 (H, W), non-zero where there is hair.

    Returns:
        `size` [H, W] and `counts`: column by column, the numbers of pixels without, with, without … hair.
    """
    pixels = np.ascontiguousarray(mask.T, bool).ravel()
    ends = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(ends, prepend=0, append=pixels.size).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if pixels[0] else counts}


def coco(name: str, mask: np.ndarray, as_runs: bool = False) -> dict:
    """The hair of a photo as a COCO data set of one image, with one annotation, or none if there is no hair.

    Args:
        name: file name of the photo.
        mask: bool or uint8 (H, W), non-zero where there is hair.
        as_runs: write `run_lengths` instead of `polygons`.
    """
    image = {"id": 1, "file_name": name, "width": mask.shape[1], "height": mask.shape[0]}
    area = int(np.count_nonzero(mask))
    segmentation: dict | list
    segmentation = run_lengths(mask) if as_runs else [outline.ravel().tolist() for outline in polygons(mask)]
    # iscrowd is 0 even with run lengths: pycocotools ignores crowds in its scores.
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": area}
    annotations = [{**annotation, "bbox": box(mask), "segmentation": segmentation}] if area and segmentation else []
    return {"images": [image], "categories": [{"id": 1, "name": "hair"}], "annotations": annotations}


def _as_bytes(mask: np.ndarray) -> np.ndarray:
    return mask.view(np.uint8) if mask.dtype == bool else mask


def rasterise(curves: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill closed curves into a mask: a pixel is hair if its centre lies inside at least one curve.

    `cv2.fillPoly` would round the y values and also draw the outline, which adds half a pixel of hair all around.

    Args:
        curves: arrays (points, 2), x and y in pixels; pixel (0, 0) covers x and y from 0 to 1. Points may be outside.
        shape: (height, width).

    Returns:
        uint8 {0, 1} (height, width).
    """
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    for curve in curves:
        x, y = np.asarray(curve, np.float64).T - 0.5  # now pixel centres are whole numbers
        # Each edge crosses the columns [first, first + count); edges between two columns cross none.
        start = np.ceil(x).clip(0, width).astype(np.intp)
        end = np.roll(start, -1)
        edges = np.flatnonzero(start != end)
        first, count = np.minimum(start, end)[edges], np.abs(end - start)[edges]
        slope = (np.roll(y, -1) - y)[edges] / (np.roll(x, -1) - x)[edges]
        column = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        row = np.ceil(np.repeat(y[edges] - x[edges] * slope, count) + column * np.repeat(slope, count))
        row = row.clip(0, height).astype(np.intp)
        # Each crossing switches between inside and outside for all pixels below it. Eight columns are processed at
        # once, as one 64-bit word.
        turns = np.zeros((height + 1, -(-width // 8) * 8), np.uint8)
        np.bitwise_xor.at(turns.reshape(-1), row * turns.shape[1] + column, np.uint8(1))
        words = turns.view(np.uint64)
        np.bitwise_xor.accumulate(words, axis=0, out=words)
        mask |= turns[:height, :width]
    return mask

"""Between masks and outlines: polygons of a mask, COCO, and polygons filled into a mask."""

from collections.abc import Sequence

import cv2
import numpy as np


def polygons(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask's pieces, whose union is the mask with gaps of one pixel closed.

    Lists of polygons such as COCO's cannot express holes, and a face within hair is one: a piece with a hole is cut in
    two through the middle of the hole.

    Args:
        mask: bool or uint8 (H, W), non-zero where there is hair.

    Returns:
        float32 (points, 2) each, x and y in pixels; pixel (0, 0) covers x and y from 0 to 1.
    """
    mask = _as_bytes(mask)
    contours, tree = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    holes = [contour for contour, node in zip(contours, tree[0] if contours else [], strict=True) if node[3] >= 0]
    # A hole's contour runs on the hair around it, so a hole of one pixel is three wide and its middle is inside.
    cuts = sorted({int(hole[..., 0].min() + hole[..., 0].max()) // 2 for hole in holes})
    outlines = []
    for left, right in zip([0, *cuts], [*cuts, mask.shape[1]], strict=True):
        # A corner of the pixel grid is inside if one of the four pixels around it is hair: so the outline runs along
        # the edges of the pixels. Through their middles it would lose half a pixel all around.
        part = cv2.copyMakeBorder(mask[:, left:right], 0, 1, 0, 1, cv2.BORDER_CONSTANT)
        corners = cv2.dilate(part, np.ones((2, 2), np.uint8), anchor=(1, 1))
        pieces, _ = cv2.findContours(corners, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        for piece in pieces:
            points = cv2.approxPolyDP(piece, 0.5, closed=True).reshape(-1, 2)
            if len(points) >= 3:
                outlines.append(points.astype(np.float32) + np.array((left, 0), np.float32))
    return outlines


def box(mask: np.ndarray) -> list[int] | None:
    """The smallest [x, y, width, height] that holds the mask, in pixels; None for an empty one."""
    found = cv2.boundingRect(_as_bytes(mask))
    return list(found) if found[2] else None


def coco(name: str, mask: np.ndarray) -> dict:
    """A photo's hair as a COCO data set of one image, with one annotation unless there is no hair."""
    image = {"id": 1, "file_name": name, "width": mask.shape[1], "height": mask.shape[0]}
    segmentation = [outline.ravel().tolist() for outline in polygons(mask)]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(np.count_nonzero(mask))}
    annotations = [{**annotation, "bbox": box(mask), "segmentation": segmentation}] if segmentation else []
    return {"images": [image], "categories": [{"id": 1, "name": "hair"}], "annotations": annotations}


def _as_bytes(mask: np.ndarray) -> np.ndarray:
    return mask.view(np.uint8) if mask.dtype == bool else mask


def rasterise(curves: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Fill closed curves, as a union, into a mask: hair is a pixel whose centre lies inside a curve.

    `cv2.fillPoly` would round the points' y and paint the outline too, half a pixel more hair all around.

    Args:
        curves: float (points, 2) each, x and y in pixels; pixel (0, 0) covers x and y from 0 to 1. May leave the frame.
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
        # Below each crossing inside turns to outside or back; eight columns at once, as one 64-bit word.
        turns = np.zeros((height + 1, -(-width // 8) * 8), np.uint8)
        np.bitwise_xor.at(turns.reshape(-1), row * turns.shape[1] + column, np.uint8(1))
        words = turns.view(np.uint64)
        np.bitwise_xor.accumulate(words, axis=0, out=words)
        mask |= turns[:height, :width]
    return mask

"""A data set of photos and label files: finds the photos, chooses the classes, draws the masks."""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from hair.errors import UserError
from hair.outlines import rasterise
from hair.photos import photos_in
from training.drawings import DAMAGE, Class, Labelled, read_labels, reason
from training.folders import by_number, split_rows
from training.masks import check_picture, check_proportions

HAIR = "hair"  # the default class
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-")  # Label Studio adds this to the names of uploaded photos


@dataclass(frozen=True)
class LabelIndex:
    """Photos with drawn curves and masks.

    The drawings are stored in a few arrays, because each worker would copy the objects of a list. Photo `row` has the
    curves `row_curves[row]:row_curves[row + 1]`; curve `c` has the points `curves[c]:curves[c + 1]`; likewise masks.

    Attributes:
        root: folder of the data set.
        images: paths of the photos, relative to `root`.
        files: the label file of each photo.
        sizes: (height, width) of the photo on which the labels were drawn: (1, 1) if coordinates are fractions of its
            size, (0, 0) if the size is not given.
        parts: `train`, `valid` or `test` for each photo.
    """

    root: Path
    images: list[str]
    files: list[str]
    sizes: np.ndarray
    parts: list[str]
    points: np.ndarray
    curves: np.ndarray
    row_curves: np.ndarray
    runs: np.ndarray
    masks: np.ndarray
    row_masks: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def photo(self, row: int) -> Path:
        """The photo file of a row."""
        return self.root / self.images[row]

    def mask(self, row: int, shape: tuple[int, int]) -> np.ndarray:
        """The hair mask, uint8 {0, 1} of `shape`, which is the photo's (height, width). Raises UserError."""
        size = self._size(row, shape)
        scale = np.array([shape[1] / size[1], shape[0] / size[0]], np.float32)
        ends = self.curves[self.row_curves[row] : self.row_curves[row + 1] + 1]
        hair = rasterise([self.points[start:end] * scale for start, end in pairwise(ends)], shape)
        ends = self.masks[self.row_masks[row] : self.row_masks[row + 1] + 1]
        for start, end in pairwise(ends):
            drawn = coco_mask.decode({"size": list(size), "counts": self.runs[start:end].tobytes()})
            if size != shape:
                drawn = cv2.resize(255 * drawn, shape[::-1], interpolation=cv2.INTER_LINEAR) > 127
            hair |= drawn.astype(np.uint8)
        return hair

    def _size(self, row: int, shape: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) in which the labels of a photo of `shape` were drawn. Raises UserError."""
        height, width = self.sizes[row].tolist()
        if height > 1 or width > 1:
            check_proportions(Path(f"{self.files[row]}, {self.images[row]}"), (height, width), shape)
        return (height, width) if height else shape

    def check(self, row: int, size_of: Callable[[Path], tuple[int, int]] = check_picture) -> None:
        """Raise UserError unless the photo is complete and has the aspect ratio of the one on which labels were drawn.

        `size_of` is `check_picture`, or a version of it that caches (see `training.checks`).
        """
        self._size(row, size_of(self.photo(row)))

    def split(self, fold: int, n_folds: int) -> dict[str, np.ndarray]:
        """The rows of `train`, `valid` and, if the data set has one, `test`; see `folders.split_rows`."""
        return split_rows(self.root, self.parts, fold, n_folds)


def open_labels(root: Path, hair_label: Sequence[str] = ()) -> LabelIndex | None:
    """Index a folder with photos and label files, in any subfolders; None if it contains no labels.

    Args:
        root: the folder.
        hair_label: names or numbers of the classes that are hair; empty: the class named hair, or the only class.

    Raises:
        UserError: a file is damaged, a photo is missing or labelled twice, or a class does not exist.
    """
    found, classes = read_labels(root)
    if not found:
        return None
    photos = [photo for photo in found if photo.drawings is not None]
    if not photos:
        raise UserError(f"{found[0].file}: its photos have not been labelled yet")
    if len(photos) < len(found):
        print(f"{root}: {len(found) - len(photos)} photos without labels are left out", file=sys.stderr)
    wanted = _choose(root, classes, hair_label)
    paths = _find_photos(root, photos)
    order = sorted(range(len(photos)), key=lambda i: (paths[i].parent, by_number(paths[i])))
    return _index(root, [paths[i] for i in order], [photos[i] for i in order], wanted)


def _choose(root: Path, classes: set[Class], hair_label: Sequence[str]) -> set[Class]:
    """The classes that are hair. Raises UserError if there are none."""
    asked = {label.casefold() for label in hair_label or (HAIR,)}
    chosen = {label for label in classes if str(label[0]) in asked or label[1].casefold() in asked}
    if not chosen and not hair_label and len(classes) < 2:
        return classes
    if not chosen:
        names = [" ".join(str(part) for part in label if part not in (None, "")) for label in sorted(classes, key=str)]
        given = f"--hair_label {' '.join(hair_label)}" if hair_label else "a class named hair"
        raise UserError(f"{root}: has no {given}; choose with --hair_label from its classes: {', '.join(names)}")
    return chosen


def _find_photos(root: Path, photos: Sequence[Labelled]) -> list[Path]:
    """The file of each photo in `root`. Raises UserError."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for path in photos_in(root, recursive=True):
        by_name[path.name].append(path)
    found = [_find_photo(root, photo, by_name) for photo in photos]
    paths = [path for path in found if path is not None]
    missing = [photo for photo, path in zip(photos, found, strict=True) if path is None]
    if missing:
        raise UserError(
            f"{missing[0].file}: there is no {missing[0].photo} in {root} ({len(missing)} such photos); add them or "
            "remove their labels"
        )
    seen: dict[Path, Path] = {}
    for photo, path in zip(photos, paths, strict=True):
        if path in seen:
            raise UserError(f"{path}: is labelled twice, in {seen[path]} and {photo.file}; keep one of them")
        seen[path] = photo.file
    return list(seen)


def _find_photo(root: Path, photo: Labelled, by_name: dict[str, list[Path]]) -> Path | None:
    """The file whose path best matches the one in the labels; None if there is none. Raises UserError."""
    named = Path(photo.photo.replace("\\", "/"))
    beside = Path(os.path.normpath(photo.file.parent / named))
    if beside.is_file() and beside.is_relative_to(root):
        return beside
    found = by_name.get(named.name) or by_name.get(UPLOAD_PREFIX.sub("", named.name, count=1), [])

    def nearness(path: Path) -> tuple[int, int]:
        below = path.relative_to(root).parts
        return _alike(below[::-1], named.parts[::-1]), _alike(below, photo.file.relative_to(root).parts)

    best = sorted(found, key=nearness)[-2:]
    if len(best) == 2 and nearness(best[0]) == nearness(best[1]):
        raise UserError(f"{photo.file}: {photo.photo} may be {best[0]} or {best[1]}; remove or rename one of them")
    return best[-1] if best else None


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """The number of leading parts that two paths have in common."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _index(root: Path, paths: Sequence[Path], photos: Sequence[Labelled], wanted: set[Class]) -> LabelIndex:
    """Build the index of photos with their drawings of the wanted classes. Raises UserError."""
    curves: list[np.ndarray] = []
    masks: list[bytes] = []
    row_curves, row_masks = [0], [0]
    for photo in photos:
        try:
            for drawing in photo.drawings or ():
                if drawing.label in wanted:
                    shapes = drawing.read()
                    curves += [curve for curve in shapes.curves if len(curve) > 2]
                    masks += shapes.masks
        except DAMAGE as error:
            what = f"{photo.file}: the labels of {photo.photo} cannot be used ({reason(error)})"
            raise UserError(f"{what}; fix or remove them") from error
        row_curves.append(len(curves))
        row_masks.append(len(masks))
    return LabelIndex(
        root=root,
        images=[str(path.relative_to(root)) for path in paths],
        files=[str(photo.file) for photo in photos],
        sizes=np.array([photo.size or (0, 0) for photo in photos], np.int32),
        parts=[photo.part for photo in photos],
        points=np.concatenate([*curves, np.empty((0, 2), np.float32)]),
        curves=np.cumsum([0, *map(len, curves)]),
        row_curves=np.array(row_curves),
        runs=np.frombuffer(b"".join(masks), np.uint8),
        masks=np.cumsum([0, *map(len, masks)]),
        row_masks=np.array(row_masks),
    )

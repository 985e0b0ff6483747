"""Read the label files of labelling programs: COCO (CVAT, Roboflow, this project), LabelMe, Label Studio and YOLO."""

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from hair.errors import UserError
from hair.photos import is_photo, photos_in
from training.folders import PARTS

FRACTIONS = (1, 1)  # stands for the size of a photo if coordinates are fractions of its size
CIRCLE_POINTS = 64  # of the polygon that approximates a circle
PART = re.compile(r"(?:^|[^a-z])(train|val|test)(?:ing|id|idation)?\d*(?:$|[^a-z])")  # in names of folders and files
# Exceptions that parsing a damaged file may raise.
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError)

Class = tuple[int | None, str]  # number (None if the format has none) and name


@dataclass(frozen=True)
class Shapes:
    """The union of curves, arrays float (points, 2) of x and y, and of masks in COCO's compressed run lengths."""

    curves: Sequence[np.ndarray] = ()
    masks: Sequence[bytes] = ()


@dataclass(frozen=True)
class Drawing:
    """The label of one object: its class, and a function that decodes its shapes."""

    label: Class
    read: Callable[[], Shapes]


@dataclass(frozen=True)
class Labelled:
    """A photo as described in a label file.

    Attributes:
        file: the label file.
        photo: path or URL of the photo, as written in the file.
        size: (height, width) of the photo on which the labels were drawn; None if the file does not say.
        part: `train`, `valid` or `test`.
        drawings: None if the photo has not been labelled; empty if it has no objects.
    """

    file: Path
    photo: str
    size: tuple[int, int] | None
    part: str
    drawings: Sequence[Drawing] | None


def read_labels(root: Path) -> tuple[list[Labelled], set[Class]]:
    """Read all label files in a folder and its subfolders: the labelled photos and the known classes.

    Other JSON files are ignored. Raises UserError for a damaged file.
    """
    photos: list[Labelled] = []
    classes: set[Class] = set()
    for file in sorted(root.rglob("*.json")):
        if not any(part.startswith(".") for part in file.relative_to(root).parts):
            try:
                content = json.loads(file.read_bytes())
                for reader in (_coco, _labelme, _label_studio):
                    known, found = reader(content, file, root)
                    classes |= known
                    photos += found
            except DAMAGE as error:
                raise UserError(f"{file}: cannot be read as labels ({reason(error)}); fix or remove it") from error
    return (photos, classes) if photos else _yolo(root)


def reason(error: Exception) -> str:
    """The text of an error on one line; for a KeyError, that the key is missing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text} is missing" if isinstance(error, KeyError) else text


def _part(names: Sequence[str]) -> str:
    """The split (train, valid or test) that appears in names of folders and files; `train` if there is none."""
    for name in reversed(names):
        if found := PART.search(name.casefold()):
            return PARTS[found[1]]
    return "train"


def _points(numbers: object) -> np.ndarray:
    """Numbers x, y, x, y … as float32 (points, 2). Raises ValueError."""
    points = np.asarray(numbers, np.float32).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not a number")
    return points


def _compress(mask: np.ndarray) -> bytes:
    """A mask, bool (H, W), as COCO's compressed run lengths."""
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]


# ---------------------------------------------------------------------------------------------------- COCO


def _coco(content: Any, file: Path, root: Path) -> tuple[set[Class], Iterator[Labelled]]:
    """https://cocodataset.org/#format-data; files of captions are ignored."""
    is_coco = isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()
    if not is_coco or any("caption" in annotation for annotation in content["annotations"][:1]):
        return set(), iter(())
    names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    return set(names.items()), _coco_photos(content, names, file, _part(file.relative_to(root).with_suffix("").parts))


def _coco_photos(content: dict, names: dict[int, str], file: Path, part: str) -> Iterator[Labelled]:
    annotations: dict[Any, list[dict]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    for image in content["images"]:
        size = (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
        drawings = [
            Drawing((number := int(annotation["category_id"]), names[number]), partial(_coco_shapes, annotation, size))
            for annotation in annotations[image["id"]]
        ]
        yield Labelled(file, str(image["file_name"]), size, part, drawings)


def _coco_shapes(annotation: dict, size: tuple[int, int] | None) -> Shapes:
    drawn = annotation.get("segmentation")
    if not drawn:
        raise ValueError(f"annotation {annotation.get('id')} is a box without an outline")
    if isinstance(drawn, dict):
        height, width = map(int, drawn["size"])
        if size not in (None, (height, width)):
            raise ValueError(f"annotation {annotation.get('id')} has the size {width}×{height}")
        counts = drawn["counts"]
        if isinstance(counts, list):
            counts = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
        runs = counts.encode("ascii") if isinstance(counts, str) else counts
        if _covered(runs) != height * width:
            raise ValueError(f"the run lengths of annotation {annotation.get('id')} do not fill the photo")
        return Shapes(masks=[runs])
    return Shapes([_points(curve) for curve in (drawn if isinstance(drawn[0], list) else [drawn])])


def _covered(runs: bytes) -> int:
    """The number of pixels that COCO's compressed run lengths cover; pycocotools does not check it.

    Each length is stored with 5 bits per byte, lowest bits first; from the fourth on, as the difference from the length
    before the previous one. Source: `rleFrString` in
    https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c.
    """
    codes = np.frombuffer(runs, np.uint8).astype(np.int64) - 48
    is_last = codes & 32 == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not is_last[-1]:
        return 0
    starts = np.flatnonzero(np.r_[True, is_last[:-1]])
    place = 5 * (np.arange(len(codes)) - np.repeat(starts, np.diff(np.r_[starts, len(codes)])))
    bits = ((codes & 31) << place) - (is_last & (codes & 16 > 0)) * (32 << place)
    lengths = np.add.reduceat(bits, starts)
    for first in (1, 2):
        lengths[first::2] = lengths[first::2].cumsum()
    return int(lengths.sum()) if lengths.min() >= 0 else 0


# ---------------------------------------------------------------------------------------------------- LabelMe


def _labelme(content: Any, file: Path, root: Path) -> tuple[set[Class], Iterator[Labelled]]:
    """https://github.com/wkentaro/labelme: one JSON file per photo."""
    if not isinstance(content, dict) or not {"shapes", "imagePath"} <= content.keys():
        return set(), iter(())
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (int(height), int(width)) if height and width else None
    shapes = content["shapes"]
    drawings = [Drawing((None, str(shape["label"])), partial(_labelme_shapes, shape, size)) for shape in shapes]
    part = _part(file.relative_to(root).parent.parts)
    return {drawing.label for drawing in drawings}, iter([Labelled(file, content["imagePath"], size, part, drawings)])


def _labelme_shapes(shape: dict, size: tuple[int, int] | None) -> Shapes:
    kind, points = shape.get("shape_type") or "polygon", _points(shape["points"])
    if kind == "polygon":
        return Shapes([points])
    if kind == "rectangle":
        (left, top), (right, bottom) = points
        return Shapes([_points([left, top, right, top, right, bottom, left, bottom])])
    if kind == "circle":  # given by its centre and a point on it
        turns = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
        radius = np.hypot(*(points[1] - points[0]))
        return Shapes([points[0] + radius * np.stack([np.cos(turns), np.sin(turns)], 1)])
    if kind == "mask" and size is not None:  # an image in a bounding box; the box includes its last row and column
        with Image.open(BytesIO(base64.b64decode(shape["mask"])), formats=("PNG",)) as picture:
            drawn = np.asarray(picture) > 0
        left, top = np.round(points[0]).astype(int)
        whole = np.zeros(size, bool)
        if left < 0 or top < 0 or top + drawn.shape[0] > size[0] or left + drawn.shape[1] > size[1]:
            raise ValueError("a mask reaches beyond the photo")
        whole[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
        return Shapes(masks=[_compress(whole)])
    raise ValueError(f"a {kind} has no area; draw a polygon or a mask")


# ---------------------------------------------------------------------------------------------------- Label Studio


def _label_studio(content: Any, file: Path, root: Path) -> tuple[set[Class], Iterator[Labelled]]:
    """Its exports JSON and JSON-MIN: https://labelstud.io/guide/export. Several people's labels: the last counts."""
    tasks = content if isinstance(content, list) else []
    photos = []
    for task in tasks:
        address = _address(task.get("data", task)) if isinstance(task, dict) else None
        if address is not None:
            results = _results(task)
            drawings = None if results is None else [drawing for result in results for drawing in _objects(result)]
            sizes = {(int(r["original_height"]), int(r["original_width"])) for r in results or [] if _is_region(r)}
            if len(sizes) > 1:
                raise ValueError(f"{address} has several sizes")
            photos.append(Labelled(file, address, next(iter(sizes), None), "train", drawings))
    return {drawing.label for photo in photos for drawing in photo.drawings or ()}, iter(photos)


def _address(data: dict) -> str | None:
    """The photo of a task: `/data/upload/1/ab12cd34-me.jpg`, `/data/local-files/?d=photos/me.jpg` or a URL."""
    for value in data.values():
        if isinstance(value, str):
            address = urlsplit(value)
            path = parse_qs(address.query).get("d", [unquote(address.path)])[0]
            if is_photo(Path(path)):
                return path
    return None


def _is_region(result: object) -> bool:
    return isinstance(result, dict) and "original_width" in result


def _results(task: dict) -> list[dict] | None:
    """The regions of a task; None if it has not been labelled."""
    if "annotations" not in task:
        lists = [value for value in task.values() if isinstance(value, list)]
        return [item for value in lists for item in value if _is_region(item)]
    done = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
    return [item for item in done[-1]["result"] if _is_region(item)] if done else None


def _objects(result: dict) -> Iterator[Drawing]:
    """One drawing for each label of a region."""
    value = result.get("value", result)
    size = int(result["original_height"]), int(result["original_width"])
    for key, names in value.items():
        if key.endswith("labels") and isinstance(names, list):
            for name in names:
                yield Drawing((None, str(name)), partial(_label_studio_shapes, value, size))


def _label_studio_shapes(value: dict, size: tuple[int, int]) -> Shapes:
    if "rle" in value:
        opacity = decode_brush(bytes(value["rle"]))[3::4]
        return Shapes(masks=[_compress(opacity.reshape(size) > 0)])
    if "points" in value:
        return Shapes([_points(value["points"]) * np.array(size[::-1], np.float32) / 100])  # from percent
    raise ValueError("a box or an ellipse is not an outline; draw a polygon or use the brush")


def decode_brush(data: bytes) -> np.ndarray:
    """Decode the run-length encoding of Label Studio's brush.

    Source: rle-pack (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack), Apache 2.0.

    Args:
        data: a bit stream. Header: number of words (32 bits), bits per word minus 1 (5 bits), four possible sizes of
            length fields, minus 1 (4 bits each). Then blocks: whether one word is repeated (1 bit), which size the
            length field has (2 bits), the length minus 1, and the word or words.

    Returns:
        uint8 (words,); for images R, G, B and opacity of each pixel. Raises ValueError for a truncated stream.
    """
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def take(length: int) -> str:
        nonlocal place
        place += length
        if place > len(bits):
            raise ValueError("a brush mask is truncated")
        return bits[place - length : place]

    def read(length: int) -> int:
        return int(take(length), 2)

    words = np.zeros(read(32), np.uint8)
    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    start = 0
    while start < len(words):
        is_run = read(1)
        end = start + 1 + read(sizes[read(2)])
        if is_run:
            words[start:end] = read(word)
        else:
            block = np.frombuffer(take((end - start) * word).encode(), np.uint8).reshape(-1, word) & 1
            words[start : start + len(block)] = (block @ (1 << np.arange(word)[::-1]))[: len(words) - start]
        start = end
    return words


# ---------------------------------------------------------------------------------------------------- YOLO


def _yolo(root: Path) -> tuple[list[Labelled], set[Class]]:
    """YOLO segmentation, https://docs.ultralytics.com/datasets/segment: `labels/…/me.txt` for `images/…/me.jpg`.

    A photo without a label file has no objects. `data.yaml` names the classes.
    """
    names: dict[int, str] = {}
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            listed = (yaml.safe_load(file.read_bytes()) or {}).get("names", {})
            names |= {int(k): str(v) for k, v in (listed.items() if isinstance(listed, dict) else enumerate(listed))}
        except (*DAMAGE, yaml.YAMLError) as error:
            raise UserError(f"{file}: cannot be read ({reason(error)}); fix or remove it") from error
    photos: list[Labelled] = []
    classes: set[Class] = set(names.items())
    has_labels = False
    for folder in sorted(path for path in root.rglob("images") if path.is_dir()):
        for photo in photos_in(folder, recursive=True):
            below = photo.relative_to(folder)
            file = folder.with_name("labels") / below.with_suffix(".txt")
            drawings = list(_yolo_drawings(file, names)) if file.is_file() else []
            has_labels |= file.is_file()
            classes |= {drawing.label for drawing in drawings}
            part = _part(photo.relative_to(root).parent.parts)
            photos.append(Labelled(file, str(photo.relative_to(root)), FRACTIONS, part, drawings))
    return (photos, classes) if has_labels else ([], set())


def _yolo_drawings(file: Path, names: dict[int, str]) -> Iterator[Drawing]:
    """The lines of a file: a class number, then x and y of each point as fractions of the photo's width and height."""
    try:
        for line in filter(None, map(str.split, file.read_text(encoding="utf-8").splitlines())):
            number = int(line[0])
            yield Drawing((number, names.get(number, "")), partial(_yolo_shapes, line[1:]))
    except DAMAGE as error:
        raise UserError(f"{file}: cannot be read as labels ({reason(error)}); fix or remove it") from error


def _yolo_shapes(numbers: list[str]) -> Shapes:
    if len(numbers) == 4:
        raise ValueError("a line contains a box, not an outline")
    return Shapes([_points(numbers)])

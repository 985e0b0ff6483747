"""What labelling programs write is read: each format, each shape, and one clear line for what is damaged."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hair.errors import UserError
from hair.outlines import coco, polygons, run_lengths
from tests.pictures import GOOD, encoded, write
from training.drawings import decode_brush
from training.labels import open_labels

SIZE = (60, 40)  # of GOOD's photos
HAIR = np.zeros(SIZE, np.uint8)  # two pieces, one of which has two holes
HAIR[5:40, 4:30] = HAIR[50:55, 30:38] = 1
HAIR[10:20, 8:14] = HAIR[30, 20] = 0
OTHER = np.zeros(SIZE, np.uint8)
OTHER[:, 36:] = 1
PERCENT = 100 / np.array(SIZE[::-1])


def brush(mask: np.ndarray) -> list[int]:
    """A mask as Label Studio's brush stores it; every other run as single words."""
    words = np.repeat(mask.ravel() * 255, 4)  # red, green, blue, opacity
    ends = [*(np.flatnonzero(words[1:] != words[:-1]) + 1).tolist(), len(words)]
    bits, start = f"{len(words):032b}{7:05b}{2:04b}{7:04b}{9:04b}{15:04b}", 0
    for number, end in enumerate(ends):
        length, is_run = end - start, number % 3 > 0
        choice = next(i for i, size in enumerate((3, 8, 10, 16)) if length - 1 < 1 << size)
        bits += f"{is_run:b}{choice:02b}{length - 1:0{(3, 8, 10, 16)[choice]}b}"
        bits += f"{words[start]:08b}" * (1 if is_run else length)
        start = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def labelme_mask(mask: np.ndarray) -> dict:
    (top, bottom), (left, right) = (np.flatnonzero(mask.any(axis))[[0, -1]].tolist() for axis in (1, 0))
    piece = Image.fromarray(mask[top : bottom + 1, left : right + 1] > 0)
    text = base64.b64encode(encoded(piece, "PNG")).decode()
    return {"label": "hair", "shape_type": "mask", "points": [[left, top], [right, bottom]], "mask": text}


def as_coco(segmentation: object) -> dict[str, object]:
    other = coco("me.jpg", OTHER)["annotations"][0] | {"id": 2, "category_id": 7}
    content = coco("me.jpg", HAIR) | {"categories": [{"id": 1, "name": "Hair"}, {"id": 7, "name": "hat"}]}
    content["annotations"] = [content["annotations"][0] | {"segmentation": segmentation}, other]
    return {"labels.json": content}


def as_labelme(shapes: list[dict]) -> dict[str, object]:
    hat = {"label": "hat", "points": [[36, 0], [40, 0], [40, 60]], "shape_type": "polygon"}
    content = {"version": "5.5.0", "imagePath": "me.jpg", "imageData": None, "imageHeight": 60, "imageWidth": 40}
    return {"me.json": content | {"shapes": [*shapes, hat]}}


def as_label_studio(values: list[dict], is_short: bool = False) -> dict[str, object]:
    size = {"original_width": 40, "original_height": 60, "image_rotation": 0}
    values = [*values, {"points": [[90, 0], [100, 0], [100, 100]], "polygonlabels": ["hat"]}]
    if is_short:
        return {
            "export.json": [{"id": 1, "image": "/data/upload/1/0a1b2c3d-me.jpg", "tag": [size | v for v in values]}]
        }
    result = [{**size, "type": "brushlabels", "value": value} for value in values]
    older = {"was_cancelled": False, "result": [{"type": "choices", "value": {"choices": ["good"]}}]}
    annotations = [older, {"result": result}, {"was_cancelled": True, "result": []}]
    return {"a.json": [{"data": {"image": "/data/local-files/?d=photos/me.jpg"}, "annotations": annotations}]}


def as_yolo(curves: list[np.ndarray]) -> dict[str, object]:
    lines = [" ".join(map(str, ["0", *(curve / SIZE[::-1]).ravel().tolist()])) for curve in curves]
    return {"labels/me.txt": "\n".join([*lines, "", "1 0.9 0 1 0 1 1"]), "data.yaml": "names: [hair, hat]\nnc: 2\n"}


COMPRESSED = coco_mask.encode(np.asfortranarray(HAIR))["counts"].decode()
CURVES = polygons(HAIR)
FORMATS = {
    "polygons": as_coco([curve.ravel().tolist() for curve in CURVES]),
    "runs": as_coco(run_lengths(HAIR)),
    "compressed runs": as_coco({"size": [60, 40], "counts": COMPRESSED}),
    "LabelMe polygons": as_labelme([{"label": "hair", "points": curve.tolist()} for curve in CURVES]),
    "LabelMe mask": as_labelme([labelme_mask(HAIR)]),
    "brush": as_label_studio([{"format": "rle", "rle": brush(HAIR), "brushlabels": ["hair"]}]),
    "brush, short": as_label_studio([{"format": "rle", "rle": brush(HAIR), "brushlabels": ["hair"]}], is_short=True),
    "percent": as_label_studio([{"points": (c * PERCENT).tolist(), "polygonlabels": ["hair"]} for c in CURVES]),
    "YOLO": as_yolo(CURVES),
}


def lay(root: Path, files: dict[str, object]) -> Path:
    """A folder with the files and the photo `me.jpg` in `images/`."""
    write(root / "images", {"me.jpg": GOOD["머리 사진 1.jpg"]})
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return root


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_mask_back_with_its_holes(tmp_path: Path, name: str) -> None:
    index = open_labels(lay(tmp_path, FORMATS[name]))
    assert len(index) == 1 and index.photo(0) == tmp_path / "images" / "me.jpg"
    index.check(0)
    np.testing.assert_array_equal(index.mask(0, SIZE), HAIR)
    twice = index.mask(0, (120, 80))
    assert twice.shape == (120, 80) and np.mean(twice[::2, ::2] != HAIR) < 0.02
    hat = open_labels(tmp_path, ["HAT"]).mask(0, SIZE)
    assert hat[:40, 39].all() and not hat[:, :30].any()
    assert open_labels(tmp_path, ["hair", "hat"]).mask(0, SIZE).sum() == (hat | HAIR).sum()


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ({"shape_type": "rectangle", "points": [[2, 3], [12, 9]]}, 60),
        ({"shape_type": "circle", "points": [[20, 30], [30, 30]]}, 314),
    ],
)
def test_labelme_shapes_with_an_area_are_filled(tmp_path: Path, shape: dict, area: float) -> None:
    index = open_labels(lay(tmp_path, as_labelme([shape | {"label": "hair"}])))
    assert int(index.mask(0, SIZE).sum()) == pytest.approx(area, rel=0.02)


def test_numbers_name_classes_too(tmp_path: Path) -> None:
    for name, number in (("polygons", "7"), ("YOLO", "1")):
        root = lay(tmp_path / name, FORMATS[name])
        np.testing.assert_array_equal(
            open_labels(root, [number]).mask(0, SIZE), open_labels(root, ["hat"]).mask(0, SIZE)
        )


def test_photos_without_hair_and_photos_that_nobody_has_labelled(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photo = GOOD["머리 사진 1.jpg"]
    write(tmp_path / "coco", {"a.jpg": photo})
    lay(tmp_path / "coco", {"x.json": coco("a.jpg", HAIR * 0)})
    lay(tmp_path / "yolo", FORMATS["YOLO"])
    write(tmp_path / "yolo" / "images", {"bare.jpg": photo})
    assert not open_labels(tmp_path / "coco").mask(0, SIZE).any()
    assert not open_labels(tmp_path / "yolo").mask(0, SIZE).any(), "a photo without a text file, as in YOLO"
    task = {"data": {"image": "s3://bucket/b.jpg"}, "annotations": []}
    lay(tmp_path / "studio", {"x.json": [*FORMATS["brush"]["a.json"], task]})
    assert len(open_labels(tmp_path / "studio")) == 1
    assert "1 photos without labels are left out" in capsys.readouterr().err


def test_parts_of_a_data_set_are_told_by_its_folders(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):  # as Roboflow has it: the same name in each
        write(tmp_path / part, {"me.jpg": GOOD["머리 사진 1.jpg"]})
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(coco("me.jpg", HAIR)))
    index = open_labels(tmp_path)
    assert {name: [index.photo(i).parent.name for i in rows] for name, rows in index.split(0, 5).items()} == {
        "train": ["train"],
        "valid": ["valid"],
        "test": ["test"],
    }


def of_coco(change: Callable[[dict], object]) -> dict[str, object]:
    content = json.loads(json.dumps(FORMATS["runs"]["labels.json"]))
    change(content)
    return {"labels.json": content}


def segmentation(value: object) -> dict[str, object]:
    return of_coco(lambda content: content["annotations"][0].update(segmentation=value))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"labels.json": "{"}, r"labels\.json: cannot be read as labels .*; fix or remove it"),
        (of_coco(lambda c: c["annotations"][0].update(image_id=9)), r"labels\.json: cannot be read as labels \(9 is"),
        (
            of_coco(lambda c: c["images"][0].update(file_name="b.jpg")),
            r"labels\.json: there is no b\.jpg in .*add them",
        ),
        (segmentation([]), r"the labels of me\.jpg cannot be used \(annotation 1 is a box without an outline\)"),
        (segmentation([[1, 2, 3, 4, 5]]), r"the labels of me\.jpg cannot be used"),
        (segmentation([[1, 2, 3, 4, 5, float("nan")]]), "a coordinate is not a number"),
        (segmentation({"size": [60, 40], "counts": [5, 6]}), "do not fill the photo"),
        (segmentation({"size": [60, 41], "counts": [2460]}), "annotation 1 has the size 41×60"),
        (segmentation({"size": [60, 40], "counts": COMPRESSED[:-6]}), "do not fill the photo"),
        (of_coco(lambda c: c["categories"][0].update(name="wig")), "has no a class named hair; .*: 1 wig, 7 hat"),
        (as_labelme([{"label": "hair", "shape_type": "line", "points": [[1, 2], [3, 4]]}]), "a line has no area"),
        (as_labelme([{"label": "hair", "points": "none"}]), r"me\.json: the labels of me\.jpg cannot be used"),
        (as_labelme([labelme_mask(HAIR) | {"mask": "AAAA"}]), r"me\.json: the labels of me\.jpg cannot be used"),
        (as_labelme([labelme_mask(HAIR) | {"points": [[30, 40], [31, 41]]}]), "a mask reaches beyond the photo"),
        (as_label_studio([{"rle": brush(HAIR)[:99], "brushlabels": ["hair"]}]), "a brush mask is truncated"),
        (as_label_studio([{"x": 1, "y": 2, "width": 3, "rectanglelabels": ["hair"]}]), "a box or an ellipse"),
        (
            {"labels/me.txt": "0 0.5 0.5 0.1 0.1"},
            r"labels/me\.txt: the labels of images/me\.jpg .*\(a line contains a box",
        ),
        ({"labels/me.txt": "hair 0 0 1 1 1 0"}, r"me\.txt: cannot be read as labels"),
        ({"labels/me.txt": "0 0 0 1 1 1 0", "data.yaml": "names: ["}, r"data\.yaml: cannot be read"),
        (
            FORMATS["runs"] | FORMATS["LabelMe mask"],
            r"images/me\.jpg: is labelled twice, in .*labels\.json and .*me\.json",
        ),
    ],
)
def test_damaged_labels_are_one_line(tmp_path: Path, files: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        open_labels(lay(tmp_path, files)).check(0)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path))


def test_a_brush_mask_that_claims_too_much_is_refused() -> None:
    whole = brush(HAIR)
    np.testing.assert_array_equal(decode_brush(bytes(whole))[3::4].reshape(SIZE) > 0, HAIR > 0)
    for cut in range(0, len(whole) - 1, 7):
        with pytest.raises(ValueError, match="is truncated"):
            decode_brush(bytes(whole[:cut]))

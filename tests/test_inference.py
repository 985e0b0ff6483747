"""Photos in every form go in; masks, pictures and facts come out; nothing heavy is imported."""

import argparse
import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from make_sample import draw_head
from PIL import Image

import augment
import backends
import export
import geometry
import inference
import models
import pictures
import render
import video
from inference import HairSegmenter

ROOT = Path(__file__).parents[1]
FACTS = {"img_size": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "threshold": 0.5}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained network of 64 px and its ONNX file."""
    folder = tmp_path_factory.mktemp("weights") / "run"
    models.save_model(models.build_model("resnet18", "Unet"), folder, FACTS)
    export.export(folder, "onnx", folder / "model.onnx")
    return folder


@pytest.fixture
def head() -> np.ndarray:
    return draw_head(np.random.default_rng(0), 96)[0]


def by_brightness(photo: np.ndarray) -> np.ndarray:
    """Stands in for a network where a test is about files."""
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


# ---------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("shape", [(64, 64), (50, 90), (90, 50), (300, 200), (31, 400)])
def test_preprocess_is_the_eval_transform(shape: tuple[int, int]) -> None:
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


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
def test_formats_and_modes(tmp_path: Path, head: np.ndarray, suffix: str, mode: str) -> None:
    path = tmp_path / f"머리 ü{suffix}"
    picture = Image.fromarray(head).convert(mode)
    try:
        picture.save(path, quality=98, lossless=True)
    except (OSError, ValueError):
        pytest.skip(f"there is no {mode} in {suffix}")
    expected = np.asarray(picture.convert("RGB"))
    assert np.abs(inference.read_photo(path).astype(int) - expected).mean() < 6


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [False, True])
def test_16_bits(tmp_path: Path, head: np.ndarray, suffix: str, grey: bool) -> None:
    head = head[..., 1] if grey else head
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), head.astype(np.uint16) * 257 if grey else head[..., ::-1].astype(np.uint16) * 257)
    expected = np.repeat(head[..., None], 3, axis=2) if grey else head
    assert np.abs(inference.read_photo(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    photo = draw_head(np.random.default_rng(0), 96)[0][:, :64]
    # How a camera stores the upright photo, for each value of EXIF's orientation.
    stored = {
        1: photo,
        2: photo[:, ::-1],
        3: photo[::-1, ::-1],
        4: photo[::-1],
        5: photo.transpose(1, 0, 2),
        6: photo.transpose(1, 0, 2)[::-1],
        7: photo.transpose(1, 0, 2)[::-1, ::-1],
        8: photo.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "turned.jpg"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=98)
    read = inference.read_photo(path)
    assert read.shape == photo.shape
    assert np.abs(read.astype(int) - photo).mean() < 6


def test_16_bits_with_transparency_keep_their_grey(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 120 * 257, np.uint16)).save(tmp_path / "deep.png", transparency=7)
    assert np.abs(inference.read_photo(str(tmp_path / "deep.png")).astype(int) - 120).max() <= 1


def test_transparent_becomes_white(tmp_path: Path, head: np.ndarray) -> None:
    Image.fromarray(np.dstack([head, np.zeros(head.shape[:2], np.uint8)])).save(tmp_path / "clear.png")
    assert (inference.read_photo(tmp_path / "clear.png") == 255).all()


def test_unreadable_photos(tmp_path: Path, head: np.ndarray, capfd: pytest.CaptureFixture) -> None:
    whole = cv2.imencode(".jpg", head)[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    for name in ("cut.jpg", "empty.jpg", "text.png"):
        with pytest.raises(ValueError, match=name):
            inference.read_photo(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        inference.read_photo(tmp_path / "none.jpg")
    picture = render.encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "cut.png").write_bytes(picture[: len(picture) // 2])
    capfd.readouterr()
    with pytest.raises(ValueError, match=r"cut\.png: cannot be read as a photo \(.*truncated"):
        inference.read_photo(tmp_path / "cut.png")
    assert capfd.readouterr().err == "", "libpng would add a line of its own"
    Image.new("RGB", (1_100_000, 1)).save(tmp_path / "long.tif")  # OpenCV raises, where for others it returns nothing
    with pytest.raises(ValueError, match=r"long\.tif: cannot be read as a photo"):
        inference.read_photo(tmp_path / "long.tif")


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    # The header of a PNG of 20,000 × 20,000 pixels, and no pixels: decoding it would fail in another way.
    picture = cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes()
    import zlib

    header = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + picture[24:29]
    (tmp_path / "huge.png").write_bytes(picture[:12] + header + zlib.crc32(header).to_bytes(4, "big") + picture[33:])
    with pytest.raises(ValueError, match="megapixels"):
        inference.read_photo(tmp_path / "huge.png")


def test_find_photos(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "result").mkdir()
    for name in ("b.jpg", "a.PNG", "notes.txt", "deep/c.webp", "result/a_mask.png", ".hidden.jpg"):
        (tmp_path / name).touch()
    names = lambda found: [str(path.relative_to(tmp_path).as_posix()) for path in found]
    assert names(inference.find_photos([tmp_path])) == ["a.PNG", "b.jpg"]
    found = inference.find_photos([tmp_path], recursive=True, leave_out=tmp_path / "result")
    assert names(found) == ["a.PNG", "b.jpg", "deep/c.webp"]
    assert names(inference.find_photos([tmp_path / "*.jpg"])) == ["b.jpg"]
    assert names(inference.find_photos([tmp_path / "d*"])) == ["deep/c.webp"]  # as a shell would have it
    found = inference.find_photos([tmp_path / "**" / "*.[pw]*"], leave_out=tmp_path / "result")
    assert names(found) == ["deep/c.webp"]
    for explicit in (tmp_path / "result", tmp_path / "result" / "*.png"):
        assert names(inference.find_photos([explicit], leave_out=tmp_path / "result")) == ["result/a_mask.png"]
    for above in (tmp_path, tmp_path.parent):  # results beside the photos or further up hide none
        assert len(list(inference.find_photos([tmp_path / "deep"], leave_out=above))) == 1
    with pytest.raises(FileNotFoundError, match="matches"):
        list(inference.find_photos([tmp_path / "*.bmp"]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no photos"):
        list(inference.find_photos([tmp_path / "empty"]))


def test_what_is_not_found_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    inputs = [tmp_path / name for name in ("*.bmp", "a.jpg", "*.jpg", "none.jpg")]
    files, missing = inference.find_inputs(inputs, False, tmp_path / "result")
    assert files == [tmp_path / "a.jpg", tmp_path / "none.jpg"]  # what is not there is told when it is opened
    assert missing == [f"{tmp_path / '*.bmp'}: nothing matches"]


def test_a_number_is_a_camera_only_if_it_stands_alone(tmp_path: Path) -> None:
    assert inference.is_video(Path("0")) and not inference.is_video(tmp_path / "2023")


def test_result_names_take_no_input_and_no_other_result(tmp_path: Path) -> None:
    inputs = [tmp_path / "x" / "me.jpg", tmp_path / "y" / "me.png", tmp_path / "Me.jpg", tmp_path / "me-2.jpg"]
    names = inference.result_names(inputs, tmp_path, ["_mask.png"])
    assert [name.name.casefold() for name in names] == ["me", "me-2", "me-3", "me-2-2"]
    inputs = [tmp_path / "me.jpg", tmp_path / "me_mask.png"]
    assert inference.result_names(inputs, tmp_path, ["_mask.png"])[0].name == "me-2"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "me_mask.png").symlink_to(tmp_path / "you.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "out" / "you_mask.png")
    inputs = [tmp_path / "me.jpg", tmp_path / "you.jpg", tmp_path / "out" / "me_mask.png", tmp_path / "link.png"]
    names = inference.result_names(inputs, tmp_path / "out", ["_mask.png"])
    assert [name.name for name in names] == ["me-2", "you-2", "me_mask", "link"]


def test_many_photos_of_one_name_are_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up, real = [], inference.os.path.realpath
    monkeypatch.setattr(inference.os.path, "realpath", lambda path: looked_up.append(path) or real(path))
    inputs = [tmp_path / str(number) / "front.jpg" for number in range(50)]
    assert inference.result_names(inputs, tmp_path, ["_mask.png"])[-1].name == "front-50"
    assert len(looked_up) < 4 * len(inputs)


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 9, 3), (40, 31, 3), (6, 8, 4)])
def test_a_png_is_to_others_what_was_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for picture in (image, image[::-1, ::-1], np.zeros_like(image)):
        render.write_png(tmp_path / "머리.png", picture)
        with Image.open(tmp_path / "머리.png") as read:
            read.verify()  # its check sums, too
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "머리.png")), picture)
        assert cv2.imdecode(np.fromfile(tmp_path / "머리.png", np.uint8), cv2.IMREAD_UNCHANGED).shape == shape


# ---------------------------------------------------------------------------------------------------- the network


def test_backends_agree(weights: Path, head: np.ndarray) -> None:
    photo = head[:, :70]
    torch, onnx = (HairSegmenter(weights, backend)(photo) for backend in ("torch", "onnx"))
    assert torch.dtype == onnx.dtype == np.float32
    assert torch.shape == onnx.shape == (96, 70)
    assert torch.min() >= 0 and torch.max() <= 1
    np.testing.assert_allclose(torch, onnx, atol=1e-3)


def test_openvino_agrees(weights: Path, head: np.ndarray) -> None:
    pytest.importorskip("openvino")
    onnx, openvino = (HairSegmenter(weights, backend)(head) for backend in ("onnx", "openvino"))
    np.testing.assert_allclose(openvino, onnx, atol=0.05)  # it may compute in bfloat16


@pytest.mark.parametrize("threads", [None, 1])
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_batch_threads_and_single_calls_agree(weights: Path, backend: str, threads: int | None) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    rng = np.random.default_rng(0)
    photos = [draw_head(rng, 96)[0][: 60 + 6 * i] for i in range(6)]
    segmenter = HairSegmenter(weights, backend, threads=threads)
    alone = [segmenter(photo) for photo in photos]
    with ThreadPoolExecutor(3) as pool:
        threaded = list(pool.map(segmenter, photos))
    for one, two, three in zip(alone, segmenter.predict_batch(photos), threaded, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5 if backend == "onnx" else 0.05)  # the other may use bfloat16
        np.testing.assert_array_equal(one, three)
    assert segmenter.predict_batch([]) == []


def test_no_more_calls_at_once_than_there_are_cores(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(backends, "cores", lambda: 2)
    network = backends.open_network(weights / "model.onnx", "openvino", threads=1)
    monkeypatch.setattr(network, "_compile", (compiled := Mock(wraps=network._compile)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(network, [np.zeros((1, 3, 64, 64), np.float32)] * 24))
    assert compiled.call_count <= 1  # beside the one that it has from the start


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_network_that_fails_is_a_clear_line(weights: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    segmenter = HairSegmenter(weights, backend)
    failing = Mock(side_effect=RuntimeError("not enough memory\nat line 12"))
    monkeypatch.setattr(segmenter._network, "_run", failing)
    with pytest.raises(ValueError, match=rf"{backend} cannot run the network on .* \(not enough memory\)"):
        segmenter(np.zeros((8, 8, 3), np.uint8))


def test_many_photos_share_the_cores_between_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "cores", lambda: 8)
    photos = [Path(f"{number}.jpg") for number in range(inference.MANY)]
    assert inference.threads_for(photos) == 8 // inference.WORKERS
    assert inference.threads_for(photos[1:]) is None
    assert inference.threads_for([*photos, Path("clip.mp4")]) is None


def test_tta_looks_no_size_twice(weights: Path) -> None:
    assert [HairSegmenter(weights, tta=True, img_size=size)._sizes for size in (32, 64, 256)] == [
        [32],
        [64],
        [256, 192, 320],
    ]


def test_tta_is_mirror_symmetric(weights: Path, head: np.ndarray) -> None:
    segmenter = HairSegmenter(weights, "onnx", tta=True, multi_scale=False)
    mirrored = segmenter(np.ascontiguousarray(head[:, ::-1]))[:, ::-1]
    np.testing.assert_allclose(segmenter(head), mirrored, atol=2e-3)
    plain = HairSegmenter(weights, "onnx", multi_scale=False)
    assert np.abs(plain(head) - segmenter(head)).max() > 1e-3


def test_wrong_use_is_told(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        HairSegmenter(tmp_path)
    with pytest.raises(ValueError, match="multiple of 32"):
        HairSegmenter(weights, img_size=100)
    with pytest.raises(ValueError, match="--backend tensorflow"):
        HairSegmenter(weights, backend="tensorflow")
    with pytest.raises(ValueError, match="--img_size 0 is not"):
        HairSegmenter(weights, img_size=0)
    with pytest.raises(ValueError, match="--device mps: this ONNX Runtime has no such"):
        HairSegmenter(weights, backend="onnx", device="mps")
    with pytest.raises(ValueError, match="multiple of 32"):
        HairSegmenter(weights, img_size=64.0)
    with pytest.raises(ValueError, match="threads: 0"):
        HairSegmenter(weights, threads=0)
    with pytest.raises(ValueError, match="RGB uint8"):
        HairSegmenter(weights)(np.zeros((8, 8), np.uint8))
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"broken\.onnx"):
        HairSegmenter(tmp_path / "broken.onnx", backend="onnx")


@pytest.mark.parametrize(("module", "backend"), [("onnxruntime", "onnx"), ("openvino", "openvino"), ("torch", "torch")])
def test_a_missing_package_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch, module: str, backend: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # what importing it makes an ImportError
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install"):
        HairSegmenter(weights, backend=backend)


def test_stale_onnx_gives_way_to_the_new_weights(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "model.onnx").write_bytes((weights / "model.onnx").read_bytes())
    models.save_model(models.build_model("resnet18", "Unet"), tmp_path, FACTS)
    assert HairSegmenter(tmp_path).backend == "torch"
    assert "export.py" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"export\.py"):
        HairSegmenter(tmp_path, backend="onnx")


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


@pytest.mark.parametrize("shape", [(500, 500), (400, 700), (900, 300)])
def test_the_closer_look_is_square_around_the_head(
    shape: tuple[int, int], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(_: HairSegmenter, photos: list[np.ndarray]) -> np.ndarray:
        seen.extend(photos)
        return np.stack([by_brightness(geometry.fit_square(photo, 64)) for photo in photos])

    monkeypatch.setattr(HairSegmenter, "_look", look)
    photo = np.zeros((*shape, 3), np.uint8)
    cv2.circle(photo, (shape[1] // 2, shape[0] // 2), 25, (255, 255, 255), -1)
    found = HairSegmenter(weights, "onnx")(photo) >= 0.5
    first, closer = seen
    assert first.shape == photo.shape
    assert 0.8 < closer.shape[0] / closer.shape[1] < 1.25
    rows, columns = (np.flatnonzero(closer[..., 0].any(axis)) for axis in (1, 0))
    assert np.abs([rows.mean() * 2 - closer.shape[0], columns.mean() * 2 - closer.shape[1]]).max() < 30
    truth = photo[..., 0] > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_starts_without_heavy_imports(weights: Path, tmp_path: Path) -> None:
    program = (
        "import sys, inference\n"
        "inference.HairSegmenter(sys.argv[1], backend='onnx')(sys.argv[2])\n"
        "print([m for m in ('torch', 'segmentation_models_pytorch', 'albumentations', 'timm') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(weights), str(ROOT / "demo" / "1.jpg")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------- results


def test_overlay_tints_hair_alone(head: np.ndarray) -> None:
    mask = np.zeros(head.shape[:2], bool)
    mask[40:60, 40:60] = True
    overlay = render.draw_overlay(head, mask)
    assert (overlay[45:55, 45:55] != head[45:55, 45:55]).any(axis=2).all()
    np.testing.assert_array_equal(overlay[:30], head[:30])


def test_recolor_keeps_lightness_and_the_rest(head: np.ndarray) -> None:
    probabilities = np.zeros(head.shape[:2], np.float32)
    probabilities[30:60, 30:60] = 1
    dyed = render.recolor(head, probabilities, 0.5, render.parse_color("blue"))
    lightness = lambda rgb: cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[30:60, 30:60, 0]
    assert np.abs(lightness(dyed) - lightness(head)).mean() < 2
    assert dyed[30:60, 30:60, 2].mean() > head[30:60, 30:60, 2].mean() + 10
    noisy = np.random.default_rng(0).integers(0, 256, head.shape, np.uint8)
    turned = render.recolor(np.rot90(head), np.rot90(probabilities), 0.5, render.parse_color("blue"))
    np.testing.assert_array_equal(turned, np.rot90(dyed))
    pale = render.recolor(noisy, probabilities, 0.5, (0, 0, 255), strength=0)
    np.testing.assert_array_equal(pale, noisy)
    for image in (head, noisy):
        changed = render.recolor(image, probabilities, 0.5, (0, 0, 255))
        np.testing.assert_array_equal(changed[:28], image[:28])


def test_alpha_is_half_at_the_threshold(head: np.ndarray) -> None:
    probabilities = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (96, 1))
    cut = render.cut_out(head, probabilities, 0.7)
    np.testing.assert_array_equal(cut[..., :3], head)
    alpha = cut[0, :, 3].astype(int)
    assert alpha[0] == 0 and alpha[-1] == 255 and (np.diff(alpha) >= 0).all()
    assert abs(np.interp(0.7, probabilities[0], alpha) - 127.5) < 5


def test_polygons_give_the_mask_back() -> None:
    mask = np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, (70, 60), (50, 45), 0, 0, 360, 1, -1)
    cv2.ellipse(mask, (60, 62), (20, 25), 0, 0, 360, 0, -1)  # a face within the hair
    cv2.circle(mask, (95, 50), 6, 0, -1)
    cv2.circle(mask, (145, 20), 8, 1, -1)  # another person
    outlines = render.polygons(mask)
    back = pictures.rasterise(outlines, mask.shape)
    assert np.count_nonzero(back & mask) / np.count_nonzero(back | mask) > 0.97
    coco = render.coco("a.jpg", mask)
    assert coco["annotations"][0]["bbox"] == [20, 12, 134, 94]
    assert render.coco("a.jpg", mask * 0)["annotations"] == []


def test_description_and_color_names(head: np.ndarray) -> None:
    mask = np.zeros(head.shape[:2], bool)
    assert render.describe("a.jpg", head, mask)["box"] is None
    head[20:40, 10:60] = (20, 18, 17)
    mask[20:40, 10:60] = True
    facts = render.describe("a.jpg", head, mask)
    assert facts["box"] == [10, 20, 50, 20]
    assert facts["color"] == "#141211" and facts["color_name"] == "black"
    assert facts["hair"] == pytest.approx(1000 / 96**2, abs=1e-4)
    assert render.color_name((200, 168, 120)) == "blond"
    assert render.parse_color("#ff8000") == (255, 128, 0)
    with pytest.raises(ValueError, match="--color ginger-ish"):
        render.parse_color("ginger-ish")


def test_refined_edges_follow_the_photo() -> None:
    photo = np.full((128, 128, 3), 220, np.uint8)
    photo[:, :64] = 40
    blurred = np.tile(np.clip((70 - np.arange(128)) / 24 + 0.5, 0, 1).astype(np.float32), (128, 1))  # 6 px off
    wrong = lambda probabilities: np.count_nonzero((probabilities >= 0.5) != (photo[..., 0] < 128))
    assert wrong(render.refine_edges(photo, blurred, 64)) < 0.7 * wrong(blurred)


def test_strips_give_the_same_picture(head: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (
        render.refine_edges(head, by_brightness(head), 32),
        render.recolor(head, by_brightness(head), 0.5, (9, 9, 99)),
    )
    monkeypatch.setattr(render, "STRIP", 96 * 20)
    np.testing.assert_allclose(render.refine_edges(head, by_brightness(head), 32), whole[0], atol=1e-4)
    np.testing.assert_array_equal(render.recolor(head, by_brightness(head), 0.5, (9, 9, 99)), whole[1])


# ---------------------------------------------------------------------------------------------------- video


def write_video(path: Path, frames: int = 12) -> np.ndarray:
    photo = draw_head(np.random.default_rng(0), 96)[0]
    rng = np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 96))
    for _ in range(frames):
        writer.write(np.clip(photo + rng.normal(0, 8, photo.shape), 0, 255).astype(np.uint8)[..., ::-1])
    writer.release()
    return photo


@pytest.mark.parametrize("writer", ["AvWriter", "CvWriter"])
def test_video_keeps_frames_and_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    if writer == "AvWriter":
        pytest.importorskip("av")
    monkeypatch.setattr(video, "choose_writer", lambda: getattr(video, writer))
    write_video(tmp_path / "in.mp4")
    args = argparse.Namespace(save=["overlay", "mask"], color=(9, 9, 99), threshold=0.5, every=3, smooth=0.6)
    calls = []
    segmenter = lambda frame: calls.append(1) or by_brightness(frame)
    assert "12 frames" in video.segment_video(tmp_path / "in.mp4", tmp_path / "out", segmenter, args)
    assert len(calls) == 4
    for kind in args.save:
        written = video.Reader(tmp_path / f"out_{kind}.mp4")
        assert written.rate == pytest.approx(25, abs=0.1)
        assert len(list(written)) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out_mask.mp4", "out_overlay.mp4"]


def test_smoothing_steadies_and_does_not_lag(head: np.ndarray) -> None:
    smooth, rng = video.Smoother(0.6), np.random.default_rng(0)
    noisy = [np.clip(0.5 + rng.normal(0, 0.1, (96, 96)), 0, 1).astype(np.float32) for _ in range(10)]
    steady = [smooth(head, one) for one in noisy]
    change = lambda frames: np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(frames)])
    assert change(steady) < 0.6 * change(noisy)
    np.testing.assert_array_equal(smooth(255 - head // 4, noisy[0])[10:20, 10:20], noisy[0][10:20, 10:20])


def test_video_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    args = argparse.Namespace(save=["overlay"], color=(9, 9, 99), threshold=0.5, every=1, smooth=0)
    with pytest.raises(ValueError, match=r"bad\.mp4"):
        video.segment_video(tmp_path / "bad.mp4", tmp_path / "out", by_brightness, args)
    args.save = ["alpha"]
    with pytest.raises(ValueError, match="alpha"):
        video.segment_video(tmp_path / "bad.mp4", tmp_path / "out", by_brightness, args)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such file"):
        video.Reader(tmp_path / "gone.mp4")


def write_film(path: Path, sound: str, frames: int = 40, rate: int = 10) -> None:
    """A film of grey frames with four seconds of silence."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as film:
        pictures, noise = film.add_stream("mpeg4", rate=rate), film.add_stream(sound, rate=8000)
        pictures.width = pictures.height = 64
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * number, np.uint8), format="rgb24")
            film.mux(pictures.encode(frame))
            samples = noise.codec_context.frame_size or 800
            if number * 800 % samples < 800:
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, samples), np.float32 if sound == "aac" else np.uint8),
                    format="fltp" if sound == "aac" else "u8",
                    layout="mono",
                )
                silence.sample_rate = 8000
                film.mux(noise.encode(silence))
        film.mux(pictures.encode())
        film.mux(noise.encode())


def seconds_of(path: Path, kind: str) -> float:
    av = pytest.importorskip("av")
    with av.open(str(path)) as film:
        streams = [stream for stream in film.streams if stream.type == kind]
        return max((float((stream.duration or 0) * stream.time_base) for stream in streams), default=0.0)


def test_sound_is_kept_cut_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_film(tmp_path / "in.mp4", "aac")
    args = argparse.Namespace(save=["mask", "json"], color=(9, 9, 99), threshold=0.5, every=1, smooth=0)
    assert "40 frames" in video.segment_video(tmp_path / "in.mp4", tmp_path / "whole", by_brightness, args)
    assert "--save json is for photos" in capsys.readouterr().err
    length = seconds_of(tmp_path / "in.mp4", "audio")
    assert length > 3 and seconds_of(tmp_path / "whole_mask.mp4", "audio") == pytest.approx(length, abs=0.3)

    shown = []

    def stopped(frame: np.ndarray) -> np.ndarray:
        if len(shown) == 10:
            raise KeyboardInterrupt
        shown.append(frame)
        return by_brightness(frame)

    assert "10 frames" in video.segment_video(tmp_path / "in.mp4", tmp_path / "part", stopped, args)
    assert seconds_of(tmp_path / "part_mask.mp4", "audio") == pytest.approx(1, abs=0.3)

    write_film(tmp_path / "old.avi", "pcm_u8")
    assert "40 frames" in video.segment_video(tmp_path / "old.avi", tmp_path / "old", by_brightness, args)
    assert "sound, which is left out" in capsys.readouterr().err
    assert seconds_of(tmp_path / "old_mask.mp4", "audio") == 0


# ---------------------------------------------------------------------------------------------------- command line


def test_batch_goes_on_after_a_bad_file(cli, tmp_path: Path, weights: Path, head: np.ndarray) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "b.webp"):
        Image.fromarray(head).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no photo")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    kinds = ["overlay", "mask", "alpha", "recolor", "contour", "json"]
    result = cli("inference.py", "--weights", weights, "--input", folder, "--save", *kinds, "--backend", "onnx")
    assert result.returncode == 1
    assert "bad.jpg" in result.stderr and "1 of 4" in result.stderr and "Traceback" not in result.stderr
    written = sorted(path.name for path in (tmp_path / "result").iterdir())
    suffixes = [f"{kind}.{inference.KINDS[kind]}" for kind in kinds]
    assert written == sorted(f"{stem}_{suffix}" for stem in ("a", "a-2", "b") for suffix in suffixes)
    mask = cv2.imread(str(tmp_path / "result" / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (96, 96) and set(np.unique(mask)) <= {0, 255}
    assert json.loads((tmp_path / "result" / "b_json.json").read_text())["file"] == "b.webp"
    assert before == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--input", "none.jpg"], "none.jpg: no such file"),
        (["--input", "*.jpg"], "nothing matches"),
        (["--input", ""], "--input: an empty name"),
        (["--num", "99"], "99.jpg: no such file"),
        (["--threshold", "2"], "--threshold"),
        (["--color", "loud"], "--color loud"),
        (["--color", "rgb(300,0,0)"], "--color rgb(300,0,0)"),
        (["--weights", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(cli, weights: Path, flags: list[str], told: str) -> None:
    result = cli("inference.py", *([] if "--weights" in flags else ["--weights", weights]), *flags)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and told in result.stderr and result.stderr.count("\n") == 1


def test_hub_entries(weights: Path, head: np.ndarray) -> None:
    import torch

    segmenter = torch.hub.load(str(ROOT), "hair_segmenter", source="local", weights=weights)
    assert segmenter(head).shape == (96, 96)
    model = torch.hub.load(str(ROOT), "hair_model", source="local", weights=weights)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)

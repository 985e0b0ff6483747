"""HairSegmenter: any photo to probabilities of its own shape, closer looks, wrong use, and nothing heavy imported."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hair import HairSegmenter, UserError, geometry
from hair.backends import BACKENDS, METADATA, computes_int8
from tests.conftest import ROOT
from tests.hair.conftest import FACTS
from tests.pictures import FUZZ, Bright, by_brightness

HEAVY = ("torch", "segmentation_models_pytorch", "albumentations", "timm", "pandas")


@settings(FUZZ, max_examples=25)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 99), tta=st.booleans())
def test_any_photo_gets_probabilities_of_its_shape(height: int, width: int, seed: int, tta: bool) -> None:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)  # spots: closer looks happen
    photo = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    found = Bright(tta=tta, refine=tta)(photo)
    assert found.shape == (height, width) and found.dtype == np.float32
    assert found.min() >= 0 and found.max() <= 1


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


@pytest.mark.parametrize("shape", [(500, 500), (400, 700), (900, 300)])
def test_the_closer_look_is_square_around_the_head(
    shape: tuple[int, int], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def predict(_: HairSegmenter, photos: list[np.ndarray], __: float = 1) -> np.ndarray:
        seen.extend(photos)
        return np.stack([by_brightness(geometry.fit_square(photo, 64)) for photo in photos])

    monkeypatch.setattr(HairSegmenter, "_predict_squares", predict)
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


# ---------------------------------------------------------------------------------------------------- wrong use


def test_wrong_use_is_told(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        HairSegmenter(tmp_path)
    with pytest.raises(UserError, match="multiple of 32"):
        HairSegmenter(weights, img_size=100)
    with pytest.raises(UserError, match="--backend tensorflow"):
        HairSegmenter(weights, backend="tensorflow")
    with pytest.raises(UserError, match="--img_size 0 is not"):
        HairSegmenter(weights, img_size=0)
    with pytest.raises(UserError, match="--device mps: this ONNX Runtime has no such"):
        HairSegmenter(weights, backend="onnx", device="mps")
    with pytest.raises(UserError, match="multiple of 32"):
        HairSegmenter(weights, img_size=64.0)
    with pytest.raises(UserError, match="threads: 0"):
        HairSegmenter(weights, threads=0)
    with pytest.raises(UserError, match="RGB uint8"):
        HairSegmenter(weights)(np.zeros((8, 8), np.uint8))
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"broken\.onnx"):
        HairSegmenter(tmp_path / "broken.onnx", backend="onnx")


def test_a_folder_with_only_onnx_says_so(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((weights / "model.onnx").read_bytes())  # like the installed package
    assert HairSegmenter(tmp_path).backend in ("onnx", "openvino")
    with pytest.raises(UserError, match=r"has no model for PyTorch, only model\.onnx; use --backend onnx"):
        HairSegmenter(tmp_path, backend="torch")


def test_stale_onnx_gives_way_to_the_new_weights(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    import models

    (tmp_path / "model.onnx").write_bytes((weights / "model.onnx").read_bytes())
    models.save_model(models.build_model("tu-test_efficientnet", "Unet"), tmp_path, FACTS)
    assert HairSegmenter(tmp_path).backend == "torch"
    assert f"{tmp_path / 'model.onnx'}: is older than model.safetensors" in (said := capsys.readouterr().err)
    assert "export.py" in said
    with pytest.raises(UserError, match=r"is older than model\.safetensors; python export\.py"):
        HairSegmenter(tmp_path, backend="onnx")


def add_int8(weights: Path, folder: Path, **facts: str) -> Path:
    """A copy of a run folder with a second ONNX file, which says that it computes in int8."""
    import onnx

    shutil.copytree(weights, folder)
    proto = onnx.load(folder / "model.onnx")
    facts = json.loads(proto.metadata_props[0].value) | {"int8": True} | facts
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(facts)})
    onnx.save(proto, folder / "model_int8.onnx")
    return folder


@pytest.mark.parametrize(
    "backend", [name for name in BACKENDS if name != "litert" and (name != "openvino" or find_spec("openvino"))]
)
def test_a_cpu_gets_int8_where_there_is_a_file(weights: Path, tmp_path: Path, backend: str) -> None:
    folder = add_int8(weights, tmp_path / "run")
    segmenter = HairSegmenter(folder, backend)
    file, precision = (folder, "f32") if backend == "torch" else (folder / "model_int8.onnx", "int8")
    assert segmenter.network == f"{file}: {segmenter.backend}, {precision}"


def test_others_get_floats(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = add_int8(weights, tmp_path / "stale", made_from="other weights")
    assert HairSegmenter(stale, "onnx").network == f"{stale / 'model.onnx'}: onnx, f32"
    folder = add_int8(weights, tmp_path / "run")
    monkeypatch.setattr("hair.segmenter.computes_int8", lambda backend, device: False)
    assert HairSegmenter(folder, "onnx").network == f"{folder / 'model.onnx'}: onnx, f32"


@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_int8_is_for_cpus(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert computes_int8(backend, "cpu")
    assert not computes_int8(backend, "cuda")
    monkeypatch.setattr("hair.backends.find_spec", lambda name: None)  # no OpenVINO
    assert computes_int8(backend, "auto")
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert not computes_int8(backend, "auto")
    assert computes_int8(backend, "cpu")


# ---------------------------------------------------------------------------------------------------- imports


def test_starts_without_heavy_imports(weights: Path, tmp_path: Path) -> None:
    program = (
        "import sys, inference\n"
        "inference.HairSegmenter(sys.argv[1], backend='onnx')(sys.argv[2])\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(weights), str(ROOT / "demo" / "1.jpg")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_application_may_have_modules_of_the_same_names(tmp_path: Path) -> None:
    """The application's own `utils`, `models` and `dataset` come first, and stay what they are."""
    for name in ("utils", "models", "dataset", "training", "export", "inference", "geometry", "video", "render"):
        (tmp_path / f"{name}.py").write_text(f"OWNER = 'the application, {name}'\n")
    program = (
        "import sys, utils, models, dataset\n"
        "from hair import HairSegmenter, read_photo\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "photo = read_photo(sys.argv[1])\n"
        "found = HairSegmenter()(photo)\n"
        "print(found.shape == photo.shape[:2], 0.02 < (found >= 0.5).mean() < 0.9)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "print(utils.OWNER, models.OWNER, dataset.OWNER, sep='; ')\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "demo" / "1.jpg")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    owners = "the application, utils; the application, models; the application, dataset"
    assert done.stdout.splitlines() == ["[]", "True True", "[]", owners]


def test_hub_entries(weights: Path, head: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    segmenter = torch.hub.load(str(ROOT), "hair_segmenter", source="local", weights=weights)
    assert segmenter(head).shape == (96, 96)
    model = torch.hub.load(str(ROOT), "hair_model", source="local", weights=weights)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)

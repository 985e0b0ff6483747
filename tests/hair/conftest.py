"""An untrained network and a drawn head, for the tests of the package `hair`."""

from pathlib import Path

import numpy as np
import pytest

from tools.make_sample import draw_head

FACTS = {"img_size": 64, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "threshold": 0.5}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained network of 64 px and its ONNX file."""
    pytest.importorskip("torch")  # only here, so that the other tests run without PyTorch
    import models
    from training import exporting

    folder = tmp_path_factory.mktemp("weights") / "run"
    models.save_model(models.build_model("tu-test_efficientnet", "Unet"), folder, FACTS)  # the smallest there is
    exporting.export(folder, "onnx", folder / "model.onnx")
    return folder


@pytest.fixture
def head() -> np.ndarray:
    return draw_head(np.random.default_rng(0), 96)[0]

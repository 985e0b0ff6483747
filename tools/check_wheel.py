"""Check an installed wheel: its content, and that it works without PyTorch and next to modules named like ours.

python -m build --wheel --outdir dist . && pip install dist/*.whl       # in a new virtual environment
python tools/check_wheel.py dist/*.whl

Run it in an environment in which only the wheel is installed. It imports nothing else from this project.
"""

import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

MOST_BYTES = 12_000_000
NEEDED = ("hair/weights/wild/model.onnx", "hair/weights/wild/README.md", "licenses/LICENSE")
HEAVY = ("torch", "segmentation_models_pytorch", "albumentations", "pandas", "timm")
PHOTO = Path(__file__).resolve().parents[1] / "demo" / "1.jpg"
APPLICATION = """
import models, utils
from hair import HairSegmenter, read_photo
photo = read_photo({photo!r})
for backend in {backends!r}:
    segment = HairSegmenter(backend=backend)
    mask = segment(photo) >= segment.threshold
    assert 0.01 < mask.mean() < 0.2, mask.mean()
assert models.OWN and utils.OWN
"""


def main() -> None:
    wheel = Path(sys.argv[1])
    size = wheel.stat().st_size
    assert size <= MOST_BYTES, f"{wheel}: {size / 1e6:.1f} MB is more than {MOST_BYTES / 1e6:.0f}"
    names = zipfile.ZipFile(wheel).namelist()
    for needed in NEEDED:
        assert any(name.endswith(needed) for name in names), f"{wheel}: no {needed} in it"
    assert all(name.startswith(("hair/", "hair_segmentation-")) for name in names), names
    assert not [name for name in HEAVY if find_spec(name)], "not an environment with only the wheel"
    backends = ["onnx"] + (["openvino"] if find_spec("openvino") else [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for module in ("utils", "models"):
            (folder / f"{module}.py").write_text("OWN = True\n")
        (folder / "application.py").write_text(APPLICATION.format(photo=str(PHOTO), backends=backends))
        subprocess.run([sys.executable, "application.py"], cwd=folder, check=True)
    print(f"{wheel.name}: {size / 1e6:.1f} MB, works without PyTorch, with {' and '.join(backends)}")


if __name__ == "__main__":
    main()

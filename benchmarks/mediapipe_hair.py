"""Google's MediaPipe hair model, to be measured beside a model of this project.

MediaPipe must not bring a second OpenCV along:

    pip install --no-deps mediapipe absl-py flatbuffers sounddevice cffi pycparser
    python -m benchmarks.robustness --data_dir data/CelebAMask-HQ --mediapipe hair_segmentation.tflite
"""

import sys
import types
from pathlib import Path

import cv2
import numpy as np

from hair.errors import UserError

HOW_TO_INSTALL = "pip install --no-deps mediapipe absl-py flatbuffers sounddevice cffi pycparser"
METADATA_PARSER = "mediapipe.tasks.cc.metadata.python"  # compiled, and missing in the wheels


class MediaPipeHair:
    """MediaPipe's hair model, run by MediaPipe itself.

    Args:
        path: the model's `.tflite` file (780,588 bytes), without metadata, as Google published it.

    Raises:
        UserError: no such file, or one that MediaPipe cannot run; no package `mediapipe`.
    """

    threshold = 0.5

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        _stand_in_for_missing_modules()
        try:
            import mediapipe
            from mediapipe.tasks.python import vision
            from mediapipe.tasks.python.core.base_options import BaseOptions
            from mediapipe.tasks.python.metadata.metadata_writers import image_segmenter
        except ImportError as error:
            raise UserError(f"--mediapipe needs the package mediapipe ({error}): {HOW_TO_INSTALL}") from error
        self._mediapipe = mediapipe
        try:
            writer = image_segmenter.MetadataWriter.create(
                bytearray(path.read_bytes()), [0.0], [255.0], activation=image_segmenter.Activation.SOFTMAX
            )
            model = BaseOptions(model_asset_buffer=bytes(writer.populate()[0]))
            options = vision.ImageSegmenterOptions(model, output_confidence_masks=True, output_category_mask=False)
            self._segmenter = vision.ImageSegmenter.create_from_options(options)
        except Exception as error:  # of many kinds, for a file of another kind
            raise UserError(f"{path}: MediaPipe cannot run it ({error})") from error

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        """RGB uint8 (H, W, 3) to the probability of hair, float32 (H, W) in [0, 1]."""
        # The fourth channel is the mask of the frame before, which a photo does not have.
        rgba = np.ascontiguousarray(np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)]))
        picture = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGBA, data=rgba)
        masks = self._segmenter.segment(picture).confidence_masks
        found = np.array(masks[-1].numpy_view(), np.float32).reshape(masks[-1].height, masks[-1].width)
        return cv2.resize(found, photo.shape[1::-1]) if found.shape != photo.shape[:2] else found


def _stand_in_for_missing_modules() -> None:
    parts = METADATA_PARSER.split(".")
    for length in range(3, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:length]), types.ModuleType(parts[length - 1]))
    version = types.ModuleType("version")
    version.GetMinimumMetadataParserVersion = lambda _: "1.5.0"  # type: ignore[attr-defined]
    sys.modules[METADATA_PARSER]._pywrap_metadata_version = version  # type: ignore[attr-defined]

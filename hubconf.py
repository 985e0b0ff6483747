"""For torch.hub: `torch.hub.load("<owner>/<repository>", "hair_segmenter")`; weights come with the repository.

The files here import each other by plain names (`utils`, `models`, …): modules of yours with such names are in the way.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from inference import HairSegmenter

dependencies = ["torch", "cv2", "numpy", "PIL", "isal", "onnxruntime"]  # hair_model needs all of requirements.txt


def hair_segmenter(weights: str | None = None, **options: Any) -> "HairSegmenter":
    """A `HairSegmenter`: from a photo, RGB uint8 (H, W, 3) or a path, to float32 (H, W) in [0, 1].

    Args:
        weights: a run folder or an exported file; the shipped weights if None.
        options: as `inference.HairSegmenter` takes them: backend, device, img_size, tta, refine, multi_scale.

    Raises:
        FileNotFoundError, ValueError: weights that are missing or cannot be loaded.
    """
    from inference import HairSegmenter

    return HairSegmenter(weights, **options)


def hair_model(weights: str | None = None) -> "nn.Module":
    """The network alone, a torch module in eval mode, to be trained further.

    It goes from float32 (N, 3, H, W), normalised by the mean and std in the `config.json` of the weights, H and W
    multiples of 32, to logits (N, 1, H, W).

    Args:
        weights: a run folder; the shipped one if None.

    Raises:
        utils.UserError: weights that are missing or cannot be loaded.
    """
    from pathlib import Path

    from inference import DEFAULT_WEIGHTS
    from models import load_model

    return load_model(Path(weights or DEFAULT_WEIGHTS))[0]

"""For torch.hub: `torch.hub.load("<owner>/<repository>", "hair_segmenter")`; the weights come with the repository."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from hair import HairSegmenter

dependencies = ["cv2", "numpy", "PIL", "isal", "onnxruntime", "tqdm"]  # hair_model also needs torch and SMP


def hair_segmenter(weights: str | None = None, **options: Any) -> "HairSegmenter":
    """A `HairSegmenter`: from a photo, RGB uint8 (H, W, 3) or a path, to float32 (H, W) in [0, 1].

    Args:
        weights: a run folder, an exported file, a name or an address (`hair.store.find_weights`); None: the shipped
            weights.
        options: those of `hair.HairSegmenter`: backend, device, img_size, tta, refine, multi_scale.

    Raises:
        FileNotFoundError, hair.UserError: the weights are missing or cannot be loaded.
    """
    from hair import HairSegmenter

    return HairSegmenter(weights, **options)


def hair_model(weights: str | None = None) -> "nn.Module":
    """Only the network, a torch module in eval mode, for further training.

    Its input is float32 (N, 3, H, W), normalised with the mean and std in the `config.json` of the weights; H and W are
    multiples of 32. Its output are logits (N, 1, H, W).

    Args:
        weights: a run folder, a name or `hf://owner/name`; None: the shipped one.

    Raises:
        hair.UserError: the weights are missing or cannot be loaded.
    """
    from hair.backends import load_torch_model
    from hair.store import find_weights

    return load_torch_model(find_weights(weights))[0]

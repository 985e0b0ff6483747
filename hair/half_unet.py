"""A Unet that ends at half the size of its input: the last stage costs most and adds least."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.base import SegmentationHead
from segmentation_models_pytorch.base.hub_mixin import supports_config_loading

STAGES = 4  # of the decoder; SMP's Unet has 5
HEAD = "segmentation_head."  # how the names of its tensors begin


class HalfUnet(smp.Unet):
    """SMP's Unet without the decoder's last stage; logits at half the size are enlarged bilinearly.

    It takes float32 (N, in_channels, H, W), H and W multiples of 32, to logits (N, classes, H, W).

    Args:
        encoder_name: a name that SMP knows.
        encoder_weights: a name that SMP can download for the encoder, or None.
        decoder_channels: of the four stages.
        in_channels: of the input.
        classes: channels of the output.
    """

    @supports_config_loading
    def __init__(
        self,
        encoder_name: str = "resnet34",
        encoder_weights: str | None = "imagenet",
        decoder_channels: Sequence[int] = (128, 64, 48, 32),
        in_channels: int = 3,
        classes: int = 1,
    ) -> None:
        if len(decoder_channels) != STAGES:
            raise ValueError(f"a HalfUnet has {STAGES} stages, not {len(decoder_channels)}")
        super().__init__(
            encoder_name,
            encoder_weights=encoder_weights,
            decoder_channels=(*decoder_channels, decoder_channels[-1]),
            in_channels=in_channels,
            classes=classes,
        )
        del self.decoder.blocks[-1]
        self.segmentation_head = SegmentationHead(decoder_channels[-1], classes, kernel_size=3, upsampling=2)
        self.initialize()

    def tensors_of(self, unet: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state dict of a Unet without its last stage and with this network's own head."""
        left_out = (f"decoder.blocks.{STAGES}.", HEAD)
        own = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(HEAD)}
        return own | {name: tensor for name, tensor in unet.items() if not name.startswith(left_out)}

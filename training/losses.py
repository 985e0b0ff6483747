"""The losses that `--loss` can choose."""

from functools import partial

import segmentation_models_pytorch as smp
import torch
from torch import nn


class DiceBCELoss(nn.Module):
    """Dice plus binary cross-entropy: Dice alone is zero on a batch without hair, whatever the network predicts."""

    def __init__(self) -> None:
        super().__init__()
        self.dice = smp.losses.DiceLoss(mode="binary")
        self.bce = smp.losses.SoftBCEWithLogitsLoss()

    def forward(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The loss of logits and masks in [0, 1], both float32 (N, 1, H, W), as a scalar."""
        return self.dice(logits, mask) + self.bce(logits, mask)


BUILDERS = {
    "dice_bce": DiceBCELoss,
    "dice": partial(smp.losses.DiceLoss, mode="binary"),
    "bce": smp.losses.SoftBCEWithLogitsLoss,
    "focal": partial(smp.losses.FocalLoss, mode="binary"),
    "lovasz": partial(smp.losses.LovaszLoss, mode="binary"),
}


def build_loss(name: str) -> nn.Module:
    """A loss: takes float32 logits (N, 1, H, W) and float32 masks in {0, 1} of the same shape, returns a scalar."""
    return BUILDERS[name]()

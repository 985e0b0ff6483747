"""Every loss prefers the right mask."""

import pytest
import torch

from training.flags import LOSSES
from training.losses import BUILDERS, build_loss


@pytest.mark.parametrize("name", ["dice_bce", "dice", "bce", "focal", "lovasz"])
def test_losses_prefer_the_right_mask(name: str) -> None:
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., :8] = 1
    loss = build_loss(name)
    right, wrong = loss(8 * (2 * mask - 1), mask), loss(8 * (1 - 2 * mask), mask)
    assert right.item() < 0.05 < wrong.item()


def test_each_name_of_the_flag_is_a_loss() -> None:
    assert list(BUILDERS) == LOSSES


def test_dice_bce_counts_hair_found_where_there_is_none() -> None:
    """Dice alone is zero on a batch without hair, whatever the network says."""
    nothing = torch.zeros(2, 1, 16, 16)
    assert build_loss("dice")(nothing + 5, nothing).item() == 0
    assert build_loss("dice_bce")(nothing + 5, nothing).item() > 1

"""What of a ResNet's weights images of 28 pixels meet, behind the original stem."""

from __future__ import annotations

import torch
from torch import Tensor


def side_that_meets(name: str) -> int:
    """Of the 3x3 filter of that name in layer4, which makes one pixel of 2x2 with stride 2 or of one."""
    return 2 if name.endswith("0.conv1.weight") else 1


def as_kept(name: str, tensor: Tensor) -> Tensor:
    """``tensor`` of torchvision's state dict as it is in that of a network for such images."""
    if not name.startswith("layer4.") or tensor.shape[2:] != (3, 3):
        return tensor
    end = 1 + side_that_meets(name)
    kept = torch.zeros_like(tensor)
    kept[:, :, 1:end, 1:end] = tensor[:, :, 1:end, 1:end]
    return kept

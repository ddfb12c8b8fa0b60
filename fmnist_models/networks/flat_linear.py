"""A fully connected layer on the output of convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def flat_linear(features: Tensor, layer: nn.Linear) -> Tensor:
    """``layer(features.flatten(1))`` of ``(B, C, H, W)``.

    Where channels are last in memory the weights are turned, and not the features: these, and on the way back the
    gradients of all layers up to the last convolution, keep one order, as fast kernels want it.
    """
    if features.is_contiguous() or not features.is_contiguous(memory_format=torch.channels_last):
        scores: Tensor = layer(features.flatten(1))
        return scores
    weight = layer.weight.view(-1, *features.shape[1:]).permute(0, 2, 3, 1).flatten(1)
    return functional.linear(features.permute(0, 2, 3, 1).flatten(1), weight, layer.bias)

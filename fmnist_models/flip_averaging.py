"""Test-time flip averaging: a network that judges an image together with its mirror image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fmnist_models.recipe import Recipe

_NAME = "flip_averaging"


class FlipAveraged(nn.Module):
    """A trained ``network`` for inference: the mean of its probabilities for an image and for its mirror image.

    Images ``(B, 1, H, W)`` float to scores ``(B, 10)`` float32. It is for use alone: what is trained and saved is
    ``network``, whose weights go by its own names.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def input_size(self) -> int:
        """To how many pixels the network enlarges images, 0 if it does not."""
        size: int = getattr(self.network, "input_size", 0)
        return size

    def forward(self, images: Tensor) -> Tensor:
        return average_scores(self.network(images), self.network(images.flip(3)))


def average_scores(first: Tensor, second: Tensor) -> Tensor:
    """Scores ``(B, 10)`` float32 whose softmax is the mean of the two softmaxes: the logarithm of that mean.

    The mean of probabilities, as that of raw scores depends on how large each of the two happens to be; and the loss
    of their mean is never above the mean of the two losses (Jensen's inequality).
    """
    return torch.logaddexp(first.float().log_softmax(1), second.float().log_softmax(1)) - math.log(2)


def for_inference(network: nn.Module, hyperparameters: Mapping[str, Any]) -> nn.Module:
    """What predicts in the way that a trial of these hyperparameters does: ``network`` itself, or ``FlipAveraged``.

    Raises:
        ValueError: ``flip_averaging`` is neither true nor false.
    """
    recipe = Recipe(**{name: value for name, value in hyperparameters.items() if name == _NAME})
    return FlipAveraged(network) if recipe.flip_averaging else network


def bare_network(model: nn.Module) -> nn.Module:
    """The network that ``for_inference`` was given."""
    return model.network if isinstance(model, FlipAveraged) else model

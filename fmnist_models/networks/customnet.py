"""CustomNet: three convolutional blocks and one fully connected layer (Leopardi, "Fashion-MNIST Image
Classification", section III and Figure 4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from fmnist_models.hyperparameters import Hyperparameters, Interval, hyperparameter
from fmnist_models.networks.conv_block import ConvBlock
from fmnist_models.networks.dropout import Dropout
from fmnist_models.networks.flat_linear import flat_linear
from fmnist_models.networks.grey_block import GreyBlock


@dataclass(frozen=True, kw_only=True)
class CustomNetHyperparameters(Hyperparameters):
    """``dropout``: probability of dropping an activation of the last block; the paper uses 0.5."""

    dropout: float = hyperparameter(0.5, Interval(0.0, 0.95))


class CustomNet(nn.Module):
    """Grey 28x28 images to ten class scores, 155,850 parameters.

    Shapes: ``(B, 1, 28, 28)`` float → block1 ``(B, 32, 14, 14)`` → block2 ``(B, 64, 7, 7)`` → block3
    ``(B, 128, 7, 7)`` → ``(B, 10)`` scores before softmax.
    """

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.block1 = GreyBlock(32)
        self.block2 = ConvBlock(32, 64)
        conv = nn.Conv2d(64, 128, 3, padding=1)
        self.block3 = nn.Sequential(conv, nn.BatchNorm2d(128), nn.ReLU(), Dropout(dropout))
        self.fc = nn.Linear(128 * 7 * 7, 10)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.block3(self.block2(self.block1(x)))
        return flat_linear(features, self.fc)


def build_customnet(hyperparameters: Hyperparameters) -> CustomNet:
    """A CustomNet with fresh weights from torch's global random state."""
    assert isinstance(hyperparameters, CustomNetHyperparameters)
    return CustomNet(dropout=hyperparameters.dropout)

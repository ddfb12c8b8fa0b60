"""ResNets of basic blocks for grey images: torchvision's, loaded by whoever builds one, as that takes two seconds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, ResNet

from fmnist_models.networks.dropout import Dropout
from fmnist_models.networks.enlarging import SMALL
from fmnist_models.networks.residual import residual_steps


class GreyResNet(ResNet):  # type: ignore[misc]
    """torchvision's ResNet of basic blocks with one input channel and ten outputs, and torchvision's parameter names.

    Shapes with ``input_size`` 28, ``stem`` ``original`` (7x7, stride 2, max-pooling): ``(B, 1, 28, 28)`` float → stem
    ``(B, 64, 7, 7)`` → layer1 ``(B, 64, 7, 7)`` → layer2 ``(B, 128, 4, 4)`` → layer3 ``(B, 256, 2, 2)`` → layer4
    ``(B, 512, 1, 1)`` → ``(B, 10)`` scores before softmax. ``small`` (3x3, stride 1, no pooling): stem and layer1
    ``(B, 64, 28, 28)`` → ``(B, 128, 14, 14)`` → ``(B, 256, 7, 7)`` → ``(B, 512, 4, 4)``. With ``input_size`` 227 the
    images are made larger first and the stem is the original one: ``(B, 1, 227, 227)`` → stem and layer1
    ``(B, 64, 57, 57)`` → ``(B, 128, 29, 29)`` → ``(B, 256, 15, 15)`` → ``(B, 512, 8, 8)``.
    """

    def __init__(self, blocks: Sequence[int], *, dropout: float, input_size: int, stem: str) -> None:
        super().__init__(BasicBlock, list(blocks), num_classes=10)
        self.input_size = input_size
        if stem == "small" and input_size == SMALL:
            self.conv1 = nn.Conv2d(1, 64, kernel_size=3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        # Between pooling and `fc`; as part of the pooling so that the state dict keeps torchvision's names.
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), Dropout(dropout))
        for block in self.layer4:
            block.conv2 = _MiddleConv2d.like(block.conv2)
            if block.conv1.stride == (1, 1):
                block.conv1 = _MiddleConv2d.like(block.conv1)

    def forward(self, x: Tensor) -> Tensor:
        for step in residual_steps(self).values():
            x = step(x)
        return x


class _MiddleConv2d(nn.Conv2d):
    """A 3x3 convolution that gives an image of one pixel to the middle of its filters alone: all the rest of them meets
    padding. So it is in layer4 of images of 28 pixels behind the original stem."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> _MiddleConv2d:
        """With the weights of ``conv``: 3x3, stride 1, padding 1, no bias."""
        assert (conv.kernel_size, conv.stride, conv.padding, conv.bias) == ((3, 3), (1, 1), (1, 1), None)
        made = cls(conv.in_channels, conv.out_channels, 3, padding=1, bias=False, device="meta")
        made.weight = conv.weight
        return made

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] != (1, 1):
            return super().forward(x)
        return functional.linear(x.flatten(1), self.weight[:, :, 1, 1])[:, :, None, None]

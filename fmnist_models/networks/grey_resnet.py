"""ResNets of basic blocks for grey images: torchvision's, loaded by whoever builds one, as that takes two seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    Where layer4 makes one pixel, its 3x3 filters have weights only where they meet an image, a sixth of them (see
    ``_OnePixelConv2d``); the state dict has torchvision's shapes all the same.
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
        if stem == "original" and input_size == SMALL:
            for block in self.layer4:
                block.conv1 = _OnePixelConv2d(block.conv1)
                block.conv2 = _OnePixelConv2d(block.conv2)
            self.avgpool[0] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for step in residual_steps(self).values():
            x = step(x)
        return x


class _OnePixelConv2d(nn.Module):
    """A 3x3 convolution that makes one pixel of an image: of one pixel, or with stride 2 of 2x2 of them.

    Only the middle of its filters, or four of their nine weights, meets the image; the others meet padding, so that no
    image shows what they are. ``weight``, ``(out, in * side * side)``, holds the former, and an optimiser passes over
    no more; in the state dict it is a convolution's, ``(out, in, 3, 3)``, the others zeros.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """With the weights of ``conv``: 3x3, padding 1, no bias."""
        assert (conv.kernel_size, conv.padding, conv.bias) == ((3, 3), (1, 1), None)
        super().__init__()
        self.side = conv.stride[0]
        self.weight = nn.Parameter(self.that_meet_the_image(conv.weight.detach()).contiguous())  # as optimisers want
        self.register_state_dict_post_hook(_save_whole)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_load_part)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in, side, side)`` to ``(B, out, 1, 1)``."""
        return functional.linear(x.flatten(1), self.weight)[:, :, None, None]

    def whole(self) -> Tensor:
        """``(out, in, 3, 3)``."""
        weight = self.weight.detach().view(len(self.weight), -1, self.side, self.side)
        after = 2 - self.side
        return functional.pad(weight, (1, after, 1, after))

    def that_meet_the_image(self, whole: Tensor) -> Tensor:
        end = 1 + self.side
        return whole[:, :, 1:end, 1:end].flatten(1)


def _save_whole(conv: _OnePixelConv2d, state: dict[str, Any], prefix: str, metadata: object) -> None:
    state[f"{prefix}weight"] = conv.whole()


def _load_part(conv: _OnePixelConv2d, state: dict[str, Any], prefix: str, *about: object) -> None:
    whole = state.get(f"{prefix}weight")
    if isinstance(whole, Tensor) and whole.shape[2:] == (3, 3):  # torch refuses what has another shape
        state[f"{prefix}weight"] = conv.that_meet_the_image(whole)

"""A first block for grey images, trained on a CPU in half the time of its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class GreyBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, 2x2 max-pooling, ReLU: ``(B, 1, H, W)`` → ``(B, C, H/2, W/2)``.

    Trained in fp32 on a CPU, whose time goes into moving the convolution's output, four times as large as that of the
    block, it is the same function in another order:

    * The output at the four places of a pooling window is a product of the 4x4 pixels around it, and only the largest
      of the four is ever stored for more than a moment.
    * Mean and variance of a linear function of pixels follow from means and products of the pixels.
    * Normalisation rises or falls with its input all along, so what is largest (or smallest) before it is so after it.

    Differences are those of rounding.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.MaxPool2d(2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        is_even = x.shape[2] % 2 == x.shape[3] % 2 == 0
        is_plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if self.training and is_even and is_plain:
            return self._train(x)
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return out

    def _train(self, x: Tensor) -> Tensor:
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert conv.bias is not None
        images, height, width = len(x), x.shape[2] // 2, x.shape[3] // 2
        pixels = functional.pad(x[:, 0], (1, 1, 1, 1)).unfold(1, 4, 2).unfold(2, 4, 2).reshape(-1, 16)
        kernel = conv.weight[:, 0]
        places = [(right, 1 - right, down, 1 - down) for down in (0, 1) for right in (0, 1)]
        weights = torch.stack([functional.pad(kernel, place).flatten(1) for place in places])  # (4, C, 16)
        mean = (weights @ pixels.mean(0)).mean(0)
        products = pixels.t() @ pixels / len(pixels)
        variance = ((weights @ products) * weights).sum(2).mean(0) - mean.square()
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        sign = torch.where(norm.weight < 0, -1.0, 1.0)
        largest = _LargestOfFour.apply(pixels, weights * sign[:, None])
        # The bias is in the mean too: its gradient is zero, but it has one.
        shift = norm.bias + (conv.bias - (mean + conv.bias)) * scale
        out = functional.relu(torch.addcmul(shift, largest, scale * sign))
        _follow(norm, mean + conv.bias, variance, count=4 * len(pixels))
        return out.view(images, height, width, -1).permute(0, 3, 1, 2)


class _LargestOfFour(torch.autograd.Function):
    """``(N, 16)`` pixels and ``(4, C, 16)`` weights → ``(N, C)``, the largest of each four products; of equal ones the
    first has the gradient."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, weights: Tensor) -> Tensor:
        products = [pixels @ part.t() for part in weights]
        largest = torch.maximum(products[0], products[1])
        for product in products[2:]:
            torch.maximum(largest, product, out=largest)
        ctx.save_for_backward(pixels, largest, *products[:3])
        return largest

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        pixels, largest, *products = ctx.saved_tensors
        found, left = [], gradient
        for product in products:
            # Where the product is the largest; a comparison and a mask take three times as long.
            taken = torch.ops.aten.threshold_backward(left, product - largest, -1e-30)
            found.append(taken.t() @ pixels)
            left = left - taken
        found.append(left.t() @ pixels)
        return None, torch.stack(found)


@torch.no_grad()
def _follow(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, *, count: int) -> None:
    """Moves the running statistics as the layer itself does."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)

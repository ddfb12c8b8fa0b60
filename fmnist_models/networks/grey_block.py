"""A first block for grey images, trained on a CPU faster than other blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from fmnist_models.networks.conv_block import ConvBlock


class GreyBlock(ConvBlock):
    """``ConvBlock`` of one channel: ``(B, 1, H, W)`` → ``(B, C, H/2, W/2)``.

    Trained on a CPU, where moving the convolution's output takes the time, four times as large as that of the block, it
    is the same function in yet another order, if images need no gradient and have even sides. Under autocast what is
    as large as the output is of the lower precision.

    * The output at the four places of a pooling window is a product of the 4x4 pixels around it, and only the largest
      of the four is ever stored for more than a moment. The normalisation is part of that product's filter.
    * Mean and variance of a linear function of pixels follow from means and products of the pixels.
    """

    _placement: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(1, channels)
        # Where the filter's nine weights lie among the 16 pixels, at each of the four places: (9, 4, 16).
        placement = [
            [
                [float(pixel == 4 * (row + down) + column + right) for pixel in range(16)]
                for down in (0, 1)
                for right in (0, 1)
            ]
            for row in range(3)
            for column in range(3)
        ]
        self.register_buffer("_placement", torch.tensor(placement), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        is_grey = not x.requires_grad and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        if self[1].training and x.device.type == "cpu" and x.dtype == torch.float32 and is_grey:
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
            with torch.autocast("cpu", enabled=False):
                return self._train_grey(x, dtype)
        return super().forward(x)

    def _train_grey(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        conv, norm = self._layers()
        pixels = functional.pad(x[:, 0], (1, 1, 1, 1)).unfold(1, 4, 2).unfold(2, 4, 2).reshape(-1, 16)
        kernels = conv.weight.view(-1, 9)
        with torch.no_grad():
            seen, seen_together = self._moments(pixels)
        mean = kernels @ seen
        variance = (kernels @ seen_together * kernels).sum(1).clamp_min(0)  # rounding can take it below
        self._follow(mean, variance, count=4 * len(pixels))
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        shift = self._shift() - mean * scale
        out: Tensor = _LargestOfFour.apply(pixels.to(dtype), scale[:, None] * kernels, shift, self._placement)
        return out.view(len(x), x.shape[2] // 2, x.shape[3] // 2, -1).permute(0, 3, 1, 2)

    def _moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(9,)`` and covariance ``(9, 9)`` of what a filter's weights are multiplied with, wherever it lies."""
        mean = (self._placement @ pixels.mean(0)).mean(1)
        products = pixels.t() @ pixels / (4 * len(pixels))
        squares = (self._placement @ products).flatten(1) @ self._placement.flatten(1).t()
        return mean, squares - torch.outer(mean, mean)


class _LargestOfFour(torch.autograd.Function):
    """``(N, 16)`` pixels, ``(C, 9)`` filters, ``(C,)`` shifts and where the filters lie, ``(9, 4, 16)`` → ``(N, C)``,
    the largest of each four products, shifted, and no less than 0; of equal ones the first has the gradient. What is
    as large as the pixels is of their precision, gradients are fp32."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, kernels: Tensor, shift: Tensor, placement: Tensor) -> Tensor:
        products = [pixels @ (kernels @ place).to(pixels.dtype).t() for place in placement.unbind(1)]
        largest = torch.maximum(products[0], products[1])
        for product in products[2:]:
            torch.maximum(largest, product, out=largest)
        out = (largest + shift.to(pixels.dtype)).relu_()
        ctx.save_for_backward(pixels, placement, out, largest, *products[:3])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        pixels, placement, out, largest, *products = ctx.saved_tensors
        left = torch.ops.aten.threshold_backward(gradient, out, 0)
        of_shift = left.sum(0, dtype=torch.float32)
        found = []
        for product in products:
            # Where the product is the largest: faster than a comparison and a mask.
            taken = torch.ops.aten.threshold_backward(left, product - largest, -1e-30)
            found.append(taken.t() @ pixels)
            left = left - taken
        found.append(left.t() @ pixels)
        return None, torch.cat(found, 1).float() @ placement.flatten(1).t(), of_shift, None

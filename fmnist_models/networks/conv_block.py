"""A convolution with what follows it, trained on a CPU faster than layer by layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, 2x2 max-pooling, ReLU: ``(B, in_channels, H, W)`` →
    ``(B, out_channels, H/2, W/2)``.

    Trained in fp32 on a CPU it is the same function in another order. Differences are those of rounding:

    * Normalisation is monotonic per channel, so what is largest (or smallest) before it is so after it: pooling comes
      first, and only what it leaves is normalised. A channel with a weight of exactly 0 makes all pixels equal, and the
      pooling's gradient then goes to the first pixel of each window: such a block trains layer by layer.
    * The convolution's bias, which normalisation takes away again, goes into the running mean alone. Its gradient is 0.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.MaxPool2d(2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        is_plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if self[1].training and is_plain and self._has_slopes():
            return self._train(x)
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return out

    def _train(self, x: Tensor) -> Tensor:
        conv, norm = self._layers()
        sign = torch.where(norm.weight < 0, -1.0, 1.0)
        products = functional.conv2d(x, sign.view(-1, 1, 1, 1) * conv.weight, padding=1)
        with torch.no_grad():
            mean, variance = torch.batch_norm_update_stats(products, None, None, 0.0)
        self._follow(mean * sign, variance, count=products.numel() // len(mean))
        out: Tensor = _NormalisedLargest.apply(products, norm.weight * sign, self._shift(), mean, variance + norm.eps)
        return out

    def _has_slopes(self) -> bool:
        return bool(self._layers()[1].weight.all())

    def _layers(self) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
        conv, norm = self[0], self[1]
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        return conv, norm

    def _shift(self) -> Tensor:
        """The normalisation's, with a gradient, 0, for the convolution's bias too."""
        conv, norm = self._layers()
        assert conv.bias is not None
        return norm.bias + 0 * conv.bias

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, *, count: int) -> None:
        """Moves the running statistics as the layers do, by those of ``count`` products without the bias."""
        conv, norm = self._layers()
        assert conv.bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        assert norm.momentum is not None
        norm.running_mean.lerp_(mean + conv.bias, norm.momentum)
        norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
        norm.num_batches_tracked.add_(1)


class _NormalisedLargest(torch.autograd.Function):
    """``(B, C, H, W)`` → ``(B, C, H/2, W/2)``: the largest of each 2x2 window, normalised by ``mean`` and ``variance``,
    scaled by ``weight``, none of which is below 0, and shifted; ReLU. Mean and variance are those of ``x``, and its
    gradient accounts for that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        largest, places = functional.max_pool2d(x, 2, return_indices=True)
        inverse = torch.rsqrt(variance)
        scale = weight * inverse
        out = torch.addcmul(shift - mean * scale, _rows(largest), scale).relu_()
        ctx.save_for_backward(x, places, _rows(largest), out, mean, inverse, scale)
        return _images(out, like=largest)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, places, largest, out, mean, inverse, scale = ctx.saved_tensors
        rows = torch.ops.aten.threshold_backward(_rows(gradient), out, 0)
        of_shift = rows.sum(0)
        of_weight = ((rows * largest).sum(0) - of_shift * mean) * inverse
        # What a product has as one of the largest, and what, through mean and variance, as one of all.
        found = torch.ops.aten.max_pool2d_with_indices_backward(
            _images(rows * scale, like=gradient), x, [2, 2], [2, 2], [0, 0], [1, 1], False, places
        )
        count = x.numel() // len(mean)
        slope = -scale * inverse * of_weight / count
        found.permute(0, 2, 3, 1).addcmul_(x.permute(0, 2, 3, 1), slope).sub_(scale * of_shift / count + slope * mean)
        return found, of_weight, of_shift, None, None


def _rows(images: Tensor) -> Tensor:
    """``(B, C, H, W)`` → ``(B * H * W, C)``, of channels_last without a copy."""
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _images(rows: Tensor, *, like: Tensor) -> Tensor:
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)

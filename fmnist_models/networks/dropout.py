"""Dropout (Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16
_LEAST = -(2**63)


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` whose mask takes 16 random bits an activation, which a CPU draws faster than the
    Bernoulli numbers that torch takes: the share that is kept is the nearest of 65,536, and the numbers are others
    than torch's. ``p`` is below 1."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        kept = min(max(round((1 - self.p) * _LEVELS), 1), _LEVELS - 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(_LEAST, None)
        bits = words.view(torch.int16)[: x.numel()]
        mask = torch.empty_like(x)
        in_memory_order = mask.as_strided((x.numel(),), (1,))
        torch.lt(bits, kept - _LEVELS // 2, out=in_memory_order).mul_(1 / (1 - self.p))
        return x * mask

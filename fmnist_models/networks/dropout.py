"""Dropout (Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", JMLR 15, 2014)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` with a mask of uniform numbers, which torch draws on a CPU three times faster than the
    Bernoulli numbers it takes itself. The distribution is the same, the numbers are others."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        keep = 1 - self.p
        return x * (torch.rand_like(x) < keep).to(x.dtype).div_(keep)

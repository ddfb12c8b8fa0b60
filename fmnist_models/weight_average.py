"""The moving average of a network's weights over the steps of its training."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """An exponential moving average of a network in training: ``network``, a network like it, is to be judged and kept.

    Averaged iterates: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; of neural
    networks: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018. Each step
    keeps ``decay`` of the average, but the step after ``t`` others at most ``(1 + t) / (10 + t)`` (as TensorFlow's
    ``ExponentialMovingAverage`` does), so that it is soon one of trained weights, however short the training.

    BatchNorm's statistics are averaged as weights are: the newest ones are those of other weights. What does not train
    is shared with the network in training, and takes no time, memory or room in a checkpoint.
    """

    def __init__(self, trained: nn.Module, *, decay: float) -> None:
        frozen: dict[int, Any] = {id(each): each for each in trained.parameters() if not each.requires_grad}
        self.network: nn.Module = copy.deepcopy(trained, frozen)
        self._decay = decay
        self._num_steps = 0
        pairs = [
            *zip(self.network.parameters(), trained.parameters(), strict=True),
            *zip(self.network.buffers(), trained.buffers(), strict=True),
        ]
        moving = [pair for pair in pairs if pair[0] is not pair[1] and pair[0].is_floating_point()]
        self._averaged, self._newest = [average for average, _ in moving], [newest for _, newest in moving]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self) -> None:
        """Takes in what a step of the optimiser has just made of the network in training."""
        decay = min(self._decay, (1 + self._num_steps) / (10 + self._num_steps))
        get_ema_multi_avg_fn(decay)(self._averaged, self._newest, None)  # type: ignore[no-untyped-call]
        for average, newest in self._counters:
            average.copy_(newest)
        self._num_steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue."""
        return {"num_steps": self._num_steps, "network": self.network.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where ``state`` was saved."""
        self.network.load_state_dict(state["network"])
        self._num_steps = int(state["num_steps"])

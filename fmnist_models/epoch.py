"""One epoch's result, and the metrics that a search can go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Direction = Literal["maximize", "minimize"]

DIRECTIONS: Mapping[str, Direction] = MappingProxyType({"val_accuracy": "maximize", "val_loss": "minimize"})
"""The metrics that a search can go by, each with its direction."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch of training gave.

    ``epoch`` counts from 1. Losses are mean cross-entropies per image in nats (training: with label smoothing and in
    training mode), accuracies lie in 0…1; validation judges ``Training.predictor``. ``epoch_s`` is wall time including
    validation; ``lr`` the learning rate at the epoch's start.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    epoch_s: float

    def metric(self, name: str) -> float:
        """The value of a metric of ``DIRECTIONS``."""
        return {"val_accuracy": self.val_accuracy, "val_loss": self.val_loss}[name]


def is_better(value: float, than: float | None, *, metric: str) -> bool:
    """Whether ``value`` is strictly better in the metric's direction; anything is better than ``None``."""
    if than is None:
        return True
    return value > than if DIRECTIONS[metric] == "maximize" else value < than

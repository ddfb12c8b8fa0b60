"""The configurations of CustomNet that every contestant trains: drawn once from a seed."""

from __future__ import annotations

import math
import random

SPACE = {
    "lr": {"float": [3e-4, 1e-2], "log": True},
    "weight_decay": {"float": [1e-3, 1e-1], "log": True},
    "dropout": {"float": [0.0, 0.6]},
}
BATCH_SIZE = 64
VALIDATION_FRACTION = 0.1


def draw(count: int, *, seed: int) -> list[dict[str, float]]:
    """A random sample of ``SPACE``, hyperparameter → value."""
    rng = random.Random(seed)
    return [{name: _draw(rng, **dimension) for name, dimension in SPACE.items()} for _ in range(count)]


def _draw(rng: random.Random, *, float: list[float], log: bool = False) -> float:
    low, high = float
    value = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
    return min(max(round(value, 6), low), high)

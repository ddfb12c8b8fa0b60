"""A trial's curve as it is recorded, and as it came out again. Neither Ray nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReplayedEpoch:
    """What one epoch gave, name → value: as ``recorded``, and when it was trained ``again``."""

    epoch: int
    recorded: Mapping[str, float]
    again: Mapping[str, float]

    @property
    def is_same(self) -> bool:
        """Whether all that is recorded is the same again, bit for bit."""
        return all(self.again.get(name) == value for name, value in self.recorded.items())


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A trial's curve beside the one that it got when it was trained again; ``failure``: why that came to no end."""

    trial: int
    metric: str
    epochs: tuple[ReplayedEpoch, ...]
    failure: str | None

    @property
    def is_same(self) -> bool:
        """Whether every value is the same, bit for bit."""
        return all(epoch.is_same for epoch in self.epochs)

    @property
    def verdict(self) -> str:
        """One line that says so."""
        if self.is_same:
            return f"the same curve: {len(self.epochs)} epochs, bit for bit"
        first = next(epoch for epoch in self.epochs if not epoch.is_same)
        if self.failure is not None and not first.again:
            return f"no curve to compare from epoch {first.epoch} on: {self.failure}"
        return f"another curve: they part at epoch {first.epoch}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "is_same": self.is_same}

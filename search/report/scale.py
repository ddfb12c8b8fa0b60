"""The axis of one hyperparameter: where its values lie, and how they are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

from search.report.wording import label

_MAX_OPTIONS = 12


@dataclass(frozen=True)
class Scale:
    """Numbers lie on a line, logarithmic if they were drawn so; anything else is one of ``options``, in order."""

    name: str
    options: tuple[str, ...] | None
    is_log: bool

    def place(self, value: Any) -> float | None:
        """Where the value lies: itself, or the position of its option; ``None`` for options left out."""
        if self.options is None:
            return float(value)
        return float(self.options.index(label(value))) if label(value) in self.options else None

    def share(self, value: Any, *, low: float, high: float) -> float | None:
        """Where the value lies between two places, 0…1."""
        place = self.place(value)
        if place is None or low == high:
            return None if place is None else 0.5
        if self.is_log:
            place, low, high = math.log(place), math.log(low), math.log(high)
        return (place / 2 - low / 2) / (high / 2 - low / 2)  # halves: the largest floats' difference is infinite

    def ticks(self, values: Sequence[float]) -> list[float]:
        """Marks for a logarithmic axis: powers of ten or, where those are few, 2 and 5 times them too."""
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        powers = range(max(low, -300), min(high, 300) + 1, max(1, (high - low) // 6))
        steps = (1, 2, 5) if high - low <= 2 else (1,)
        marks = [float(f"{step}e{power}") for power in powers for step in steps]
        return [mark for mark in marks if 0.8 * min(values) <= mark <= 1.25 * max(values)]


def scale_of(name: str, trials: Sequence[FrozenTrial]) -> Scale:
    """The axis for a parameter of these trials, of which some have it."""
    having = [trial for trial in trials if name in trial.params]
    values = [trial.params[name] for trial in having]
    if any(isinstance(value, (str, bool)) for value in values):
        options = dict.fromkeys(label(value) for value in sorted(values, key=str))
        return Scale(name, tuple(options)[:_MAX_OPTIONS], False)
    kinds = (trial.distributions.get(name) for trial in having)
    is_log = any(isinstance(kind, (FloatDistribution, IntDistribution)) and kind.log for kind in kinds)
    return Scale(name, None, is_log and min(values) > 0)

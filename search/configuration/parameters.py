"""A hyperparameter's value as the parameters by which a study records it: the way back from ``Dimension.suggest``."""

from __future__ import annotations

import math
import reprlib
from typing import Any

from fmnist_models.networks import NETWORKS
from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange, Subset
from search.records.numbers import is_close

_ALWAYS_TRAINED = frozenset(network.stage_names[-1] for network in NETWORKS.values() if network.stage_names)
_STEP_TOLERANCE = 1e-8  # Optuna's


def to_parameters(dimension: Dimension, name: str, value: Any) -> dict[str, Any]:
    """The parameters, by name, with which ``dimension`` draws ``value``; none where it is fixed.

    A list of stages may name the classifier or not, as it always trains.

    Raises:
        ValueError: the dimension does not hold the value; says what would be valid.
    """
    match dimension:
        case Fixed(fixed):
            if is_same(fixed, value):
                return {}
        case Subset(items):
            stages = _stages(value)
            if stages is not None and stages <= set(items):
                return {f"{name}.{item}": item in stages for item in items}
        case Choice(options):
            for option in options:
                if is_same(option, value):
                    return {name: option}
        case FloatRange() | IntRange():
            number = _number(value)
            inside = None if number is None else _inside(dimension, number)
            if inside is not None:
                return {name: inside}
    raise ValueError(f"{name}: {reprlib.repr(value)} is not valid; valid: {dimension}")


def is_same(one: Any, other: Any) -> bool:
    """Whether two values mean the same to a training: 6 * 0.1 and 0.6 do, 1 and 1.0 do, 1 and ``True`` do not."""
    first, second = _number(one), _number(other)
    if first is not None and second is not None:
        return is_close(first, second)
    if isinstance(one, (list, tuple)):
        return _stages(one) == _stages(other)
    return type(one) is type(other) and bool(one == other)


def _inside(dimension: FloatRange | IntRange, number: float) -> float | int | None:
    """The number as one of the range, rounded onto a bound that it misses by rounding; ``None`` if it is outside."""
    inside = min(max(number, dimension.low), dimension.high)
    num_steps = 0.0 if dimension.step is None else (inside - dimension.low) / dimension.step
    if not is_same(inside, number) or abs(num_steps - round(num_steps)) >= _STEP_TOLERANCE:
        return None
    return dimension.as_written(float(inside)) if isinstance(dimension, FloatRange) else round(inside)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return None if math.isnan(value) else float(value)
    except OverflowError:  # a whole number larger than any that a range holds
        return None


def _stages(value: Any) -> frozenset[str] | None:
    """The stages of a list, each there once, less the one that always trains; ``None`` for anything else."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(stage, str) for stage in value):
        return None
    return frozenset(value) - _ALWAYS_TRAINED if len(set(value)) == len(value) else None

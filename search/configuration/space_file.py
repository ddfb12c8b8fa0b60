"""A space as a person writes it in YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fmnist_models.networks import NETWORKS
from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange, Subset
from search.configuration.space import MODEL, Space
from search.errors import ConfigError

_KINDS = (
    "a fixed value, {float: [low, high], log: true | step: s}, {int: [low, high]}, {choice: [...]} or {subset: [...]}"
)


def parse_space(raw: Mapping[str, Any]) -> Space:
    """A space from the mapping of a YAML file.

    Raises:
        ConfigError: says which key, which value and what would be valid.
    """
    if not raw:
        raise ConfigError(f"space is empty; name at least `{MODEL}`, one of {', '.join(NETWORKS)}")
    dimensions: dict[str, Dimension] = {}
    for name, value in raw.items():
        try:
            dimensions[str(name)] = _parse_dimension(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"space.{name}: {error}; got {value!r}, valid: {_KINDS}") from error
    return Space(dimensions)


def dump_space(space: Space) -> dict[str, Any]:
    """The mapping that ``parse_space`` reads as this space."""
    return {name: _dump_dimension(dimension) for name, dimension in space.dimensions.items()}


def _parse_dimension(raw: Any) -> Dimension:
    if isinstance(raw, list):
        if not all(isinstance(item, str) for item in raw):
            raise ValueError("a fixed list holds stage names")
        return Fixed(tuple(raw))
    if not isinstance(raw, dict):
        if raw is None:
            raise ValueError("a value is missing")
        if not isinstance(raw, (bool, int, float, str)):
            raise ValueError("a fixed value is a number, a word or true/false")
        return Fixed(raw)
    options = dict(raw)
    kind = next((kind for kind in ("float", "int", "choice", "subset") if kind in options), None)
    if kind is None:
        raise ValueError("unknown kind")
    body = options.pop(kind)
    unknown = sorted(set(options) - ({"log", "step"} if kind in ("float", "int") else set()))
    if unknown:
        raise ValueError(f"{kind} has no option {unknown[0]!r}")
    if not isinstance(body, list):
        raise ValueError(f"{kind} needs a list")
    if kind == "choice":
        if not all(isinstance(option, (bool, int, float, str)) for option in body):
            raise ValueError("options are single numbers, words or true/false")
        return Choice(tuple(body))
    if kind == "subset":
        if not all(isinstance(item, str) for item in body):
            raise ValueError("items are names")
        return Subset(tuple(body))
    if len(body) != 2 or not isinstance(options.get("log", False), bool):
        raise ValueError(f"{kind} needs [low, high] and log true or false")
    if kind == "float":
        step = options.get("step")
        return FloatRange(
            _number(body[0]), _number(body[1]), options.get("log", False), None if step is None else _number(step)
        )
    return IntRange(_whole(body[0]), _whole(body[1]), options.get("log", False), _whole(options.get("step", 1)))


def _dump_dimension(dimension: Dimension) -> Any:
    match dimension:
        case FloatRange(low, high, log, step):
            return {"float": [low, high], **({"log": True} if log else {}), **({"step": step} if step else {})}
        case IntRange(low, high, log, step):
            return {"int": [low, high], **({"log": True} if log else {}), **({"step": step} if step != 1 else {})}
        case Choice(options):
            return {"choice": list(options)}
        case Subset(items):
            return {"subset": list(items)}
        case Fixed(value):
            return list(value) if isinstance(value, tuple) else value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value

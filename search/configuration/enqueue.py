"""Chosen configurations that a search tries first, as a person writes them in YAML."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmnist_models.hyperparameters import Condition, conditions, defaults
from fmnist_models.networks import NETWORKS, Network
from fmnist_models.paths import expand_home
from fmnist_models.recipe import Recipe
from search.configuration.dimensions import Fixed
from search.configuration.parameters import to_parameters
from search.configuration.space import MODEL, Space
from search.errors import ConfigError
from search.yaml_file import read_yaml

_WEIGHTS = "weights"


def read_queue(path: Path, space: Space) -> tuple[dict[str, Any], ...]:
    """The configurations of a file, each as the parameters by which a study records it.

    The file holds a list of mappings, hyperparameter → value. What one leaves out is drawn when its turn comes; what
    the space fixes is not a parameter.

    Raises:
        ConfigError: no such file, no list, an empty one, or a value that the space does not hold or that nothing
            would use; says which configuration, which key and what would be valid.
    """
    raw = read_yaml(path)
    if not isinstance(raw, list) or not raw:
        raise ConfigError(
            f"{path} must hold a list of configurations, each a mapping of hyperparameters to values, "
            f"but holds {reprlib.repr(raw)}"
        )
    return tuple(_parse(item, space, where=f"{path}: configuration {n}") for n, item in enumerate(raw, start=1))


def _parse(raw: Any, space: Space, *, where: str) -> dict[str, Any]:
    if not isinstance(raw, Mapping) or not raw:
        raise ConfigError(f"{where} must map hyperparameters to values, but is {reprlib.repr(raw)}")
    unknown = [name for name in raw if name not in space.dimensions]
    if unknown:
        known = ", ".join(space.dimensions)
        raise ConfigError(f"{where}: {reprlib.repr(unknown[0])} is not in the search's space; valid: {known}")
    params: dict[str, Any] = {}
    try:
        for name, value in raw.items():
            params |= to_parameters(space.dimensions[name], name, _located(name, value, space))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    networks = [NETWORKS[raw[MODEL]]] if MODEL in raw else space.networks
    problems = [_find_unused(raw, space, network) for network in networks]
    if all(problems):
        raise ConfigError("\n".join(f"{where}: {problem}" for problem in dict.fromkeys(problems)))
    return params


def _located(name: str, value: Any, space: Space) -> Any:
    """The path of a weights file as the space has it, which may be a full one by now."""
    if name != _WEIGHTS or not isinstance(value, str):
        return value
    full = str(expand_home(value).absolute())
    return full if full in space.dimensions[name].values() else value


def _find_unused(raw: Mapping[str, Any], space: Space, network: Network) -> str | None:
    """What is wrong with the first hyperparameter that a trial of this network would certainly not use, if any."""
    used = {MODEL}
    for kind in (network.hyperparameters, Recipe):
        used |= {name for name in defaults(kind) if space.decides(name, kind)}
        for name, condition in conditions(kind).items():
            if name in raw and not _can_hold(condition, raw, space, default=defaults(kind)):
                return f"{name}: it would be ignored, as it matters only where {condition}"
    unused = [name for name in raw if name not in used]
    valid = ", ".join(name for name in space.dimensions if name in used)
    return f"{unused[0]}: {network.title} would ignore it; valid: {valid}" if unused else None


def _can_hold(condition: Condition, raw: Mapping[str, Any], space: Space, *, default: Mapping[str, Any]) -> bool:
    for part in condition.parts():
        name = part.other
        values = (raw[name],) if name in raw else space.dimensions.get(name, Fixed(default[name])).values()
        if not any(part.holds({name: value}) for value in values):
            return False
    return True

"""Which trials a hyperparameter is asked for, as the space's own conditions say. Neither Ray nor torch.

The tables repeat what ``fmnist_models`` declares beside its networks, which would import torch; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fmnist_models.hyperparameters import Condition

_MODEL = "model"
_RESNETS = ("resnet18", "resnet34")
_LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")

OWNERS: Mapping[str, tuple[str, ...]] = {
    "dropout": ("customnet", *_RESNETS, "lenet5", "alexnet11", "lstm"),
    "input_size": (*_RESNETS, "alexnet11"),
    "stem": _RESNETS,
    "weights": ("resnet18",),
    "stem_init": ("resnet18",),
    "unfreeze": (*_RESNETS, "lenet5", "alexnet11", "lstm"),
}
"""Hyperparameter → the networks that have it; every network has the others."""
STAGES: Mapping[str, tuple[str, ...]] = {
    "resnet18": _LAYERS,
    "resnet34": _LAYERS,
    "lenet5": ("c1", "c3", "c5", "f6", "fc"),
    "alexnet11": ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc"),
    "lstm": ("lstm", "fc"),
}
"""Network → its stages, of which ``unfreeze`` is a subset."""
CONDITIONS: Mapping[str, Condition] = {
    "momentum": Condition("optimizer", "sgd"),
    "stem": Condition("input_size", 28),
    "stem_init": Condition("weights", "none", equals=False, also=Condition("stem", "original")),
}
"""Hyperparameter → the condition under which it matters."""


def asked_if(parameter: str, space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Hyperparameter → the values that a trial has of it if ``parameter`` is asked for; empty if it always is.

    ``parameter``: a parameter of the study, such as ``lr`` or ``unfreeze.layer4``. ``space``: as in a configuration.
    """
    name = parameter.partition(".")[0]
    found: dict[str, list[Any]] = {}
    networks = _values(space.get(_MODEL))
    owners = [network for network in networks if _has(network, name, space.get(name))]
    if owners and len(owners) < len(networks):
        found[_MODEL] = owners
    for part in CONDITIONS[name].parts() if name in CONDITIONS else ():
        values = _values(space.get(part.other))
        allowed = [value for value in values if part.holds({part.other: value})]
        if allowed and len(allowed) < len(values):
            found[part.other] = allowed
    return found


def describe_asked(parameters: Sequence[str], space: Mapping[str, Any]) -> str:
    """Under which conditions these parameters are asked for: ``momentum only with optimizer=sgd``; empty if no
    condition is known."""
    by_condition: dict[str, list[str]] = {}
    for parameter in parameters:
        condition = describe_condition(parameter, space)
        if condition:
            by_condition.setdefault(condition, []).append(parameter)
    return "; ".join(f"{', '.join(names)} only with {condition}" for condition, names in by_condition.items())


def describe_condition(parameter: str, space: Mapping[str, Any]) -> str:
    """``optimizer=sgd``, ``model=resnet18|resnet34 and input_size=28``; empty if it is always asked for."""
    conditions = asked_if(parameter, space).items()
    return " and ".join(f"{name}={'|'.join(map(str, values))}" for name, values in conditions)


def _has(network: object, name: str, wanted: object) -> bool:
    """Whether the space decides this hyperparameter of the network: of stages, only if it has all of those named."""
    if network not in OWNERS.get(name, (network,)):
        return False
    return name != "unfreeze" or {str(stage) for stage in _values(wanted)} <= set(STAGES[str(network)])


def _values(dimension: object) -> list[Any]:
    """The values that a configuration's dimension is made of."""
    if isinstance(dimension, Mapping):
        dimension = dimension.get("choice", dimension.get("subset"))
    if isinstance(dimension, list):
        return dimension
    return [] if dimension is None else [dimension]

"""The space of a search: which hyperparameters its networks have, and how a trial draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fmnist_models.freezing import trained_stages
from fmnist_models.hyperparameters import (
    Condition,
    Hyperparameters,
    Interval,
    Options,
    StageSubset,
    conditions,
    defaults,
    domains,
)
from fmnist_models.networks import NETWORKS, Network
from fmnist_models.recipe import Recipe
from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange, Subset
from search.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MODEL = "model"


@dataclass(frozen=True)
class Space:
    """Name → dimension; conditional: a hyperparameter exists for a trial only where its network has it and its
    condition holds.

    Raises:
        ConfigError: no such network or hyperparameter, a value outside its domain, or one that nothing would use.
    """

    dimensions: Mapping[str, Dimension]

    def __post_init__(self) -> None:
        if MODEL not in self.dimensions:
            raise ConfigError(f"space.{MODEL} is missing; valid: {', '.join(NETWORKS)}, or a choice of them")
        for name in self.dimensions[MODEL].values():
            if name not in NETWORKS:
                raise ConfigError(f"space.{MODEL}: there is no network {name!r}; valid: {', '.join(NETWORKS)}")
        for name, dimension in self.dimensions.items():
            if name != MODEL:
                self._check(name, dimension)

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks that the space ranges over."""
        return tuple(NETWORKS[str(name)] for name in self.dimensions[MODEL].values())

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """Draws one set of hyperparameters: ``model`` and all that this network and its recipe have.

        What the space does not name has its default. The same trial gives the same set again, so a finished trial's
        hyperparameters are read back with this too.
        """
        network = NETWORKS[str(self.dimensions[MODEL].suggest(trial, MODEL))]
        values: dict[str, Any] = {MODEL: network.name}
        for kind in (network.hyperparameters, Recipe):
            when = conditions(kind)
            for name, default in defaults(kind).items():
                if self.decides(name, kind) and (name not in when or when[name].holds(values)):
                    values[name] = self.dimensions[name].suggest(trial, name)
                else:
                    values[name] = default
        if "unfreeze" in values:
            values["unfreeze"] = trained_stages(network, values["unfreeze"])
        return values

    def as_written(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A trial's parameters with each number as a person writes it, see ``FloatRange.as_written``."""
        ranges = {name: d for name, d in self.dimensions.items() if isinstance(d, FloatRange)}
        return {name: ranges[name].as_written(value) if name in ranges else value for name, value in params.items()}

    def decides(self, name: str, kind: type[Hyperparameters]) -> bool:
        """Whether the space, rather than the default, decides this hyperparameter of ``kind``.

        Stages are decided for the networks that have all of those named; any other network of the search has its
        default, as it has where it knows no stages at all.
        """
        domain, dimension = domains(kind)[name], self.dimensions.get(name)
        if dimension is None or not isinstance(domain, StageSubset):
            return dimension is not None
        return all(domain.contains(value) for value in dimension.values())

    def _check(self, name: str, dimension: Dimension) -> None:
        owners = [n for n in self.networks if name in domains(n.hyperparameters)]
        owners = [n for n in owners if self.decides(name, n.hyperparameters)] or owners
        kinds = [n.hyperparameters for n in owners] or ([Recipe] if name in domains(Recipe) else [])
        if not kinds:
            known = sorted(
                {n for network in self.networks for n in domains(network.hyperparameters)} | set(domains(Recipe))
            )
            titles = " and ".join(n.title for n in self.networks)
            raise ConfigError(f"space.{name}: {titles} would ignore it; valid: {', '.join([MODEL, *known])}")
        for kind in kinds:
            domain = domains(kind)[name]
            _check_domain(name, dimension, domain)
            condition = conditions(kind).get(name)
            if condition is not None and not self._can_hold(condition, defaults(kind)):
                raise ConfigError(f"space.{name}: it would be ignored, as it matters only where {condition}")

    def _can_hold(self, condition: Condition, default: Mapping[str, Any]) -> bool:
        for part in condition.parts():
            dimension = self.dimensions.get(part.other, Fixed(default[part.other]))
            if not any(part.holds({part.other: value}) for value in dimension.values()):
                return False
        return True


def _check_domain(name: str, dimension: Dimension, domain: Interval | Options | StageSubset) -> None:
    fits = {
        FloatRange: isinstance(domain, Interval) and not domain.integer,
        IntRange: isinstance(domain, Interval),
        Subset: isinstance(domain, StageSubset),
        Choice: not isinstance(domain, StageSubset),
    }
    if not fits.get(type(dimension), True):
        raise ConfigError(f"space.{name}: {dimension} is not valid; valid: values that are {domain}")
    if isinstance(dimension, Subset) and isinstance(domain, StageSubset) and domain.stages[-1] in dimension.items:
        raise ConfigError(
            f"space.{name}: drawing {domain.stages[-1]} would change nothing, as it always trains; "
            f"valid: a subset of {', '.join(domain.stages[:-1])}"
        )
    for value in dimension.values():
        if not domain.contains(value):
            shown = list(value) if isinstance(value, tuple) else value
            raise ConfigError(f"space.{name}: {shown!r} is not valid; valid: {domain}")

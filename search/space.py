"""The space of a search: what each hyperparameter may be, which of them a network has, and how a trial draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeAlias

from fmnist_models.freezing import trained_stages
from fmnist_models.hyperparameters import Condition, Interval, Options, StageSubset, conditions, defaults, domains
from fmnist_models.networks import NETWORKS, Network
from fmnist_models.recipe import Recipe
from search.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MODEL = "model"


@dataclass(frozen=True)
class FloatRange:
    """Numbers from ``low`` to ``high``, both inclusive; ``log``: evenly over orders of magnitude; or in ``step``s."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"finite low <= high must hold, but got low={self.low:g}, high={self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs low > 0 and no step, but got low={self.low:g}, step={self.step}")
        if self.step is not None:
            if not 0 < self.step < math.inf:
                raise ValueError(f"finite step > 0 must hold, but got step={self.step:g}")
            if not _is_whole_steps(self.high, self.low, self.step):
                raise ValueError(
                    f"a whole number of steps must lead from low to high, but got "
                    f"low={self.low:g}, high={self.high:g}, step={self.step:g}"
                )

    def suggest(self, trial: BaseTrial, name: str) -> float:
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def values(self) -> tuple[float, ...]:
        """The values by which the whole range can be judged: its bounds."""
        return (self.low, self.high)

    def __str__(self) -> str:
        how = ", log" if self.log else "" if self.step is None else f", step {self.step:g}"
        return f"{self.low:g} … {self.high:g}{how}"


@dataclass(frozen=True)
class IntRange:
    """Whole numbers from ``low`` to ``high``, both inclusive; ``log``, or in ``step``s."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got low={self.low}, high={self.high}")
        if self.log and (self.low < 1 or self.step != 1):
            raise ValueError(f"log needs low >= 1 and no step, but got low={self.low}, step={self.step}")
        if self.step < 1 or (self.high - self.low) % self.step:
            raise ValueError(
                f"a whole number of steps must lead from low to high, but got "
                f"low={self.low}, high={self.high}, step={self.step}"
            )

    def suggest(self, trial: BaseTrial, name: str) -> int:
        return trial.suggest_int(name, self.low, self.high, log=self.log, step=self.step)

    def values(self) -> tuple[int, ...]:
        """The values by which the whole range can be judged: its bounds."""
        return (self.low, self.high)

    def __str__(self) -> str:
        how = ", log" if self.log else "" if self.step == 1 else f", step {self.step}"
        return f"{self.low} … {self.high}{how}"


@dataclass(frozen=True)
class Choice:
    """One of ``options``, in no order."""

    options: tuple[bool | int | float | str, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("a choice needs at least one option, but got []")
        if len({(isinstance(option, bool), option) for option in self.options}) < len(self.options):
            raise ValueError(f"each option may be named once, but got {list(self.options)}")

    def suggest(self, trial: BaseTrial, name: str) -> bool | int | float | str:
        chosen = trial.suggest_categorical(name, self.options)
        assert chosen is not None
        return chosen

    def values(self) -> tuple[bool | int | float | str, ...]:
        """Every value that can come out."""
        return self.options

    def __str__(self) -> str:
        return " | ".join(str(option) for option in self.options)


@dataclass(frozen=True)
class Subset:
    """Each of ``items`` in or out, drawn one by one, so that the importance of each can be told apart."""

    items: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("a subset needs at least one item, but got []")
        if len(set(self.items)) < len(self.items):
            raise ValueError(f"each item may be named once, but got {list(self.items)}")

    def suggest(self, trial: BaseTrial, name: str) -> tuple[str, ...]:
        return tuple(item for item in self.items if trial.suggest_categorical(f"{name}.{item}", (False, True)))

    def values(self) -> tuple[tuple[str, ...], ...]:
        """The value by which all can be judged: the largest."""
        return (self.items,)

    def __str__(self) -> str:
        return "each in or out: " + ", ".join(self.items)


@dataclass(frozen=True)
class Fixed:
    """Always ``value``; not a parameter of the study."""

    value: Any

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return self.value

    def values(self) -> tuple[Any, ...]:
        """The one value."""
        return (self.value,)

    def __str__(self) -> str:
        return ", ".join(self.value) if isinstance(self.value, tuple) else str(self.value)


Dimension: TypeAlias = FloatRange | IntRange | Choice | Subset | Fixed

_KINDS = (
    "a fixed value, {float: [low, high], log: true | step: s}, {int: [low, high]}, {choice: [...]} or {subset: [...]}"
)


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
                if name in self.dimensions and (name not in when or when[name].holds(values)):
                    values[name] = self.dimensions[name].suggest(trial, name)
                else:
                    values[name] = default
        if "unfreeze" in values:
            values["unfreeze"] = trained_stages(network, values["unfreeze"])
        return values

    def _check(self, name: str, dimension: Dimension) -> None:
        owners = [n for n in self.networks if name in domains(n.hyperparameters)]
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
        dimension = self.dimensions.get(condition.other, Fixed(default[condition.other]))
        return any(condition.holds({condition.other: value}) for value in dimension.values())


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


def _is_whole_steps(high: float, low: float, step: float) -> bool:
    """Whether whole steps lead from low to high, reckoned in decimals as Optuna does."""
    try:
        return (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)) == 0
    except InvalidOperation:  # more steps than decimals have digits
        return False


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r} is not a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value


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

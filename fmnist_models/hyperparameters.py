"""Hyperparameters as dataclass fields: each field carries its domain, so one line declares and validates it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Value: TypeAlias = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both inclusive; whole numbers only where ``integer``."""

    low: float
    high: float
    integer: bool = False

    def contains(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.integer else (int, float)):
            return False
        return self.low <= value <= self.high

    def __str__(self) -> str:
        kind = "a whole number" if self.integer else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Options:
    """One of a few values. With ``open_ended``, any other non-empty string too (a path, say); ``note`` says which."""

    values: tuple[bool | int | str, ...]
    open_ended: bool = False
    note: str = ""

    def contains(self, value: object) -> bool:
        # 1 == True in Python, yet `flip: 1` is a mistake worth naming.
        if any(value == option and type(value) is type(option) for option in self.values):
            return True
        return self.open_ended and isinstance(value, str) and bool(value)

    def __str__(self) -> str:
        return "one of " + ", ".join(str(value).lower() for value in self.values) + self.note


@dataclass(frozen=True)
class StageSubset:
    """Any subset of the named stages, in the network's order."""

    stages: tuple[str, ...]

    def contains(self, value: object) -> bool:
        if not isinstance(value, (tuple, list)) or not all(isinstance(stage, str) for stage in value):
            return False
        return len(set(value)) == len(value) and set(value) <= set(self.stages)

    def __str__(self) -> str:
        return "a list of some of " + ", ".join(self.stages)


Domain: TypeAlias = Interval | Options | StageSubset


@dataclass(frozen=True)
class Condition:
    """The hyperparameter matters only while ``other`` has (``equals``) or has not (``not equals``) this value, and
    only while ``also`` holds, if given."""

    other: str
    value: Value
    equals: bool = True
    also: Condition | None = None

    def holds(self, values: Mapping[str, Any]) -> bool:
        return all(bool(values[part.other] == part.value) == part.equals for part in self.parts())

    def parts(self) -> tuple[Condition, ...]:
        """The conditions on one hyperparameter each that hold together where this one does."""
        return (dataclasses.replace(self, also=None), *(self.also.parts() if self.also else ()))

    def __str__(self) -> str:
        return " and ".join(f"{p.other} {'is' if p.equals else 'is not'} {p.value}" for p in self.parts())


def hyperparameter(default: Any, domain: Domain, *, when: Condition | None = None) -> Any:
    """A dataclass field with a default, a domain and, if it matters only sometimes, the condition."""
    return dataclasses.field(default=default, metadata={"domain": domain, "when": when})


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Base of every set of hyperparameters: checks each value against its field's domain.

    Raises:
        ValueError: a value lies outside its domain; names the hyperparameter, the value and what would be valid.
    """

    def __post_init__(self) -> None:
        for name, domain in domains(type(self)).items():
            value = getattr(self, name)
            if not domain.contains(value):
                raise ValueError(f"{name} must be {domain}, but got {value!r}")


def domains(kind: type[Hyperparameters]) -> dict[str, Domain]:
    """Name → domain, in the order in which a search asks for them."""
    return {field.name: field.metadata["domain"] for field in dataclasses.fields(kind)}


def conditions(kind: type[Hyperparameters]) -> dict[str, Condition]:
    """Name → condition, for the hyperparameters that matter only sometimes."""
    return {f.name: f.metadata["when"] for f in dataclasses.fields(kind) if f.metadata["when"] is not None}


def defaults(kind: type[Hyperparameters]) -> dict[str, Value]:
    """Name → default."""
    return {field.name: getattr(kind, field.name) for field in dataclasses.fields(kind)}

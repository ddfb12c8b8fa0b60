"""Published tables, each number with where it stands: read from the files in ``tables``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from search.errors import ConfigError
from search.reproduce.protocol import Protocol
from search.yaml_file import parse_yaml

TABLES = ("paper-table-1", "blog-table")
PRECISION, RECALL = "precision", "recall"
PRINTED_PRECISION, PRINTED_RECALL = "printed precision", "printed recall"


@dataclass(frozen=True)
class Number:
    """A published number and where it stands in its document."""

    value: float
    where: str


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """What was published of one model.

    ``numbers``: metric → number. ``classes``: metric → one number for each of the ten classes. ``confusion``: rows are
    true classes, if published.
    """

    network: str
    title: str
    hyperparameters: Mapping[str, Any]
    numbers: Mapping[str, Number]
    classes: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)
    confusion: tuple[tuple[int, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table with its source, its protocol, and in words what of that is stated and what had to be assumed."""

    name: str
    title: str
    source: str
    training_images: str
    test_images: str
    tested_epoch: str
    stated: tuple[str, ...]
    assumed: tuple[str, ...]
    protocol: Protocol
    models: tuple[PublishedModel, ...]

    def choose(self, names: tuple[str, ...]) -> tuple[PublishedModel, ...]:
        """The models of those networks, all if none is named.

        Raises:
            ConfigError: the table has no such network.
        """
        known = [model.network for model in self.models]
        for name in names:
            if name not in known:
                raise ConfigError(f"--model {name!r}: {self.name} has no such network; valid: {', '.join(known)}")
        return tuple(model for model in self.models if not names or model.network in names)


def load_table(name: str) -> PublishedTable:
    """The published table of that name.

    Raises:
        ConfigError: there is none; names those there are.
    """
    if name not in TABLES:
        raise ConfigError(f"there is no table {name!r}; valid: {', '.join(TABLES)}")
    text = resources.files("search.reproduce").joinpath("tables", f"{name}.yaml").read_text(encoding="utf-8")
    raw = parse_yaml(text, where=name)
    return PublishedTable(
        name=name,
        protocol=Protocol(**raw.pop("protocol")),
        models=tuple(_parse_model(model) for model in raw.pop("models")),
        stated=tuple(raw.pop("stated")),
        assumed=tuple(raw.pop("assumed")),
        **raw,
    )


def _parse_model(raw: dict[str, Any]) -> PublishedModel:
    confusion = raw.get("confusion")
    return PublishedModel(
        network=raw["network"],
        title=raw["title"],
        hyperparameters=raw["hyperparameters"],
        numbers={metric: Number(**number) for metric, number in raw["numbers"].items()},
        classes={
            metric: tuple(Number(value, column["where"]) for value in column["values"])
            for metric, column in raw.get("classes", {}).items()
        },
        confusion=tuple(tuple(row) for row in confusion["values"]) if confusion else None,
    )

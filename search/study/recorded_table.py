"""A table of real trainings: what each epoch of each of some configurations gave, for searches to be simulated with."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_models.epoch import Epoch
from search.configuration.dimensions import Choice, Dimension, Fixed, FloatRange, IntRange
from search.configuration.space import Space
from search.records.csv_text import plain_text

_RESULTS = ("val_accuracy", "val_loss", "seconds")


@dataclass(frozen=True)
class RecordedTable:
    """``positions`` ``(N, D)``: the configurations as points of the space, whose ranges are one long each, and whose
    options are one apart. ``results`` ``(N, E, 3)``: validation accuracy, validation loss and seconds of each epoch.

    A configuration that is not in it gets the mean of the ``num_neighbours`` nearest, by the inverse square of their
    distance; one that is gets what was measured.
    """

    space: Space
    positions: npt.NDArray[np.float64]
    results: npt.NDArray[np.float64]
    num_neighbours: int = 3

    @property
    def num_epochs(self) -> int:
        return int(self.results.shape[1])

    def epochs(self, hyperparameters: Mapping[str, Any]) -> list[Epoch]:
        """What a training with these hyperparameters gives; of the training images nothing is known."""
        distances = np.linalg.norm(self.positions - _place(self.space, hyperparameters), axis=1)
        nearest = np.argsort(distances, kind="stable")[: self.num_neighbours]
        weights = 1 / np.maximum(distances[nearest], 1e-9) ** 2
        curve = np.tensordot(weights / weights.sum(), self.results[nearest], axes=1)
        return [
            Epoch(
                epoch=number,
                train_loss=math.nan,
                train_accuracy=math.nan,
                val_loss=float(loss),
                val_accuracy=float(accuracy),
                lr=float(hyperparameters["lr"]),
                epoch_s=float(seconds),
            )
            for number, (accuracy, loss, seconds) in enumerate(curve, start=1)
        ]


def read_table(path: Path, space: Space) -> RecordedTable:
    """The table of a CSV file with a line per epoch: ``configuration``, a column for each hyperparameter of the space
    that is not fixed, ``epoch`` from 1, ``val_accuracy``, ``val_loss``, ``seconds``.

    Raises:
        ValueError: it is not that, or its configurations differ in their number of epochs.
    """
    curves: dict[str, list[dict[str, str]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["configuration"], []).append(row)
    lengths = {len(rows) for rows in curves.values()}
    if len(lengths) != 1 or any(int(row["epoch"]) != n for rows in curves.values() for n, row in enumerate(rows, 1)):
        raise ValueError(f"{path} must hold the same epochs, from 1, for each configuration, but holds {lengths}")
    try:
        return RecordedTable(
            space,
            np.array([_place(space, _parse(space, rows[0])) for rows in curves.values()]),
            np.array([[[float(row[name]) for name in _RESULTS] for row in rows] for rows in curves.values()]),
        )
    except KeyError as error:
        raise ValueError(f"{path} must have a column and the space an option {error}") from error


def _parse(space: Space, row: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, dimension in space.dimensions.items():
        if isinstance(dimension, Choice):
            values[name] = {str(option): option for option in dimension.options}[plain_text(row[name])]
        elif not isinstance(dimension, Fixed):
            values[name] = float(row[name])
    return values


def _place(space: Space, hyperparameters: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    places = [_coordinates(dimension, hyperparameters.get(name)) for name, dimension in space.dimensions.items()]
    return np.array([coordinate for place in places for coordinate in place])


def _coordinates(dimension: Dimension, value: Any) -> Sequence[float]:
    match dimension:
        case FloatRange() | IntRange():
            low, high = float(dimension.low), float(dimension.high)
            if dimension.log:
                low, high, value = math.log(low), math.log(high), math.log(value)
            return [(value - low) / ((high - low) or 1.0)]
        case Choice():
            return [math.sqrt(0.5) * (value == option) for option in dimension.options]
        case Fixed():
            return []
    raise ValueError(f"a recorded table has no subsets, but got {dimension}")

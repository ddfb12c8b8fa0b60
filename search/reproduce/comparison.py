"""Ours, published, and the difference."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fmnist_models.data import CLASS_NAMES
from search.reproduce.findings import corrected, corrected_numbers
from search.reproduce.published import Number, PublishedModel
from search.reproduce.runs import RunResult


@dataclass(frozen=True, kw_only=True)
class Row:
    """One number of one model: our mean, and standard deviation over the seeds (``None`` of one seed alone)."""

    metric: str
    name: str  # of a class, or empty
    mean: float
    std: float | None
    published: float | None
    where: str

    @property
    def difference(self) -> float | None:
        """Ours less the published one."""
        return None if self.published is None else self.mean - self.published


@dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """A model's rows, and its runs, from which they come; ``confusion`` adds up theirs."""

    model: PublishedModel
    runs: tuple[RunResult, ...]
    rows: tuple[Row, ...]

    @property
    def confusion(self) -> list[list[int]]:
        """Counts over all runs, rows are true classes."""
        columns = range(len(CLASS_NAMES))
        return [[sum(run.confusion[row][column] for run in self.runs) for column in columns] for row in columns]


def compare(model: PublishedModel, runs: Sequence[RunResult]) -> ModelComparison:
    """All numbers of the runs beside those published; by class, the paper's columns exchanged as ``findings`` shows."""
    published, by_class = corrected_numbers(model), corrected(model)
    rows = [
        _row(metric, "", [run.numbers[metric] for run in runs], published.get(metric)) for metric in runs[0].numbers
    ]
    for metric in runs[0].classes:
        numbers: Sequence[Number | None] = by_class.get(metric, (None,) * len(CLASS_NAMES))
        for index, name in enumerate(CLASS_NAMES):
            rows.append(_row(metric, name, [run.classes[metric][index] for run in runs], numbers[index]))
    return ModelComparison(model=model, runs=tuple(runs), rows=tuple(rows))


def _row(metric: str, name: str, ours: list[float], published: Number | None) -> Row:
    return Row(
        metric=metric,
        name=name,
        mean=statistics.fmean(ours),
        std=statistics.stdev(ours) if len(ours) > 1 else None,
        published=None if published is None else published.value,
        where="" if published is None else published.where,
    )

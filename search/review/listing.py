"""The trials of an experiment that a person asks for, as rows of plain values. Neither Ray nor torch, nor pandas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from fmnist_models.epoch import DIRECTIONS
from search.errors import SelectionError
from search.records.experiment import Experiment
from search.records.fold_values import read_folds
from search.records.record import STATE_NAMES, list_trials
from search.records.results import CURVE, Row, best_first, list_columns, read_settings, trial_row
from search.review.condition import Condition, check_column, parse_condition

_STATES = tuple(name for name in STATE_NAMES.values() if name != "waiting")
_DIRECTIONS = ("asc", "desc")
_MAX_EPOCHS = 2**31


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which trials to list and how; an unknown name in it is a ``SelectionError`` of ``read_listing``.

    ``states``: names of states, ``None`` for all, or for complete ones if ``complete_only`` and no condition is about
    states. ``where``: conditions that all hold. ``sort``: ``COLUMN`` or
    ``COLUMN:asc|desc``; best first if left out. ``columns``: names, between commas. ``top``: no more rows than that.
    """

    states: Sequence[str] | None = None
    complete_only: bool = False
    where: Sequence[str] = ()
    sort: str | None = None
    columns: str | None = None
    top: int | None = None


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """What pruning saved: the epochs that pruned trials did not train.

    ``num_ended``: trials that are complete or pruned, and would have trained ``max_epochs`` each, in each
    of their ``folds``, without pruning.
    """

    saved_epochs: int
    num_pruned: int
    num_ended: int
    max_epochs: int
    folds: int = 1


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The rows that were asked for.

    ``columns``: all there are. ``chosen``: those that were asked for, ``None`` if no one said. ``num_found`` and
    ``found_states``: of the rows before ``top`` cut them. ``left_out``: how many trials meet the conditions of
    each state that was not asked for. ``pruning``: ``None`` if no trial was pruned.
    """

    experiment: str
    dataset: str
    metric: str
    max_trials: int
    trials: Sequence[FrozenTrial]
    rows: Sequence[Row]
    columns: Sequence[str]
    chosen: Sequence[str] | None
    num_found: int
    found_states: Sequence[str]
    left_out: Mapping[str, int]
    pruning: Pruning | None


def read_listing(experiment: Experiment, question: Question) -> Listing:
    """The trials that were asked for.

    Raises:
        SelectionError: a state, column or condition is none.
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: the configuration or the study is damaged.
    """
    _check_states(question.states)
    settings = read_settings(experiment)
    metric, dataset = settings["metric"], settings["dataset"]
    trials = list_trials(experiment)
    columns = list_columns(trials)
    aliases = {metric: "value", "epoch": "best_epoch", "last": "last_value", "seconds": "duration_s"}
    conditions = [parse_condition(text, columns, aliases=aliases) for text in question.where]
    wanted = question.states or STATE_NAMES.values()
    if question.complete_only and not question.states and not any(c.column == "state" for c in conditions):
        wanted = ["complete"]
    chosen = question.columns and [
        check_column(name.strip(), columns, aliases=aliases) for name in question.columns.split(",")
    ]
    rows = [listing_row(trial, metric=metric, dataset=dataset) for trial in trials if _state(trial) in wanted]
    rows = [row for row in rows if _hold(conditions, row)]
    others = (trial for trial in trials if _state(trial) not in wanted)
    if conditions:
        others = (t for t in others if _hold(conditions, listing_row(t, metric=metric, dataset=dataset)))
    rows = best_first(rows, metric) if question.sort is None else _sort(rows, question.sort, columns, aliases, metric)
    return Listing(
        experiment=experiment.name,
        dataset=dataset,
        metric=metric,
        max_trials=settings["max_trials"],
        trials=trials,
        rows=rows[: question.top],
        columns=columns,
        chosen=chosen or None,
        num_found=len(rows),
        found_states=list(dict.fromkeys(row["state"] for row in rows)),
        left_out=dict(Counter(map(_state, others))),
        pruning=_measure_pruning(trials, settings.get("max_epochs"), folds=read_folds(settings) or 1),
    )


def listing_row(trial: FrozenTrial, *, metric: str, dataset: str) -> Row:
    """The trial as plain values: ``COLUMNS``, ``curve`` among them as a list by epoch, and its parameters."""
    values = trial.intermediate_values
    return trial_row(trial, metric=metric, dataset=dataset) | {CURVE: [values[epoch] for epoch in sorted(values)]}


def _check_states(states: Sequence[str] | None) -> None:
    unknown = [name for name in states or () if name not in _STATES]
    if unknown:
        raise SelectionError(f"there is no state {unknown[0]!r}; valid: {', '.join(_STATES)}")


def _state(trial: FrozenTrial) -> str:
    return STATE_NAMES[trial.state]


def _hold(conditions: Sequence[Condition], row: Row) -> bool:
    values = ((condition, row.get(condition.column)) for condition in conditions)
    return all(condition.is_met(str(value) if isinstance(value, list) else value) for condition, value in values)


def _sort(rows: Sequence[Row], order: str, columns: Sequence[str], aliases: dict[str, str], metric: str) -> list[Row]:
    """Rows by one column, those without a value in it last, whatever the direction; equals stay best first."""
    name, colon, direction = order.rpartition(":")
    if not colon or order in columns:
        name, direction = order, ""
    column = check_column(name, columns, aliases=aliases)
    if direction not in ("", *_DIRECTIONS):
        raise SelectionError(
            f"{order!r} says no direction; valid: {column}:{_DIRECTIONS[0]}, {column}:{_DIRECTIONS[1]}"
        )
    ranked = best_first(rows, metric)
    there = [row for row in ranked if row.get(column) is not None]
    if not direction and column in ("value", "last_value"):
        direction = "desc" if DIRECTIONS[metric] == "maximize" else "asc"
    there.sort(key=lambda row: _sort_key(row[column]), reverse=direction == "desc")
    return there + [row for row in ranked if row.get(column) is None]


def _sort_key(value: Any) -> tuple[int, Any]:
    if isinstance(value, str):
        return 1, value
    if isinstance(value, float):  # without the digits in which 3 * 0.1 and 0.3 differ
        return 0, float(f"{value:.12g}")
    return (2, len(value)) if isinstance(value, list) else (0, value)


def _measure_pruning(trials: Sequence[FrozenTrial], max_epochs: object, *, folds: int) -> Pruning | None:
    pruned = [trial for trial in trials if _state(trial) == "pruned"]
    if not pruned or type(max_epochs) is not int or not 0 < max_epochs < _MAX_EPOCHS:
        return None
    num_ended = sum(_state(trial) in ("complete", "pruned") for trial in trials)
    return Pruning(
        saved_epochs=sum(max(0, max_epochs * folds - len(trial.intermediate_values)) for trial in pruned),
        num_pruned=len(pruned),
        num_ended=num_ended,
        max_epochs=max_epochs,
        folds=folds,
    )

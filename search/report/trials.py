"""The table of all trials: cells as text, which the page's script sorts and filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.records.record import MESSAGE, REASON, STATE_NAMES, best_epoch, best_value
from search.records.results import compact_parameters
from search.records.spans import worked_s
from search.report.material import Material
from search.report.wording import count, text

_MAX_ROWS = 20_000
_MAX_PARAMETERS = 40
_MAX_MESSAGE = 160
_ORDER = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL)


@dataclass(frozen=True)
class Column:
    """A column's heading, and whether its cells are numbers (or empty)."""

    name: str
    is_number: bool


@dataclass(frozen=True)
class TrialsTable:
    """All trials, best first, running and failed ones last; ``note`` says what is left out."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str


def tabulate_trials(material: Material) -> TrialsTable:
    """The trials with what a terminal's table of them shows."""
    sign = -1 if material.is_more_better else 1

    def rank(trial: FrozenTrial) -> tuple[int, float, int]:
        value = best_value(trial, material.metric)
        return _ORDER.index(trial.state), float("inf") if value is None else sign * value, trial.number

    trials = sorted(material.trials, key=rank)[:_MAX_ROWS]
    compact = [compact_parameters(trial.params) for trial in trials]
    names = list(dict.fromkeys(name for values in compact for name in values))
    shown = names[:_MAX_PARAMETERS]
    kinds = [all(_is_number(values[name]) for values in compact if name in values) for name in shown]
    columns = [Column("trial", True), Column("state", False), Column(material.metric, True)]
    columns += [Column(name, True) for name in ("best_epoch", "last_value", "last_epoch", "epochs", "seconds")]
    columns += [Column(text(name, limit=40), is_number) for name, is_number in zip(shown, kinds, strict=True)]
    columns += [Column("reason", False), Column("message", False)]
    rows = [_row(trial, material, values, shown) for trial, values in zip(trials, compact, strict=True)]
    notes = []
    if len(trials) < len(material.trials):
        notes.append(f"The best {len(trials):,} of {count(len(material.trials), 'trial')}; trials.csv has all.")
    if len(shown) < len(names):
        notes.append(f"The first {len(shown)} of {count(len(names), 'parameter')}; trials.csv has all.")
    return TrialsTable(columns, rows, " ".join(notes))


def _row(trial: FrozenTrial, material: Material, values: dict[str, Any], names: Sequence[str]) -> list[str]:
    epoch, value = best_epoch(trial, material.metric), best_value(trial, material.metric)
    last = max(trial.intermediate_values, default=None)
    duration_s = worked_s(trial)
    reason = trial.user_attrs.get(REASON)
    return [
        str(trial.number),
        STATE_NAMES[trial.state],
        "" if value is None else f"{value:.6g}",
        "" if epoch is None else str(epoch),
        "" if last is None else f"{trial.intermediate_values[last]:.6g}",
        "" if last is None else str(last),
        str(len(trial.intermediate_values)),
        "" if duration_s is None else f"{duration_s:.1f}",
        *(text(values[name], limit=60) if name in values else "" for name in names),
        "" if reason is None else text(reason, limit=40),
        "" if reason is None else text(trial.user_attrs.get(MESSAGE, ""), limit=_MAX_MESSAGE),
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

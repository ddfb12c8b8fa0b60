"""When trials were under way: from start to end, without the times in which an interrupted one waited."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial

from search.records.record import PAUSES

Span = tuple[datetime, datetime]


def list_spans(trial: FrozenTrial) -> list[Span]:
    """Those of a trial that has ended, in order; none of another."""
    if trial.datetime_start is None or trial.datetime_complete is None:
        return []
    spans, begun = [], trial.datetime_start
    for stopped, continued in _read_pauses(trial, trial.datetime_start):
        if begun <= stopped <= continued <= trial.datetime_complete:  # a stranger may write anything
            spans.append((begun, stopped))
            begun = continued
    return [*spans, (begun, trial.datetime_complete)]


def worked_s(trial: FrozenTrial) -> float | None:
    """Seconds that a trial was under way; ``None`` if it has not ended."""
    spans = list_spans(trial)
    return sum((end - start).total_seconds() for start, end in spans) if spans else None


def busy_s(trials: Sequence[FrozenTrial]) -> float:
    """Seconds in which at least one of the trials that have ended was under way: the union of their times, so that
    neither parallel trials nor a pause between two runs count."""
    total_s, until = 0.0, datetime.min
    for start, end in sorted(span for trial in trials for span in list_spans(trial)):
        if end > max(start, until):
            total_s += (end - max(start, until)).total_seconds()
            until = end
    return total_s


def _read_pauses(trial: FrozenTrial, start: datetime) -> list[Span]:
    pauses = trial.user_attrs.get(PAUSES)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return [(start + timedelta(seconds=one), start + timedelta(seconds=other)) for one, other in pauses or ()]
    return []

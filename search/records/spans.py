"""When trials were under way: from start to end, without the times in which an interrupted one waited."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta

from optuna.trial import FrozenTrial

from search.records.record import PAUSES

Span = tuple[datetime, datetime]


def list_spans(trial: FrozenTrial, *, until: datetime | None = None) -> list[Span]:
    """The times in which a trial was under way, in order. ``until``: the moment to which one that has not ended was;
    ``None``: it has no spans yet."""
    end = trial.datetime_complete or until
    if trial.datetime_start is None or end is None:
        return []
    end = max(end, trial.datetime_start)  # a clock may be put back
    spans, begun = [], trial.datetime_start
    for stopped, continued in _read_pauses(trial, trial.datetime_start):
        if begun <= stopped <= continued <= end:  # a stranger may write anything
            spans.append((begun, stopped))
            begun = continued
    return [*spans, (begun, end)]


def worked_s(trial: FrozenTrial) -> float | None:
    """Seconds that a trial was under way; ``None`` if it has not ended."""
    spans = list_spans(trial)
    return sum((end - start).total_seconds() for start, end in spans) if spans else None


def last_moment(trial: FrozenTrial) -> datetime | None:
    """The last moment of a trial that its record tells of."""
    if trial.datetime_start is None or trial.datetime_complete is not None:
        return trial.datetime_complete
    return max([trial.datetime_start, *(end for _, end in _read_pauses(trial, trial.datetime_start))])


def _read_pauses(trial: FrozenTrial, start: datetime) -> list[Span]:
    pauses = trial.user_attrs.get(PAUSES)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return [(start + timedelta(seconds=one), start + timedelta(seconds=other)) for one, other in pauses or ()]
    return []

"""How long a search took and how its slots were used: the one definition, for the terminal, comparisons and reports."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState

from search.records.experiment import Experiment
from search.records.inventory import find_holder
from search.records.runs import Run, read_runs
from search.records.spans import Span, last_moment, list_spans

TIME_MEANS = "time: sum over runs, each from its first trial's start to its last trial's end"
TAIL_MEANS = "at the end, with no trial left to start"


@dataclass(frozen=True)
class Stay:
    """A time of a trial in a slot, from 0; a trial that was interrupted and continued has several."""

    trial: int
    state: TrialState
    start: datetime
    end: datetime
    slot: int


@dataclass(frozen=True)
class SlotUse:
    """Seconds in which a slot was there, and had a trial."""

    num_trials: int
    there_s: float
    busy_s: float

    @property
    def idle_share(self) -> float:
        return _share(self.there_s - self.busy_s, self.there_s)


@dataclass(frozen=True)
class Occupancy:
    """A search's time. A run of it lasts from the start of its first trial to the end of its last one, so that neither
    Ray's start nor the time between two runs counts.

    ``search_s``: seconds of all runs together. ``idle_share``: of the slots' time in the runs in which they had no
    trial, 0…1; ``None`` if no trial has started. ``tail_share``: the part of it after the last trial of a run had
    started, when slots had nothing more to do. ``stays``: by their starts.
    """

    search_s: float
    idle_share: float | None
    tail_share: float
    slots: tuple[SlotUse, ...]
    stays: tuple[Stay, ...]


def read_occupancy(experiment: Experiment, trials: Sequence[FrozenTrial]) -> Occupancy:
    """The occupancy of an experiment with these trials; of a running search, up to now.

    Raises:
        OSError: its lock cannot be looked at.
    """
    now = datetime.now() if find_holder(experiment) is not None else None
    return measure_occupancy(trials, read_runs(experiment), now=now)


def measure_occupancy(trials: Sequence[FrozenTrial], runs: Sequence[Run], *, now: datetime | None) -> Occupancy:
    """``now``: the moment until which open trials are under way, of a search that runs; of another one they end with
    the last moment that the study tells of. Where no run says how many slots it had, as many as trials needed."""
    known = [moment for trial in trials if (moment := last_moment(trial)) is not None]
    until = max(known, default=None) if now is None else max([now, *known])
    stays = _assign([(span, trial) for trial in trials for span in _list_spans(trial, runs, known, until=until)])
    num_needed = max((stay.slot + 1 for stay in stays), default=0)
    there_s: list[float] = []
    search_s = tail_s = 0.0
    for num_slots, mine in _group(stays, runs):
        count, start, end = num_slots or num_needed, mine[0].start, max(stay.end for stay in mine)
        search_s += (end - start).total_seconds()
        there_s += [0.0] * (count - len(there_s))
        there_s[:count] = [seconds + (end - start).total_seconds() for seconds in there_s[:count]]
        last = (mine[-1].start, end)
        tail_s += max(0.0, count * _seconds(last) - sum(_overlap_s((stay.start, stay.end), last) for stay in mine))
    there_s += [0.0] * (num_needed - len(there_s))  # more than a run says that it had count for none
    slots = _count_slots(stays, there_s)
    slot_s, busy_s = sum(there_s), sum(slot.busy_s for slot in slots)
    return Occupancy(
        search_s=search_s,
        idle_share=_share(slot_s - busy_s, slot_s) if stays else None,
        tail_share=_share(min(tail_s, slot_s - busy_s), slot_s),
        slots=slots,
        stays=stays,
    )


def _list_spans(
    trial: FrozenTrial, runs: Sequence[Run], known: Sequence[datetime], *, until: datetime | None
) -> list[Span]:
    """The spans of a trial. A trial that a run left open was under way until the last moment that is ``known`` of that
    run, and not in the runs after it, which have not continued it yet."""
    spans = list_spans(trial, until=until)
    if not spans or trial.datetime_complete is not None:
        return spans
    *earlier, (start, end) = spans
    next_run = min((run.start for run in runs if start < run.start < end), default=None)
    if next_run is not None:
        end = max((moment for moment in known if start <= moment <= next_run), default=start)
    return [*earlier, (start, end)]


def _assign(spans: Sequence[tuple[Span, FrozenTrial]]) -> tuple[Stay, ...]:
    """Each span in the lowest slot that is free when it starts, as the study does not record slots: no slot ever has
    two trials, and there are as many as trials at a time."""
    busy: list[tuple[datetime, int]] = []  # until when, which slot
    free: list[int] = []
    num_slots = 0
    stays = []
    for (start, end), trial in sorted(spans, key=lambda one: (one[0], one[1].number)):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            heapq.heappush(free, num_slots)
            num_slots += 1
        slot = heapq.heappop(free)
        heapq.heappush(busy, (end, slot))
        stays.append(Stay(trial.number, trial.state, start, end, slot))
    return tuple(stays)


def _group(stays: Sequence[Stay], runs: Sequence[Run]) -> list[tuple[int | None, list[Stay]]]:
    """The stays of each run that has some, with its number of slots; what begins before the first run belongs to it."""
    starts = [run.start for run in runs]
    groups: dict[int, list[Stay]] = {}
    for stay in stays:
        groups.setdefault(max(0, bisect_right(starts, stay.start) - 1), []).append(stay)
    return [(runs[number].num_slots if runs else None, mine) for number, mine in groups.items()]


def _count_slots(stays: Sequence[Stay], there_s: Sequence[float]) -> tuple[SlotUse, ...]:
    trials: Mapping[int, set[int]] = {slot: set() for slot in range(len(there_s))}
    busy_s = [0.0] * len(there_s)
    for stay in stays:
        trials[stay.slot].add(stay.trial)
        busy_s[stay.slot] += _seconds((stay.start, stay.end))
    return tuple(SlotUse(len(trials[slot]), there_s[slot], busy_s[slot]) for slot in trials)


def _overlap_s(one: Span, other: Span) -> float:
    return max(0.0, _seconds((max(one[0], other[0]), min(one[1], other[1]))))


def _seconds(span: Span) -> float:
    return (span[1] - span[0]).total_seconds()


def _share(part_s: float, whole_s: float) -> float:
    return min(1.0, max(0.0, part_s / whole_s)) if whole_s > 0 else 0.0

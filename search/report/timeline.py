"""The timeline: which trial was in which slot when, and when slots were idle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from optuna.trial import TrialState

from search.records.inventory import State
from search.report.items import Chart, Missing, Numbers, joined
from search.report.material import Material
from search.report.states import NAMES, PATTERNS
from search.report.wording import count, duration

_MAX_BARS = 1_500
_MAX_EDGED = 150  # with edges, that many bars would be edges only
_MAX_SLOTS = 100
_OVERLAP = timedelta(seconds=1)  # the next trial of a slot may be drawn before the last one's end is recorded
_TITLE = "Timeline"


@dataclass(frozen=True)
class Stay:
    """A trial's time in a slot."""

    trial: int
    state: TrialState
    start: datetime
    end: datetime
    slot: int


def assign_slots(material: Material) -> list[Stay]:
    """Each trial in the first slot that is free when it starts, as the study does not record slots; by start."""
    known = [
        moment for trial in material.trials for moment in (trial.datetime_start, trial.datetime_complete) if moment
    ]
    now = max([material.written, *known] if material.state == State.RUNNING else known, default=material.written)
    started = [(trial.datetime_start, trial) for trial in material.trials if trial.datetime_start is not None]
    free_from: list[datetime] = []
    stays = []
    for start, trial in sorted(started, key=lambda pair: (pair[0], pair[1].number)):
        end = max(start, trial.datetime_complete or now)
        free = [slot for slot, moment in enumerate(free_from) if moment - start <= _OVERLAP]
        if not free:
            free_from.append(end)
        slot = free[0] if free else len(free_from) - 1
        free_from[slot] = end
        stays.append(Stay(trial.number, trial.state, start, end, slot))
    return stays


def chart_timeline(material: Material) -> Chart | Missing:
    """A bar a trial; what is empty is idle."""
    stays = assign_slots(material)
    if not stays:
        return Missing(title=_TITLE, reason="No trial has started yet.")
    first, last = stays[0].start, max(stay.end for stay in stays)
    span_s = max((last - first).total_seconds(), 1e-9)
    num_slots = max(stay.slot for stay in stays) + 1
    busy_s = [0.0] * num_slots
    num_trials = [0] * num_slots
    for stay in stays:
        busy_s[stay.slot] += (stay.end - stay.start).total_seconds()
        num_trials[stay.slot] += 1
    busy_s = [min(seconds, span_s) for seconds in busy_s]
    idle = 1 - sum(busy_s) / (span_s * num_slots)
    shown = [stay for stay in stays if stay.slot < _MAX_SLOTS][-_MAX_BARS:]
    slots = sorted({stay.slot for stay in shown})
    left_out = len(stays) - len(shown)
    return Chart(
        key="timeline",
        title=_TITLE,
        description=(
            f"{count(len(stays), 'trial')} in {count(num_slots, 'slot')} over {duration(span_s)}; "
            f"the slots were idle {idle:.0%} of that time."
        ),
        traces=[trace for state in NAMES if (trace := _bars(shown, state))],
        layout={
            "barmode": "overlay",
            "bargap": 0.25,
            "xaxis": {"type": "date", "title": {"text": "local time of the search"}},
            "yaxis": {
                "tickvals": slots,
                "ticktext": [f"slot {slot + 1}" for slot in slots] if len(slots) <= 30 else [],
                "range": [max(slots) + 0.6, min(slots) - 0.6],
                "zeroline": False,
                "showgrid": False,
            },
        },
        height_px=150 + min(36 * len(slots), 600),
        numbers=Numbers(
            caption="Slots, busy and idle",
            header=("slot", "trials", "busy", "idle"),
            rows=[
                (str(slot + 1), f"{num_trials[slot]:,}", duration(seconds), f"{1 - seconds / span_s:.0%}")
                for slot, seconds in enumerate(busy_s[:_MAX_SLOTS])
            ],
        ),
        note=joined(
            (
                "A trial is put into the first slot free at its start; one that was continued counts from its first "
                "start, and breaks between two runs of a search count as idle.",
                f"The last {len(shown):,} of {count(len(stays), 'trial')} are drawn." if left_out else "",
            )
        ),
    )


def _bars(stays: Sequence[Stay], state: TrialState) -> dict[str, object]:
    mine = [stay for stay in stays if stay.state == state]
    if not mine:
        return {}
    return {
        "type": "bar",
        "orientation": "h",
        "name": NAMES[state],
        "y": [stay.slot for stay in mine],
        "base": [stay.start.isoformat(sep=" ", timespec="milliseconds") for stay in mine],
        "x": [round((stay.end - stay.start).total_seconds() * 1000) for stay in mine],
        "customdata": [stay.trial for stay in mine],
        "marker": {
            "color": f"--{NAMES[state]}",
            "line": {"color": "--card", "width": 1 if len(stays) <= _MAX_EDGED else 0},
            "pattern": {
                "shape": PATTERNS[state],
                "fgcolor": "--card",
                "size": 7,
                "solidity": 0.3,
                "fillmode": "overlay",
            },
        },
    }

"""The timeline: which trial was in which slot when, and when slots were idle."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import TrialState

from search.records.occupancy import TAIL_MEANS, Occupancy, Stay
from search.report.items import Chart, Missing, Numbers, joined
from search.report.material import Material
from search.report.states import NAMES, PATTERNS
from search.report.wording import count, duration

_MAX_BARS = 1_500
_MAX_EDGED = 150  # with edges, that many bars would be edges only
_MAX_SLOTS = 100
_MIN_TAIL = 0.005
_TITLE = "Timeline"


def chart_timeline(material: Material) -> Chart | Missing:
    """A bar for each time of a trial in a slot; what is empty is idle, or between two runs."""
    occupancy = material.occupancy
    stays, num_slots = occupancy.stays, len(occupancy.slots)
    if not stays:
        return Missing(title=_TITLE, reason="No trial has started yet.")
    num_trials = len({stay.trial for stay in stays})
    shown = [stay for stay in stays if stay.slot < _MAX_SLOTS][-_MAX_BARS:]
    slots = sorted({stay.slot for stay in shown})
    left_out = num_trials - len({stay.trial for stay in shown})
    return Chart(
        key="timeline",
        title=_TITLE,
        description=(
            f"{count(num_trials, 'trial')} in {count(num_slots, 'slot')} over {duration(occupancy.search_s)}; "
            f"the slots were idle {occupancy.idle_share or 0:.0%} of that time{_describe_tail(occupancy)}."
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
                (str(slot), f"{use.num_trials:,}", duration(use.busy_s), f"{use.idle_share:.0%}")
                for slot, use in enumerate(occupancy.slots[:_MAX_SLOTS], start=1)
            ],
        ),
        note=joined(
            (
                "A trial is put into the first slot free at its start. Time between two runs of a search counts as "
                "neither busy nor idle.",
                "" if material.cost is None else f"All trials together took {material.cost}.",
                f"The last {num_trials - left_out:,} of {count(num_trials, 'trial')} are drawn." if left_out else "",
            )
        ),
    )


def _describe_tail(occupancy: Occupancy) -> str:
    """How much of it was the end of a run, in words."""
    return f", {occupancy.tail_share:.0%} {TAIL_MEANS}" if occupancy.tail_share >= _MIN_TAIL else ""


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

"""Slices: the value of every trial over each hyperparameter on its own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

from optuna.trial import FrozenTrial, TrialState

from search.records.numbers import is_same_value
from search.report.items import Chart, Missing, Numbers, thin
from search.report.material import Material
from search.report.scale import Scale, scale_of
from search.report.states import NAMES, marker
from search.report.wording import count, label, number, text

_MAX_SLICES = 24
_MAX_POINTS = 400  # of a state, in each slice
_NUM_BINS = 4
_FEW = 200  # points that large ones do not hide
_SHOWN = (TrialState.PRUNED, TrialState.COMPLETE)
_GOLDEN = 0.618034


def varying(material: Material, order: Sequence[str]) -> list[str]:
    """The parameters of which trials had different values, those of ``order`` first."""
    first: dict[str, object] = {}
    found: dict[str, bool] = {}
    for trial, _ in material.with_values(*_SHOWN):
        for name, value in trial.params.items():
            found[name] = found.get(name, False) or not is_same_value(first.setdefault(name, value), value)
    names = [name for name, varies in found.items() if varies]
    return [name for name in order if name in names] + [name for name in names if name not in order]


def chart_slices(material: Material, names: Sequence[str]) -> list[Chart | Missing]:
    """A small chart for each parameter, the number of them limited."""
    valued = material.with_values(*_SHOWN)
    if not names:
        return [Missing(title="Slices", reason="No parameter of which two trials had different values yet.")]
    charts: list[Chart | Missing] = [_chart(material, valued, name, i) for i, name in enumerate(names[:_MAX_SLICES])]
    if len(names) > _MAX_SLICES:
        reason = f"{count(len(names) - _MAX_SLICES, 'parameter')} more, less important, are in the table only."
        charts.append(Missing(title="Other parameters", reason=reason))
    return charts


def _chart(material: Material, valued: Sequence[tuple[FrozenTrial, float]], name: str, position: int) -> Chart:
    having = [(trial, value) for trial, value in valued if name in trial.params]
    scale = scale_of(name, [trial for trial, _ in having])
    traces = []
    left_out = 0
    for state in _SHOWN:
        points = [(trial, value) for trial, value in having if trial.state == state]
        some = thin(points, limit=_MAX_POINTS)
        left_out += len(points) - len(some)
        placed = [(_place(scale, trial), number(value), trial.number) for trial, value in some]
        kept = [(x, y, trial) for x, y, trial in placed if x is not None]
        if kept:
            x, y, numbers = zip(*kept, strict=True)
            traces.append(
                {"type": "scatter", "mode": "markers", "name": NAMES[state], "x": x, "y": y, "customdata": numbers}
                | {"marker": marker(state, size=6 if len(having) <= _FEW else 4)}
            )
    axis: dict[str, object] = {"title": {"text": label(name)}}
    if scale.options is not None:
        places = list(range(len(scale.options)))
        axis |= {"tickvals": places, "ticktext": scale.options, "range": [-0.5, len(places) - 0.5], "zeroline": False}
    elif scale.is_log:
        ticks = scale.ticks([trial.params[name] for trial, _ in having])
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    best = having[0]
    return Chart(
        key=f"slice-{position}",
        title=text(name),
        description=(
            f"{material.metric} over {text(name)} of {count(len(having), 'trial')}; "
            f"the best, {best[1]:.4f}, at {text(best[0].params[name])}."
        ),
        traces=traces,
        layout={"xaxis": axis, "yaxis": {"title": {"text": material.metric}}},
        height_px=280,
        numbers=_numbers(material, having, scale),
        note=f"{count(left_out, 'trial')} between the points shown left out." if left_out else "",
    )


def _place(scale: Scale, trial: FrozenTrial) -> float | None:
    """Where a trial is drawn: options are spread a little, always the same way, so that no point hides others."""
    place = scale.place(trial.params[scale.name])
    if place is None or scale.options is None:
        return None if place is None else number(place)
    return round(place + 0.5 * ((trial.number * _GOLDEN) % 1 - 0.5), 3)


def _numbers(material: Material, having: Sequence[tuple[FrozenTrial, float]], scale: Scale) -> Numbers:
    bins: list[tuple[str, list[float]]] = []
    if scale.options is not None:
        for option in scale.options:
            bins.append((option, [value for trial, value in having if label(trial.params[scale.name]) == option]))
    else:
        rising = sorted(having, key=lambda pair: pair[0].params[scale.name])
        edges = [round(i * len(rising) / _NUM_BINS) for i in range(_NUM_BINS + 1)]
        for start, end in pairwise(edges):
            if start < end:
                low, high = (rising[at][0].params[scale.name] for at in (start, end - 1))
                bins.append((f"{low:.3g} to {high:.3g}", [value for _, value in rising[start:end]]))
    best = max if material.is_more_better else min
    rows = [(name, f"{len(v):,}", f"{best(v):.4f}", f"{statistics.median(v):.4f}") for name, v in bins if v]
    return Numbers(
        caption=f"{material.metric} by {text(scale.name)}",
        header=(text(scale.name), "trials", "best", "median"),
        rows=rows,
    )

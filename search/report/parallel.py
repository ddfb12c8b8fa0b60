"""Parallel coordinates: every trial a line through its hyperparameters to its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.report.items import Chart, Missing, Numbers, joined, thin
from search.report.material import Material
from search.report.scale import Scale, scale_of
from search.report.wording import count, label, number, parameters, text
from search.review.asked import describe_asked

_MAX_LINES = 120
_MAX_AXES = 9
_MAX_CONDITIONS = 400  # characters
_NOT_ASKED = -0.14
_TITLE = "Parallel coordinates"
_GROUPS = (("best tenth", "--c1", "solid", 3), ("upper half", "--c2", "dash", 1.5), ("lower half", "--c3", "dot", 1))


def chart_parallel(material: Material, order: Sequence[str]) -> Chart | Missing:
    """A line a trial; ``order``: parameters, the most important first, which become the axes."""
    valued = material.with_values(TrialState.COMPLETE, TrialState.PRUNED)
    names = order[: _MAX_AXES - 1]
    if len(valued) < 2 or not names:
        return Missing(title=_TITLE, reason="Fewer than two trials with values and parameters that differ yet.")
    some = thin(valued, limit=_MAX_LINES)
    axes = [_Axis(scale_of(name, [trial for trial, _ in some]), some) for name in names]
    values = [value for _, value in some]
    low, high = min(values), max(values)
    value_scale = Scale(material.metric, None, False)
    ends = (max(1, len(some) // 10), max(1, len(some) // 2), len(some))
    traces = []
    start = 0
    for (name, colour, dash, width), end in zip(_GROUPS, ends, strict=True):
        x: list[float | None] = []
        y: list[float | None] = []
        numbers: list[int] = []
        for trial, value in some[start:end]:
            x += [*range(len(axes) + 1), None]
            y += [*(axis.height(trial) for axis in axes), value_scale.share(value, low=low, high=high), None]
            numbers += [trial.number] * (len(axes) + 2)
        if numbers:
            traces.append(
                {"type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": y, "customdata": numbers}
                | {"line": {"color": colour, "dash": dash, "width": width}, "marker": {"color": colour, "size": 5}}
                | {"connectgaps": False}
            )
        start = max(start, end)
    traces.reverse()  # the best on top
    labels = [mark for position, axis in enumerate(axes) for mark in axis.labels(position)]
    if any(axis.has_gaps for axis in axes):
        labels.append(_mark(next(i for i, axis in enumerate(axes) if axis.has_gaps), _NOT_ASKED, "not asked"))
    labels += [_mark(len(axes), 0, f"{low:.4g}"), _mark(len(axes), 1, f"{high:.4g}")]
    lines = [
        {"type": "line", "xref": "x", "yref": "y", "x0": position, "x1": position, "y0": 0, "y1": 1}
        | {"line": {"color": "--line", "width": 2}, "layer": "below"}
        for position in range(len(axes) + 1)
    ]
    best = [(trial, value) for trial, value in valued[:10]]
    return Chart(
        key="parallel",
        title=_TITLE,
        description=(
            f"{count(len(some), 'trial')} as lines through {', '.join(text(name) for name in names)} "
            f"to their {material.metric}, from {low:.4g} to {high:.4g}."
        ),
        traces=traces,
        layout={
            "xaxis": {
                "tickvals": list(range(len(axes) + 1)),
                "ticktext": [*(label(name, limit=18) for name in names), material.metric],
                "side": "top",
                "showgrid": False,
                "zeroline": False,
                "range": [-0.3, len(axes) + 0.9],
                "tickangle": -20,
            },
            "yaxis": {"visible": False, "range": [_NOT_ASKED - 0.08, 1.08]},
            "annotations": labels,
            "shapes": lines,
            "legend": {"orientation": "h", "y": -0.02, "yanchor": "top", "traceorder": "reversed"},
            "hovermode": "closest",
        },
        height_px=480,
        wide=True,
        numbers=Numbers(
            caption="The ten best trials",
            header=("trial", material.metric, "parameters"),
            rows=[(str(trial.number), f"{value:.4f}", parameters(trial.params)) for trial, value in best],
        ),
        note=joined(
            (
                _explain_gaps([n for n, axis in zip(names, axes, strict=True) if axis.has_gaps], material),
                f"{len(axes)} of {len(order)} parameters, the most important ones if that is known."
                if len(order) > len(axes)
                else "",
                f"{len(some)} of {count(len(valued), 'trial')}, evenly chosen by rank."
                if len(some) < len(valued)
                else "",
            )
        ),
    )


def _explain_gaps(names: Sequence[str], material: Material) -> str:
    """By which conditions trials were not asked for these parameters."""
    if not names:
        return ""
    told = describe_asked(names, material.settings["space"])
    return f"Not asked: {text(told, limit=_MAX_CONDITIONS) if told else 'the trial does not have this parameter'}."


class _Axis:
    """One parameter's axis over some trials."""

    def __init__(self, scale: Scale, valued: Sequence[tuple[FrozenTrial, float]]) -> None:
        self._scale = scale
        having = [trial.params[scale.name] for trial, _ in valued if scale.name in trial.params]
        places = [place for place in map(scale.place, having) if place is not None]
        if scale.options is not None:
            places = [0.0, max(len(scale.options) - 1.0, 0.0)]
        self._low, self._high = (min(places), max(places)) if places else (0.0, 1.0)
        self.has_gaps = len(having) < len(valued)

    def height(self, trial: FrozenTrial) -> float:
        if self._scale.name not in trial.params:
            return _NOT_ASKED
        share = self._scale.share(trial.params[self._scale.name], low=self._low, high=self._high)
        return _NOT_ASKED if share is None else number(share)

    def labels(self, position: int) -> list[dict[str, Any]]:
        if self._scale.options is None:
            ends = {0.0: self._low, 1.0: self._high} if self._low != self._high else {0.5: self._low}
            return [_mark(position, height, f"{value:.3g}") for height, value in ends.items()]
        top = max(len(self._scale.options) - 1, 1)
        offset = 0.5 if len(self._scale.options) == 1 else 0.0
        return [_mark(position, offset + at / top, option) for at, option in enumerate(self._scale.options)]


def _mark(position: float, height: float, written: str) -> dict[str, Any]:
    """A label right of an axis; ``written`` is escaped."""
    return {
        "x": position,
        "y": height,
        "text": written,
        "showarrow": False,
        "xanchor": "left",
        "xshift": 6,
        "bgcolor": "--card",
        "opacity": 0.9,
        "font": {"size": 11, "color": "--ink"},
    }

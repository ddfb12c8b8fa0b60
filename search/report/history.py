"""The optimisation history: every trial's value in the order of their numbers, and the best one so far."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search.report.items import Chart, Missing, Numbers, joined, thin
from search.report.material import Material
from search.report.states import NAMES, marker
from search.report.wording import count, number

_MAX_POINTS = 2_000
_FEW = 200  # points that large ones do not hide
_TITLE = "Optimisation history"


def chart_history(material: Material) -> Chart | Missing:
    """One point a trial, by its state, and the running best of the complete ones as a line."""
    points = sorted(material.with_values(*NAMES), key=lambda point: point[0].number)
    if not points:
        return Missing(title=_TITLE, reason="No trial has finished an epoch yet.")
    steps = _improvements(material, points)
    kept = {trial.number for trial, _ in (*thin(points, limit=_MAX_POINTS), *steps)}
    traces: list[dict[str, Any]] = []
    for state, name in NAMES.items():
        shown = [(trial.number, number(value)) for trial, value in points if trial.state == state]
        shown = [point for point in shown if point[0] in kept]
        if shown:
            numbers, values = zip(*shown, strict=True)
            traces.append(
                {"type": "scatter", "mode": "markers", "name": name, "x": numbers, "y": values, "customdata": numbers}
                | {"marker": marker(state, size=8 if len(points) <= _FEW else 5)}
            )
    if steps:
        x = [*(trial.number for trial, _ in steps), max(points[-1][0].number, steps[-1][0].number)]
        y = [*(number(value) for _, value in steps), number(steps[-1][1])]
        line = {"shape": "hv", "color": "--ink", "width": 2}
        traces.append(
            {"type": "scatter", "mode": "lines", "name": "best so far", "x": x, "y": y, "line": line}
            | {"hovertemplate": f"best so far: %{{y:.4f}} {material.metric}<extra></extra>"}
        )
    num_left_out, without = len(points) - len(kept), len(material.trials) - len(points)
    return Chart(
        key="history",
        title=_TITLE,
        description=(
            f"{material.metric} of {count(len(points), 'trial')} in the order of their numbers; "
            f"the best so far improved {count(len(steps), 'time')}"
            + (f", last with trial {steps[-1][0].number} to {steps[-1][1]:.4f}." if steps else ".")
        ),
        traces=traces,
        layout={
            "xaxis": {"title": {"text": "trial"}, "zeroline": False},
            "yaxis": {"title": {"text": f"{material.metric} (best epoch)"}},
        },
        numbers=Numbers(
            caption="The trials that improved on all complete ones before them",
            header=("trial", material.metric),
            rows=[(str(trial.number), f"{value:.4f}") for trial, value in steps],
        ),
        note=joined(
            (
                f"{count(num_left_out, 'trial')} between the points shown left out." if num_left_out else "",
                f"{count(without, 'trial')} without a finished epoch not shown." if without else "",
            )
        ),
    )


def _improvements(material: Material, points: list[tuple[FrozenTrial, float]]) -> list[tuple[FrozenTrial, float]]:
    sign = 1 if material.is_more_better else -1
    steps: list[tuple[FrozenTrial, float]] = []
    for trial, value in points:
        is_better = not steps or sign * value > sign * steps[-1][1]
        if trial.state == TrialState.COMPLETE and is_better:
            steps.append((trial, value))
    return steps

"""Learning curves of all trials, by the rung at which each of them ended."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from optuna.trial import FrozenTrial

from search.records.fold_values import read_folds
from search.records.rungs import list_rungs
from search.report.items import Chart, Missing, Numbers, joined, thin
from search.report.material import Material
from search.report.states import NAMES, marker
from search.report.wording import count, number

_MAX_CURVES = 25  # of each group
_MAX_EPOCHS = 200  # of each curve
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
_TITLE = "Learning curves by rung"


def chart_curves(material: Material) -> Chart | Missing:
    """A line a trial, grouped by the rung at which it ended, with its end marked by its state."""
    trials = [trial for trial, _ in material.with_values(*NAMES)]
    if not trials:
        return Missing(title=_TITLE, reason="No trial has finished an epoch yet.")
    rungs, fold_ends = find_rungs(material), _fold_ends(material)
    groups: dict[str, list[FrozenTrial]] = {name: [] for name in _names(rungs)}
    names = list(groups)
    for trial in trials:
        groups[names[-1 - sum(rung <= max(trial.intermediate_values) for rung in rungs)]].append(trial)
    groups = {name: group for name, group in groups.items() if group}
    traces: list[dict[str, Any]] = []
    drawn: list[FrozenTrial] = []
    for position, (name, group) in enumerate(groups.items()):
        some = thin(group, limit=_MAX_CURVES)
        drawn += some
        colour, dash = f"--c{min(position, 4) + 1}", _DASHES[min(position, 4)]
        traces.append(
            _lines(some, name=f"{name} ({len(group):,})")
            | {"line": {"color": colour, "dash": dash, "width": 1.5}, "opacity": 0.8}
        )
    for state, name in NAMES.items():
        ends = [trial for trial in drawn if trial.state == state]
        if ends:
            traces.append(_ends(ends, name=f"ended {name}" if state.is_finished() else name))
            traces[-1]["marker"] = marker(state, size=7)
    what = "the pruner decides" if material.settings.get("pruner") != "none" else "a fold ends"
    lines = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": rung, "x1": rung, "y0": 0, "y1": 1}
        | {"line": {"color": "--line", "width": 2, "dash": "dot"}, "layer": "below"}
        for rung in rungs[:-1]
    ]
    return Chart(
        key="curves",
        title=_TITLE,
        description=(
            f"{material.metric} by epoch, one line a trial, by where each is or ended: "
            + "; ".join(f"{name}: {count(len(group), 'trial')}" for name, group in groups.items())
            + "."
        ),
        traces=traces,
        layout={
            "xaxis": {"title": {"text": "epoch"}, "zeroline": False},
            "yaxis": {"title": {"text": material.metric}},
            "shapes": lines,
        },
        height_px=460,
        numbers=_numbers(material, trials, rungs),
        note=joined(
            (
                f"Dotted lines: after epoch {', '.join(map(str, rungs[:-1]))} {what}." if rungs[1:] else "",
                f"Epochs are numbered through: each of {len(fold_ends)} folds has {fold_ends[0]}." if fold_ends else "",
                f"{count(len(trials) - len(drawn), 'curve')} between those shown left out."
                if len(drawn) < len(trials)
                else "",
            )
        ),
    )


def find_rungs(material: Material) -> list[int]:
    """The epochs at which the pruner stops trials and, last, that at which training ends; none without rungs. With
    folds their ends are among them."""
    min_epochs, max_epochs = material.setting("min_epochs"), material.setting("max_epochs")
    factor = material.setting("reduction_factor", low=2)
    if material.settings.get("pruner") not in ("halving", "hyperband") or not (min_epochs and max_epochs and factor):
        return _fold_ends(material)
    rungs = list_rungs(min_epochs, max_epochs, factor)
    return [*rungs, *_fold_ends(material)] if _fold_ends(material) else [*rungs, max_epochs]


def _fold_ends(material: Material) -> list[int]:
    """The epochs, numbered through, at which folds end."""
    folds, max_epochs = read_folds(material.settings), material.setting("max_epochs")
    return [fold * max_epochs for fold in range(1, folds + 1)] if folds and max_epochs else []


def _names(rungs: Sequence[int]) -> list[str]:
    """What the groups are called, those of the longest trials first."""
    if not rungs:
        return ["all"]
    steps = [f"epoch {a}" if b == a + 1 else f"epochs {a} to {b - 1}" for a, b in pairwise(rungs)]
    return [f"epoch {rungs[-1]}, the end", *reversed(steps), f"before epoch {rungs[0]}"]


def _lines(trials: Sequence[FrozenTrial], *, name: str) -> dict[str, Any]:
    x: list[int | None] = []
    y: list[float | None] = []
    numbers: list[int] = []
    for trial in trials:
        epochs = thin(sorted(trial.intermediate_values), limit=_MAX_EPOCHS)
        x += [*epochs, None]
        y += [*(number(trial.intermediate_values[epoch]) for epoch in epochs), None]
        numbers += [trial.number] * (len(epochs) + 1)
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "customdata": numbers}


def _ends(trials: Sequence[FrozenTrial], *, name: str) -> dict[str, Any]:
    last = [max(trial.intermediate_values) for trial in trials]
    values = [number(trial.intermediate_values[epoch]) for trial, epoch in zip(trials, last, strict=True)]
    numbers = [trial.number for trial in trials]
    return {"type": "scatter", "mode": "markers", "name": name, "x": last, "y": values, "customdata": numbers}


def _numbers(material: Material, trials: Sequence[FrozenTrial], rungs: Sequence[int]) -> Numbers:
    ends = max(max(trial.intermediate_values) for trial in trials)
    rows = []
    for epoch in sorted({*rungs, ends}):
        values = [trial.intermediate_values[epoch] for trial in trials if epoch in trial.intermediate_values]
        if values:
            best = max(values) if material.is_more_better else min(values)
            rows.append((str(epoch), f"{len(values):,}", f"{best:.4f}", f"{statistics.median(values):.4f}"))
    header = ("epoch", "trials that reached it", f"best {material.metric}", "median")
    return Numbers(caption="Values at the rungs and at the last epoch", header=header, rows=rows)

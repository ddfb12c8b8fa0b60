"""One trial, or two beside each other, as text for a terminal. Neither Ray nor torch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich import filesize
from rich.text import Text

from fmnist_models.errors import printable
from search.records.results import format_value
from search.review.text_curve import plot
from search.review.text_table import text_table
from search.review.trial_detail import TrialDetail, differing

_MAX_EPOCHS = 50  # lines of a table
_WIDTH = 100


def describe_trial(trial: TrialDetail) -> Text:
    """Its state, parameters, curve, files and log."""
    text = Text()
    _add(text, f"trial {trial.number} of {trial.experiment} on {trial.dataset}: {trial.state}", "bold")
    if trial.reason is not None:
        _add(text, f"{trial.reason}: {trial.message}", "red")
    _add(text, _describe_values(trial))
    for line in (trial.repeats and f"a repetition: {trial.repeats}", trial.confirmed):
        if line is not None:
            _add(text, line)
    _add(text, _describe_time(trial), "dim")
    _add(text, "\nparameters", "bold")
    width = max(map(len, map(printable, trial.parameters)), default=0)
    for name, value in trial.parameters.items():
        _add(text, f"  {printable(name):{width}}  {value}")
    curves = {trial.metric: trial.curve, **({"on training images": trial.training} if trial.training else {})}
    if trial.mean_curve is None or trial.fold_values is None:
        _add_plot(text, trial.metric, curves)
    else:
        _add_folds(text, trial.metric, trial.mean_curve, trial.fold_values)
        _add_plot(text, f"{trial.metric}, fold after fold,", curves)
    _add(text, "\nfiles", "bold")
    for file in trial.files:
        _add(text, f"  {file.path}  {file.what}, {filesize.decimal(file.size_bytes)}")
    if not trial.files:
        _add(text, "  none: after a search only the best trials have weights", "dim")
    if trial.log is not None:
        _add(text, "\nthe end of its log", "bold")
        _add(text, trial.log)
    text.right_crop()
    return text


def describe_difference(a: TrialDetail, b: TrialDetail) -> Text:
    """What differs between two trials of one experiment."""
    text = Text()
    _add(text, f"trials {a.number} and {b.number} of {a.experiment} on {a.dataset}", "bold")
    for trial in (a, b):
        _add(text, f"trial {trial.number}, {trial.state}: {_describe_values(trial)}; {_describe_time(trial)}")
    differences = differing(a.parameters, b.parameters)
    num_same = len({*a.parameters, *b.parameters}) - len(differences)
    _add(text, f"\nparameters that differ ({num_same} are the same)", "bold")
    rows = [[name, *map(_as_cell, pair)] for name, pair in differences.items()]
    if rows:
        _add_table(text, ["", f"trial {a.number}", f"trial {b.number}"], rows, left=(0, 1))
    else:
        _add(text, "none", "dim")
    _add_plot(text, a.metric, {f"trial {a.number}": a.curve, f"trial {b.number}": b.curve})
    epochs = sorted({*a.curve, *b.curve})
    if epochs:
        shown = epochs[-_MAX_EPOCHS:]
        rows = [[str(epoch), *_compare(a.curve.get(epoch), b.curve.get(epoch))] for epoch in shown]
        _add(text, "" if len(shown) == len(epochs) else f"\nthe last {len(shown)} of {len(epochs)} epochs", "dim")
        _add_table(text, ["epoch", f"trial {a.number}", f"trial {b.number}", "difference"], rows, left=())
    text.right_crop()
    return text


def _add(text: Text, line: str, style: str = "") -> None:
    text.append(f"{printable(line)}\n", style)


def _add_table(text: Text, header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> None:
    text.append(text_table(header, rows, left=left, styles=[""] * len(rows), width=_WIDTH))
    text.append("\n")


def _add_plot(text: Text, metric: str, curves: Mapping[str, Mapping[int, float]]) -> None:
    lines = plot(curves)
    if lines:
        _add(text, f"\n{metric} by epoch", "bold")
        for line in lines:
            _add(text, line)


def _add_folds(text: Text, metric: str, mean: Mapping[int, float], values: Sequence[float]) -> None:
    if not values:
        _add(text, "\nno fold is complete", "bold")
        return
    _add_plot(text, f"mean {metric} over {len(values)} folds", {"mean": mean})
    _add(text, f"\n{metric} of each fold at the best epoch of their mean", "bold")
    for fold, value in enumerate(values, start=1):
        _add(text, f"  {fold:>2}  {value:.4f}")
    if len(values) > 1:
        _add(text, f"  standard deviation {statistics.stdev(values):.4f}")


def _describe_values(trial: TrialDetail) -> str:
    if trial.value is None or trial.last_value is None:
        return "no epoch has been finished"
    if trial.fold_values:
        many = "mean of the first fold" if len(trial.fold_values) == 1 else f"mean of {len(trial.fold_values)} folds"
        best = f"{trial.metric} {trial.value:.4f} at its best, in epoch {trial.best_epoch}, as the {many}"
        return f"{best}; {trial.last_epoch} epochs trained"
    best = f"{trial.metric} {trial.value:.4f} at its best, in epoch {trial.best_epoch}"
    return f"{best}; {trial.last_value:.4f} after the last one, {trial.last_epoch}"


def _describe_time(trial: TrialDetail) -> str:
    began = f"began {trial.started}" if trial.started is not None else "has not begun"
    took = "" if trial.duration_s is None else f", took {trial.duration_s:.1f} s"
    return began + took + ("" if trial.device is None else f", trained on {trial.device}")


def _as_cell(value: Any) -> str:
    return "-" if value is None else format_value(value)


def _compare(a: float | None, b: float | None) -> list[str]:
    shown = ["" if value is None else f"{value:.4f}" for value in (a, b)]
    return [*shown, "" if a is None or b is None else f"{b - a:+.4f}"]

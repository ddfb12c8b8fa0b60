"""Comparisons and importances as text for a terminal. Neither Ray nor torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from fmnist_models.errors import printable
from search.records.occupancy import TIME_MEANS
from search.records.results import format_value
from search.review.comparison import Comparison, Pair, Side
from search.review.importance import BY_LUCK, NOISE, Importance, Importances
from search.review.text_table import text_table

_LEVEL = 0.05
_MAX_CELL = 80  # characters
_BAR = 20  # characters for all of the variance


def describe_comparison(comparison: Comparison, *, width: int) -> Text:
    """Tables with a column an experiment, and a line a pair."""
    sides, text = comparison.sides, Text()
    names = [side.name for side in sides]
    if len(set(names)) < len(names):
        names = [side.location for side in sides]
    _add_columns(text, names, _rows(sides), width)
    _add(text, TIME_MEANS, "dim")
    for title, values in (("settings", comparison.settings), ("parameters of the best trials", comparison.parameters)):
        _add(text, f"\n{title} that differ" if values else f"\n{title}: no difference", "bold")
        if values:
            _add_columns(text, names, [[key, *map(_as_cell, of_sides)] for key, of_sides in values.items()], width)
    _add(text, "\non the same test images (McNemar's test)", "bold")
    for pair in comparison.pairs:
        _add(text, f"{names[pair.first]} and {names[pair.second]}: {_judge(pair, names)}")
    num_tests = sum(pair.test is not None for pair in comparison.pairs)
    if num_tests > 1:
        _add(text, f"of {num_tests} tests one may well come out below {_LEVEL:g} by luck alone", "dim")
    text.right_crop()
    return text


def describe_importances(found: Importances, *, width: int) -> Text:
    """A row a parameter."""
    text = Text()
    _add(text, f"{found.experiment} on {found.dataset}: what mattered for {found.metric} (fANOVA)", "bold")
    rows = [_importance_row(parameter) for parameter in found.parameters]
    styles = ["dim" if p.measured is None or p.is_noise else "" for p in found.parameters]
    header = ["parameter", "share", "95 % interval", "by luck", "", "among"]
    text.append(text_table(header, rows, left=(0, 4), styles=styles, width=width))
    if found.cannot_vary:
        _add(text, f"\nnot ranked, because the space allows only one value: {', '.join(found.cannot_vary)}", "dim")
    some = "" if found.num_trials == found.num_complete else f", spread evenly over all {found.num_complete:,}"
    _add(
        text,
        f"\nfrom {found.num_trials:,} complete trials{some}; share: of the variance of {found.metric} that single "
        f"parameters explain; {BY_LUCK}",
        "dim",
    )
    if any(parameter.where is not None for parameter in found.parameters):
        _add(text, "a parameter that only some trials have is ranked among these trials, with separate shares", "dim")
    text.right_crop()
    return text


def _describe_processor(side: Side) -> str:
    hours = side.cost.processor_core_hours
    return "-" if hours is None else f"{hours:.3g}"


def _importance_row(one: Importance) -> list[str]:
    among = f"{one.num_trials:,} trials{'' if one.where is None else f': {one.where}'}"
    measured = one.measured
    if measured is None:
        return [one.name, "", "", "", one.reason or "", among]
    interval = f"{measured.low:.0%} to {measured.high:.0%}"
    told = NOISE if measured.is_noise else "#" * round(measured.share * _BAR)
    return [one.name, f"{measured.share:.0%}", interval, f"{measured.shuffled:.0%}", told, among]


def _rows(sides: Sequence[Side]) -> list[list[str]]:
    tests = [side.test for side in sides]
    return [
        ["dataset", *(side.dataset for side in sides)],
        ["best", *("" if s.best_value is None else f"{s.best_value:.4f} {s.metric}" for s in sides)],
        ["of trial", *(_as_cell(side.best_trial) for side in sides)],
        ["trials", *(_describe_states(side.trials) for side in sides)],
        ["time", *(_as_duration(side.search_s) for side in sides)],
        ["slots idle", *("-" if side.idle_share is None else f"{side.idle_share:.0%}" for side in sides)],
        ["core-hours (wall clock)", *(f"{side.cost.core_hours:.3g}" for side in sides)],
        ["core-hours (CPU time)", *map(_describe_processor, sides)],
        ["trials an hour", *("-" if s.trials_per_hour is None else f"{s.trials_per_hour:.4g}" for s in sides)],
        ["test accuracy", *("not tested" if t is None else f"{t.accuracy:.2%} of {t.num_images:,}" for t in tests)],
        ["of trial", *("" if test is None else str(test.trial) for test in tests)],
        ["95 % interval", *("" if t is None else f"{t.accuracy_low:.2%} to {t.accuracy_high:.2%}" for t in tests)],
        ["test looks", *("unknown" if s.num_test_looks is None else str(s.num_test_looks) for s in sides)],
    ]


def _judge(pair: Pair, names: Sequence[str]) -> str:
    test = pair.test
    if test is None:
        return f"cannot be tested: {pair.refused}"
    first, second = names[pair.first], names[pair.second]
    counts = f"{test.only_first:,} images right for {first} alone, {test.only_second:,} for {second} alone"
    verdict = "the difference is more than luck" if test.p_value < _LEVEL else "the difference may well be luck"
    return f"{verdict}: p = {test.p_value:.3g} ({counts}; {test.method})"


def _describe_states(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in states.items()) or "none"


def _as_duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _as_cell(value: Any) -> str:
    return "-" if value is None else format_value(value)[:_MAX_CELL]


def _add_columns(text: Text, names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> None:
    left = range(len(names) + 1)
    text.append(text_table(["", *names], rows, left=left, styles=[""] * len(rows), width=width))
    text.append("\n")


def _add(text: Text, line: str, style: str = "") -> None:
    text.append(f"{printable(line)}\n", style)

"""What the folds of a cross-validation came to: in two sentences, and as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from search.errors import ExperimentError
from search.records.cross_validation import (
    CrossValidation,
    Estimate,
    describe_estimates,
    describe_limits,
    read_cross_validation,
)
from search.records.record import STATE_NAMES
from search.report.items import Item, Missing, Numbers, Section
from search.report.material import Material
from search.report.wording import count, dataset, duration, parameters, text

_MAX_CLASSES = 100
_MAX_METRICS = 20


def read_result(material: Material) -> CrossValidation | str:
    """What was saved of it, or why there is nothing."""
    try:
        found = read_cross_validation(material.experiment)
    except ExperimentError as error:
        return str(error)
    return "Its folds have not been trained and judged to the end." if found is None else found


def describe_folds(material: Material) -> tuple[str, str]:
    """What was trained and what it came to."""
    states = Counter(STATE_NAMES[trial.state] for trial in material.trials)
    seconds = material.occupancy.search_s
    took = f" in {duration(seconds)}" if seconds else ""
    told = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    trained = f"This cross-validation trained one configuration on {dataset(material.dataset)}{took}, in folds: {told}."
    found = read_result(material)
    if isinstance(found, str):
        return trained, f"{found} So there is no result yet."
    accuracy = found.metrics.get("accuracy")
    if accuracy is None:
        return trained, f"It is of {parameters(found.hyperparameters)}."
    of = "" if found.of_trial is None else f", of trial {found.of_trial} of {text(found.source)}"
    return trained, (
        f"With {parameters(found.hyperparameters)}{of} it got {accuracy.mean:.1%} right in the mean over "
        f"{count(found.num_folds, 'fold')} of {count(found.num_epochs, 'epoch')} (95 % interval {accuracy.low:.1%} to "
        f"{accuracy.high:.1%}), each of images that it had not been trained on."
    )


def tabulate_estimates(found: CrossValidation | str) -> Section:
    """Means, deviations and intervals, of the whole and of each class."""
    title = "Cross-validation"
    if isinstance(found, str):
        return Section(key="folds", title=title, items=[Missing(title="Result", reason=found)])
    items: list[Item] = [_table("Over folds", "metric", dict(list(found.metrics.items())[:_MAX_METRICS]))]
    metrics = dict.fromkeys(metric for estimates in found.classes.values() for metric in estimates)
    for metric in list(metrics)[:_MAX_METRICS]:
        of_classes = [(name, one[metric]) for name, one in found.classes.items() if metric in one][:_MAX_CLASSES]
        items.append(_table(f"{text(metric).capitalize()} of each class", "class", dict(of_classes)))
    limits = describe_limits(found)
    return Section(key="folds", title=title, lead=f"{limits[0].upper()}{limits[1:]}.", items=items)


def _table(caption: str, first: str, estimates: Mapping[str, Estimate]) -> Numbers:
    rows = [(text(name), *cells) for name, *cells in describe_estimates(estimates)]
    header = (first, "mean ± standard deviation", "95 % interval")
    return Numbers(caption=caption, header=header, rows=rows, folded=False)

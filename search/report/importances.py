"""Which hyperparameters mattered: Optuna's fANOVA (Hutter et al. 2014), over the trials that share them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from search.report.items import Chart, Missing, Numbers, joined, thin
from search.report.wording import count, label, text

_MODEL = "model"
_MIN_TRIALS = 4
_MAX_TRIALS = 300  # fANOVA takes minutes of thousands
_MAX_PARAMETERS = 30
_NUM_TREES, _MAX_DEPTH = 32, 6
_MAX_MODELS = 4
_TITLE = "Importances"


@dataclass(frozen=True)
class Importances:
    """Parameter → its share (0…1) of the values' variance, the largest first, over ``num_trials`` trials.

    ``among``: which trials, as a person reads it.
    """

    among: str
    num_trials: int
    shares: dict[str, float]


def importances(trials: Sequence[FrozenTrial]) -> list[Importances]:
    """Of the complete trials: of all of them, and of each network's, whose own parameters they then have too.

    fANOVA compares trials with the same parameters, and networks have some of their own.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    models = list(dict.fromkeys(str(trial.params.get(_MODEL)) for trial in complete))
    groups = {"all complete trials": complete}
    if len(models) > 1:
        for model in models[:_MAX_MODELS]:
            groups[f"{_MODEL}={model}"] = [trial for trial in complete if str(trial.params.get(_MODEL)) == model]
    found = []
    for among, group in groups.items():
        shares = _evaluate(group)
        if shares:
            found.append(Importances(among, len(group), shares))
    return found


def chart_importances(found: Sequence[Importances]) -> list[Chart | Missing]:
    """A bar chart for each group of trials."""
    if not found:
        reason = f"fANOVA needs {_MIN_TRIALS} complete trials of one network whose values and parameters differ."
        return [Missing(title=_TITLE, reason=reason)]
    return [_chart(one, position) for position, one in enumerate(found)]


def ranked(found: Sequence[Importances]) -> list[str]:
    """All parameters that an importance is known of, the most important first."""
    largest: dict[str, float] = {}
    for one in found:
        for name, share in one.shares.items():
            largest[name] = max(share, largest.get(name, 0.0))
    return sorted(largest, key=lambda name: (-largest[name], name))


def _evaluate(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    import optuna

    some = thin(trials, limit=_MAX_TRIALS)
    if len(some) < _MIN_TRIALS:
        return {}
    shared = [
        name
        for name in some[0].params
        if all(trial.distributions.get(name) == some[0].distributions[name] for trial in some)
        and len({trial.params[name] for trial in some}) > 1
    ][:_MAX_PARAMETERS]
    if not shared or len({trial.value for trial in some}) == 1:
        return {}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler())
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_NUM_TREES, max_depth=_MAX_DEPTH, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about values of any size
        try:
            study.add_trials(some)
            return dict(optuna.importance.get_param_importances(study, evaluator=evaluator, params=shared))
        except (ValueError, RuntimeError, ArithmeticError):  # values so large that their squares are none
            return {}


def _chart(one: Importances, position: int) -> Chart:
    names = list(one.shares)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [round(share, 4) for share in one.shares.values()],
        "y": list(range(len(names))),
        "text": [f"{share:.0%}" for share in one.shares.values()],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "--complete"},
        "hovertemplate": "%{x:.1%}<extra></extra>",
    }
    largest = max(one.shares.values())
    return Chart(
        key=f"importances-{position}",
        title=f"{_TITLE}: {text(one.among)}",
        description="Share of the variance of the values: "
        + ", ".join(f"{text(name)} {share:.0%}" for name, share in one.shares.items())
        + ".",
        traces=[bars],
        layout={
            "xaxis": {"title": {"text": "share of the variance"}, "tickformat": ".0%", "range": [0, largest * 1.15]},
            "yaxis": {
                "tickvals": list(range(len(names))),
                "ticktext": [label(name) for name in names],
                "autorange": "reversed",
            },
        },
        height_px=110 + 28 * len(names),
        numbers=Numbers(
            caption="Importances",
            header=("parameter", "share of the variance"),
            rows=[(text(name), f"{share:.1%}") for name, share in one.shares.items()],
        ),
        note=joined(
            (
                f"Optuna's fANOVA over {count(one.num_trials, 'complete trial')}"
                + (f", {_MAX_TRIALS} of them evenly chosen." if one.num_trials > _MAX_TRIALS else "."),
                "With so few it is a hint at most." if one.num_trials < 30 else "",
            )
        ),
    )

"""Which hyperparameters mattered: Optuna's fANOVA on the trials of an experiment. Neither Ray nor torch."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.record import list_trials
from search.records.results import format_value, read_settings

MIN_TRIALS = 10
"""Complete trials; a forest that was grown on fewer finds importance in noise."""
_MAX_TRIALS = 500  # of which the forest is grown, evenly spread over the search; more take minutes
_SEED = 0
_MAX_SHOWN = 3  # values in a description


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much one parameter mattered.

    ``share``: of the variance of the trials' values that single parameters explain, 0…1; those of all parameters that
    the same trials have add up to 1. ``None`` if it cannot be told; ``reason`` says why. ``num_trials``: complete
    trials that it rests on. ``where``: what those have in common, if they are not all.
    """

    name: str
    share: float | None
    num_trials: int
    where: str | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Importances:
    """``num_trials``: of the ``num_complete`` complete ones, those that all rests on. ``parameters``: those that all
    trials have first, the most important of each group before the others."""

    experiment: str
    dataset: str
    metric: str
    num_complete: int
    num_trials: int
    parameters: Sequence[Importance]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**dataclasses.asdict(self), "method": "fANOVA", "seed": _SEED}


def measure_importances(experiment: Experiment) -> Importances:
    """The importances among an experiment's trials, as `importances_among` has them.

    Raises:
        ExperimentError: as `importances_among`; or the study is damaged.
        ConfigError: the configuration is missing or not YAML.
    """
    settings = read_settings(experiment)
    return importances_among(
        list_trials(experiment), experiment=experiment.name, dataset=settings["dataset"], metric=settings["metric"]
    )


def importances_among(trials: Sequence[FrozenTrial], *, experiment: str, dataset: str, metric: str) -> Importances:
    """The importance of every parameter that was drawn; each stage of a network is one of its own.

    Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014. It knows
    nothing of parameters that only some trials have: those are judged among the trials that have them, beside the
    parameters that these have in common. Only complete trials count: the others' values are of fewer epochs.

    ``experiment``: its name, and ``dataset``: for the result and for messages.

    Raises:
        ExperimentError: there are too few complete trials, or all have the same value; or Optuna cannot tell.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < MIN_TRIALS:
        raise ExperimentError(
            f"{experiment} has {len(complete)} complete trials; importances need {MIN_TRIALS} or more "
            "(pruned ones have trained for fewer epochs and do not count)"
        )
    if len({trial.value for trial in complete}) == 1:
        raise ExperimentError(f"all complete trials of {experiment} have the same {metric}: nothing mattered")
    used = complete[:: -(-len(complete) // _MAX_TRIALS)]
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in dict.fromkeys(name for trial in used for name in trial.params):
        groups.setdefault(tuple(trial.number for trial in used if name in trial.params), []).append(name)
    by_number = {trial.number: trial for trial in used}
    found: list[Importance] = []
    for numbers, names in sorted(groups.items(), key=lambda group: -len(group[0])):
        having = [by_number[number] for number in numbers]
        found += _measure_group(names, having, used, metric, experiment)
    return Importances(
        experiment=experiment,
        dataset=dataset,
        metric=metric,
        num_complete=len(complete),
        num_trials=len(used),
        parameters=found,
    )


def _measure_group(
    names: Sequence[str],
    having: Sequence[FrozenTrial],
    all_: Sequence[FrozenTrial],
    metric: str,
    experiment: str,
) -> list[Importance]:
    where = None if len(having) == len(all_) else _describe(having, all_)
    shares: Mapping[str, float] = {}
    reason = None
    if len(having) < MIN_TRIALS:
        reason = f"fewer than {MIN_TRIALS} complete trials have it"
    elif len({trial.value for trial in having}) == 1:
        reason = "all trials that have it have the same value"
    else:
        shares = _evaluate(having, metric, experiment)
    measured = [
        Importance(
            name=name,
            share=shares.get(name),
            num_trials=len(having),
            where=where,
            reason=reason if name in shares or reason else "its range is not the same in all trials",
        )
        for name in names
    ]
    return sorted(measured, key=lambda importance: -(importance.share or 0))


def _evaluate(trials: Sequence[FrozenTrial], metric: str, name: str) -> Mapping[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, about values of any size
            study = optuna.create_study(direction=DIRECTIONS[metric])
            study.add_trials(trials)
            shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=_SEED))
    except Exception as error:  # a crafted study makes Optuna raise anything
        raise ExperimentError(f"the importances of {name} cannot be told: {repr(error)[:300]}") from error
    if not all(math.isfinite(share) for share in shares.values()):
        raise ExperimentError(f"the importances of {name} cannot be told: its values are too large")
    return {parameter: float(share) for parameter, share in shares.items()}


def _describe(having: Sequence[FrozenTrial], all_: Sequence[FrozenTrial]) -> str:
    """What sets the trials apart: values of one parameter that they alone have, or that they have these parameters."""
    numbers = {trial.number for trial in having}
    others = [trial for trial in all_ if trial.number not in numbers]
    for name in having[0].params:
        if all(name in trial.params for trial in all_):
            values = dict.fromkeys(format_value(trial.params[name]) for trial in having)
            if len(values) <= _MAX_SHOWN and not {format_value(trial.params[name]) for trial in others} & values.keys():
                return f"{name}={'|'.join(values)}"
    return "those that have it"

"""Which hyperparameters mattered: fANOVA on the trials of an experiment, compared with shuffled values. Neither Ray
nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.numbers import is_same_value
from search.records.record import list_trials
from search.records.results import format_value, read_settings
from search.review.asked import describe_condition
from search.review.fanova import Share, explain, place_evenly

MIN_TRIALS = 10
"""Complete trials; with fewer, no share is distinguishable from noise."""
NOISE = "not distinguishable from noise"
BY_LUCK = "by luck: 95th percentile of the share when the parameter's values are shuffled"
_MAX_TRIALS = 500  # of which forests are grown, evenly spread over the search; more take too long
_SEED = 0
_MAX_SHOWN = 3  # values in a description


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much one parameter mattered.

    ``measured``: its share of what single parameters explain, which of all parameters that the same trials have add up
    to 1; ``None`` if it cannot be told, and ``reason`` says why. ``num_trials``: complete trials that it is based on.
    ``where``: the condition under which trials have it, if not all do.
    """

    name: str
    measured: Share | None
    num_trials: int
    where: str | None
    reason: str | None

    @property
    def share(self) -> float | None:
        return None if self.measured is None else self.measured.share

    @property
    def is_noise(self) -> bool:
        """Whether the share is not distinguishable from noise."""
        return self.measured is not None and self.measured.is_noise

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``low``, ``high`` and ``shuffled`` as in ``Share``."""
        unknown = dict.fromkeys(field.name for field in dataclasses.fields(Share))
        plain = dataclasses.asdict(self)
        measured = plain.pop("measured") or unknown
        return {"name": plain.pop("name"), **measured, "is_noise": self.is_noise, **plain}


@dataclass(frozen=True, kw_only=True)
class Importances:
    """``num_trials``: of the ``num_complete`` complete ones, those that shares are measured on. ``parameters``: first
    those that all trials have; in each group the most important first. ``cannot_vary``: the parameters that have a
    single value in this space, and so no importance."""

    experiment: str
    dataset: str
    metric: str
    num_complete: int
    num_trials: int
    parameters: Sequence[Importance]
    cannot_vary: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = dataclasses.asdict(self)
        plain["parameters"] = [one.to_dict() for one in self.parameters]
        return {**plain, "method": "fANOVA", "seed": _SEED}


def measure_importances(experiment: Experiment) -> Importances:
    """The importances among an experiment's trials, as `importances_among` has them.

    Raises:
        ExperimentError: as `importances_among`; or the study is damaged.
        ConfigError: the configuration is missing or not YAML.
    """
    settings = read_settings(experiment)
    return importances_among(
        list_trials(experiment),
        experiment=experiment.name,
        dataset=settings["dataset"],
        metric=settings["metric"],
        space=settings["space"],
    )


def importances_among(
    trials: Sequence[FrozenTrial], *, experiment: str, dataset: str, metric: str, space: Mapping[str, Any]
) -> Importances:
    """The importance of every parameter that can vary; each stage of a network is one of its own.

    A parameter that only some trials have is judged among the trials that have it, beside the parameters that these
    have in common. Only complete trials count: the others' values are of fewer epochs. See ``search.review.fanova``.

    ``experiment``: its name, and ``dataset``: for the result and for messages. ``space``: as in a configuration.

    Raises:
        ExperimentError: no parameter can vary, there are too few complete trials, all have the same value, or their
            values cannot be compared.
    """
    cannot_vary = _find_single(trials)
    drawn = dict.fromkeys(name for trial in trials for name in trial.params)
    if trials and len(cannot_vary) == len(drawn):
        raise ExperimentError(f"every hyperparameter of {experiment} has a single value, so there are no importances")
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
    for name in dict.fromkeys(name for trial in used for name in trial.params if name not in cannot_vary):
        groups.setdefault(tuple(trial.number for trial in used if name in trial.params), []).append(name)
    by_number = {trial.number: trial for trial in used}
    found: list[Importance] = []
    for numbers, names in sorted(groups.items(), key=lambda group: -len(group[0])):
        having = [by_number[number] for number in numbers]
        where = {name: _describe(name, having, used, space) for name in names}
        found += _measure_group(where, having, experiment)
    return Importances(
        experiment=experiment,
        dataset=dataset,
        metric=metric,
        num_complete=len(complete),
        num_trials=len(used),
        parameters=found,
        cannot_vary=cannot_vary,
    )


def _find_single(trials: Sequence[FrozenTrial]) -> list[str]:
    """The parameters that all trials drew from one and the same distribution, which has a single value."""
    kinds: dict[str, BaseDistribution | None] = {}
    for trial in trials:
        for name, kind in trial.distributions.items():
            if kinds.setdefault(name, kind) != kind:
                kinds[name] = None
    return [name for name, kind in kinds.items() if kind is not None and kind.single()]


def _measure_group(where: Mapping[str, str | None], having: Sequence[FrozenTrial], experiment: str) -> list[Importance]:
    """The parameters of ``where``, which the same trials have, in the order of their importance."""
    reasons = {name: _why_not(name, having) for name in having[0].params}
    comparable = [name for name, reason in reasons.items() if reason is None and all(name in t.params for t in having)]
    shares = _explain(comparable, having, experiment) if set(comparable) & where.keys() else {}
    measured = [
        Importance(name=name, measured=shares.get(name), num_trials=len(having), where=condition, reason=reasons[name])
        for name, condition in where.items()
    ]
    return sorted(measured, key=lambda importance: -(importance.share or 0))


def _why_not(name: str, having: Sequence[FrozenTrial]) -> str | None:
    """Why the importance of a parameter cannot be told among these trials; ``None`` if it can."""
    if len(having) < MIN_TRIALS:
        return f"fewer than {MIN_TRIALS} complete trials have it"
    if len({trial.value for trial in having}) == 1:
        return "all trials that have it have the same value"
    there = [trial for trial in having if name in trial.params]
    if any(trial.distributions[name] != there[0].distributions[name] for trial in there):
        return "its range is not the same in all trials"
    if all(is_same_value(trial.params[name], there[0].params[name]) for trial in there):
        return f"it is {format_value(there[0].params[name])} in all of these trials"
    return None


def _explain(names: Sequence[str], trials: Sequence[FrozenTrial], experiment: str) -> dict[str, Share]:
    import numpy as np

    try:
        columns = [place_evenly([t.params[name] for t in trials], trials[0].distributions[name]) for name in names]
        values = np.array([trial.value for trial in trials], dtype=np.float64)
        return dict(zip(names, explain(np.column_stack(columns), values, seed=_SEED), strict=True))
    except (ValueError, TypeError, OverflowError, FloatingPointError) as error:  # of a crafted study
        raise ExperimentError(f"the importances of {experiment} cannot be told: {repr(error)[:300]}") from error


def _describe(
    name: str, having: Sequence[FrozenTrial], all_: Sequence[FrozenTrial], space: Mapping[str, Any]
) -> str | None:
    """Under which condition trials have the parameter, as the space says; of a parameter that the space does not know,
    what sets its trials apart. ``None`` if all have it."""
    if len(having) == len(all_):
        return None
    return describe_condition(name, space) or _find_distinction(having, all_)


def _find_distinction(having: Sequence[FrozenTrial], all_: Sequence[FrozenTrial]) -> str:
    """Values of one parameter that these trials alone have, or that they have these parameters."""
    numbers = {trial.number for trial in having}
    others = [trial for trial in all_ if trial.number not in numbers]
    for name in having[0].params:
        if all(name in trial.params for trial in all_):
            values = dict.fromkeys(format_value(trial.params[name]) for trial in having)
            if len(values) <= _MAX_SHOWN and not {format_value(trial.params[name]) for trial in others} & values.keys():
                return f"{name}={'|'.join(values)}"
    return "those that have it"

"""Several experiments beside each other. Neither Ray nor torch, nor pandas unless there are test results."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from fmnist_models.classes import CLASS_NAMES
from fmnist_models.errors import UserError
from fmnist_models.mcnemar import McNemar, mcnemar
from search.errors import ExperimentError, SelectionError
from search.records.confirmation import find_winner_or_best
from search.records.cost import Cost, measure_cost, read_held
from search.records.experiment import Experiment
from search.records.looks import find_looks
from search.records.occupancy import Occupancy, read_occupancy
from search.records.record import STATE_NAMES, is_cross_validation, list_trials
from search.records.results import compact_parameters, read_settings
from search.review.trial_detail import differing

if TYPE_CHECKING:
    from search.records.predictions import Predictions


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How the trial that was the best when it was tested did on the test images; the interval is the 95 % one."""

    trial: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the experiments.

    ``search_s`` and ``idle_share``: as ``search.records.occupancy`` has them. ``parameters``: of the best trial, which
    is the winner if some were confirmed; ``best_value`` is the search's own. ``test``: ``None`` if there is no result;
    ``no_test`` says why. ``num_test_looks``: how often the test images were looked at, ``None`` if
    the log cannot be read; ``no_test_looks`` says why. ``is_cross_validation``: the
    trials are folds of one configuration, of which none is the best and none met the test images.
    """

    location: str
    name: str
    dataset: str
    metric: str
    best_value: float | None
    best_trial: int | None
    trials: Mapping[str, int]
    search_s: float
    idle_share: float | None
    cost: Cost
    trials_per_hour: float | None
    parameters: Mapping[str, Any]
    settings: Mapping[str, Any]
    test: Accuracy | None
    no_test: str | None
    num_test_looks: int | None
    no_test_looks: str | None
    is_cross_validation: bool


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two of the experiments, by their positions: whether their difference on the test images means anything.

    ``test``: ``None`` if that cannot be said; ``refused`` says why.
    """

    first: int
    second: int
    test: McNemar | None
    refused: str | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``settings`` and ``parameters``: those that are not the same everywhere, with one value a side."""

    sides: Sequence[Side]
    settings: Mapping[str, Sequence[Any]]
    parameters: Mapping[str, Sequence[Any]]
    pairs: Sequence[Pair]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = dataclasses.asdict(self)
        for side in plain["sides"]:
            del side["settings"]
        for pair in plain["pairs"]:
            pair["first"], pair["second"] = self.sides[pair["first"]].name, self.sides[pair["second"]].name
        return {"experiments": plain.pop("sides"), **plain}


def compare(experiments: Sequence[Experiment]) -> Comparison:
    """What the experiments have in common and where they differ.

    Raises:
        SelectionError: there are fewer than two, or one of them is named twice.
        ConfigError: a configuration is missing or not YAML.
        ExperimentError: a configuration or study is damaged.
    """
    locations = [experiment.location for experiment in experiments]
    if len(set(locations)) < max(2, len(locations)):
        raise SelectionError(f"two or more different experiments are needed, but got {', '.join(locations)}")
    sides = [_read_side(experiment) for experiment in experiments]
    return Comparison(
        sides=sides,
        settings=_differing([side.settings for side in sides]),
        parameters=_differing([side.parameters for side in sides]),
        pairs=_compare_pairs(experiments, sides),
    )


def _read_side(experiment: Experiment) -> Side:
    settings, trials = read_settings(experiment), list_trials(experiment)
    best = find_winner_or_best(experiment, settings, trials)
    occupancy = _read_occupancy(experiment, trials)
    search_s = occupancy.search_s
    cpus, gpus = read_held(settings)
    num_ended = sum(trial.state.is_finished() for trial in trials)
    are_folds = is_cross_validation(trials)
    test, no_test = (None, _never_tested(experiment)) if are_folds else _read_test(experiment)
    looks = find_looks(experiment)
    return Side(
        location=experiment.location,
        name=experiment.name,
        dataset=settings["dataset"],
        metric=settings["metric"],
        best_value=None if best is None else best.value,
        best_trial=None if best is None else best.number,
        trials=dict(Counter(STATE_NAMES[trial.state] for trial in trials)),
        search_s=search_s,
        idle_share=occupancy.idle_share,
        cost=measure_cost(experiment, cpus=cpus, gpus=gpus),
        trials_per_hour=num_ended / search_s * 3600 if search_s > 0 else None,
        parameters={} if best is None else compact_parameters(best.params),
        settings=_flatten(settings),
        test=test,
        no_test=no_test,
        num_test_looks=None if isinstance(looks, str) else len(looks),
        no_test_looks=looks if isinstance(looks, str) else None,
        is_cross_validation=are_folds,
    )


def _read_occupancy(experiment: Experiment, trials: Sequence[FrozenTrial]) -> Occupancy:
    try:
        return read_occupancy(experiment, trials)
    except OSError as error:
        raise ExperimentError(f"{experiment.lock} cannot be looked at: {error.strerror}") from error


def _flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Each dimension of the space as one value, and nothing that JSON does not have."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
        flat |= {str(name): _plain(part) for name, part in inner.items()}
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    is_plain = value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and isfinite(value))
    return value if is_plain else str(value)


def _differing(sides: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for side in sides for name in differing(sides[0], side))
    return {name: [side.get(name) for side in sides] for name in names}


def _read_test(experiment: Experiment) -> tuple[Accuracy | None, str | None]:
    from search.records.evaluation_file import read_evaluation

    try:
        told = read_evaluation(experiment.evaluation)
    except UserError as error:
        return None, str(error)
    if told is None:
        return None, f"{experiment.name} has not been tested; `fmnist evaluate {experiment.name}` does"
    names = ("accuracy", "accuracy_low", "accuracy_high", "num_images")
    return Accuracy(trial=told.trial, **{name: getattr(told.scores, name) for name in names}), None


def _compare_pairs(experiments: Sequence[Experiment], sides: Sequence[Side]) -> list[Pair]:
    read = [
        _never_tested(experiment) if side.is_cross_validation else _read_predictions(experiment)
        for experiment, side in zip(experiments, sides, strict=True)
    ]
    pairs = []
    for first, second in itertools.combinations(range(len(sides)), 2):
        a, b = read[first], read[second]
        test, refused = None, next((found for found in (a, b) if isinstance(found, str)), None)
        if not isinstance(a, str) and not isinstance(b, str):
            refused = _why_not(sides[first], sides[second], a, b)
            if refused is None:
                test = mcnemar(a.predicted == a.labels, b.predicted == b.labels)
        pairs.append(Pair(first=first, second=second, test=test, refused=refused))
    return pairs


def _never_tested(experiment: Experiment) -> str:
    return f"{experiment.name} is a cross-validation, whose folds never meet the test images"


def _read_predictions(experiment: Experiment) -> Predictions | str:
    """What was said of the test images, or why that is not known."""
    from search.records.predictions import read_predictions

    path = experiment.evaluation.predictions
    if not path.is_file():
        return f"{experiment.name} has no {path.name}; `fmnist evaluate {experiment.name}` writes it"
    try:
        return read_predictions(path, class_names=CLASS_NAMES)
    except (ExperimentError, UserError) as error:
        return str(error)


def _why_not(first: Side, second: Side, a: Predictions, b: Predictions) -> str | None:
    if first.dataset != second.dataset:
        return f"the test images differ: {first.dataset} and {second.dataset}"
    if len(a.labels) != len(b.labels):
        return f"the test images differ: {len(a.labels):,} and {len(b.labels):,} of {first.dataset}"
    if not (a.labels == b.labels).all():
        return "the test images differ: they are not of the same classes"
    return None

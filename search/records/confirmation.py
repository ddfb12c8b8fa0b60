"""Which trials of a search are confirmed, and what came of it. Neither Ray nor torch."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.seeds import derive_seed
from search.errors import ExperimentError
from search.records.experiment import CONFIRMATION, FINAL, Experiment
from search.records.fold_values import read_folds
from search.records.record import best_epoch, best_trial, best_trials, list_trials
from search.records.repetition import Repetition, by_key, list_lost, read_repetition

_CONFIRM, _FINAL = 0x636F6E66, 0x66696E61  # keep these seeds apart from each other, and from those of a search's trials
_MAX = 100
_DIGITS = 12  # of a mean after the decimal point


@dataclass(frozen=True, kw_only=True)
class ConfirmedTrial:
    """A trial, and what it came to with fresh seeds, in the search's metric at its ``num_epochs``-th epoch.

    ``values``: one a seed, without those that are still missing. ``num_failed`` of the seeds gave none. ``mean`` and
    ``deviation`` (of the sample, n - 1) are over ``values``; ``optimism`` is by how much the search's value was better
    than the mean, negative if it was worse: the luck of seed and epoch, not that of the validation images, which are
    the same.
    """

    trial: int
    search_value: float
    num_epochs: int
    values: tuple[float, ...]
    num_failed: int
    mean: float | None
    deviation: float | None
    optimism: float | None


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """``trials``, best first: those with a value from each of ``num_seeds`` seeds by their means, then the others as
    the search has them. ``winner``: the first one's number, once nothing is missing; ``None`` too if each failed.
    ``unbiased_mean``: what ``judge_choice`` says of the winner, whose own mean is likely too good as the best of
    several; ``None`` without a winner, if one seed had to choose and judge, or in a file of an older version.
    """

    metric: str
    num_seeds: int
    num_missing: int
    winner: int | None
    trials: tuple[ConfirmedTrial, ...]
    unbiased_mean: float | None = None

    @property
    def num_candidates(self) -> int:
        """Trials with a value from each seed, among which the winner was chosen."""
        return sum(len(one.values) == self.num_seeds for one in self.trials)

    def is_sound(self) -> bool:
        """Whether it is one that a search writes; a file may say anything."""
        counts = [self.num_seeds, self.num_missing, *(() if self.winner is None else (self.winner,))]
        counts += [count for one in self.trials for count in (one.trial, one.num_epochs, one.num_failed)]
        numbers = [one.search_value for one in self.trials] + [self.unbiased_mean or 0.0]
        numbers += [
            value for one in self.trials for value in (*one.values, one.mean, one.deviation, one.optimism) if value
        ]
        return (
            self.metric in DIRECTIONS
            and (self.winner is None or self.winner in [one.trial for one in self.trials[:1]])
            and all(0 <= count < 2**31 for count in counts)
            and all(math.isfinite(value) for value in numbers)
            and len(self.trials) <= _MAX
            and all(len(one.values) <= _MAX for one in self.trials)
        )


def read_confirm(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """How many trials a configuration, maybe a stranger's, wants confirmed, and with how many seeds."""
    section = settings.get("confirm")
    if not isinstance(section, Mapping):
        return None
    top, seeds = section.get("top"), section.get("seeds")
    is_sound = all(type(count) is int and 1 <= count <= _MAX for count in (top, seeds))
    return (top, seeds) if is_sound else None  # type: ignore[return-value]


def plan_confirmation(
    trials: Sequence[FrozenTrial], *, metric: str, top: int, num_seeds: int, seed: int
) -> list[Repetition]:
    """The best ``top`` complete trials, each with the same ``num_seeds`` seeds, none of which a trial has had.

    ``seed``: the search's.
    """
    used = {derive_seed(seed, trial.number) for trial in trials}
    seeds = _fresh_seeds(seed, num_seeds, used=used)
    return [
        Repetition(
            params=trial.params,
            distributions=trial.distributions,
            num_epochs=best_epoch(trial, metric) or 1,
            seed=fresh,
            of_trial=trial.number,
            replicate=replicate,
        )
        for replicate, fresh in enumerate(seeds, start=1)
        for trial in best_trials(trials, metric)[:top]
    ]


def plan_final(trial: FrozenTrial, *, num_epochs: int, seed: int, before: Sequence[FrozenTrial]) -> Repetition:
    """The training of a trial's configuration on all images; one more attempt, if those ``before`` have failed."""
    attempts = [one for one in before if _is_of(one, trial.number)]
    is_new = all(one.state == TrialState.FAIL for one in attempts)
    attempt = len(attempts) + 1 if is_new else len(attempts)
    return Repetition(
        params=trial.params,
        distributions=trial.distributions,
        num_epochs=num_epochs,
        seed=derive_seed(seed, attempt, _FINAL),
        of_trial=trial.number,
        replicate=attempt,
    )


def find_final(experiment: Experiment, number: int) -> FrozenTrial | None:
    """The complete training of a trial's configuration on all images, a trial of the experiment's part ``FINAL``."""
    final = experiment.part(FINAL)
    final.fetch()
    trials = list_trials(final) if final.exists() else []
    return next((one for one in trials if one.state == TrialState.COMPLETE and _is_of(one, number)), None)


def choose_winner(
    trials: Sequence[FrozenTrial], confirmation: Confirmation | None, *, metric: str, has_folds: bool
) -> tuple[int, float] | None:
    """The number of the trial that is to be trained on all images, and the value that it was chosen by: the confirmed
    winner, or in a search with folds that confirms nothing the best trial. ``None`` if there is none, or none yet."""
    if confirmation is not None:
        mean = confirmation.trials[0].mean
        return None if confirmation.winner is None or mean is None else (confirmation.winner, mean)
    best = best_trial(trials, metric) if has_folds else None
    return None if best is None or best.value is None else (best.number, best.value)


def winner_or_best(
    trials: Sequence[FrozenTrial], confirmation: Confirmation | None, *, metric: str
) -> FrozenTrial | None:
    """The confirmed winner, or else the complete trial with the best value; ``None`` if none is complete."""
    if confirmation is not None and confirmation.winner is not None:
        return trials[confirmation.winner]
    return best_trial(trials, metric)


def find_winner_or_best(
    experiment: Experiment, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]
) -> FrozenTrial | None:
    """``winner_or_best`` of an experiment's trials; a confirmation that cannot be read has confirmed none."""
    confirmation = None
    with contextlib.suppress(ExperimentError):
        confirmation = read_confirmation(experiment, settings, trials)
    return winner_or_best(trials, confirmation, metric=str(settings["metric"]))


def read_confirmation(
    experiment: Experiment, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]
) -> Confirmation | None:
    """What there is of the confirmation of the experiment's trials; ``None`` if it is not to be confirmed, or has no
    complete trial.

    Raises:
        ExperimentError: the study of the confirmation is damaged, or cannot be reached.
    """
    wanted, metric = read_confirm(settings), str(settings["metric"])
    if wanted is None:
        return None
    top, num_seeds = wanted
    best = best_trials(trials, metric)[:top]
    there = by_key(_list_repeated(experiment))
    found = [[there.get((trial.number, replicate, None)) for replicate in range(1, num_seeds + 1)] for trial in best]
    num_missing = sum(one is None or not one.state.is_finished() for ones in found for one in ones)
    confirmed = [_confirm(trial, ones, metric) for trial, ones in zip(best, found, strict=True)]
    whole = [one.values for one in confirmed if _is_whole(one, num_seeds)]
    confirmed.sort(key=lambda one: _loss(one.values, metric) if _is_whole(one, num_seeds) else math.inf)
    if not confirmed:
        return None
    has_won = not num_missing and _is_whole(confirmed[0], num_seeds)
    return Confirmation(
        metric=metric,
        num_seeds=num_seeds,
        num_missing=num_missing,
        winner=confirmed[0].trial if has_won else None,
        trials=tuple(confirmed),
        unbiased_mean=judge_choice(whole, metric=metric) if has_won else None,
    )


def judge_choice(values: Sequence[Sequence[float]], *, metric: str) -> float | None:
    """What the best of several trials is worth, by seeds that had no part in its choice: each seed in turn judges the
    trial that has the best mean over the other seeds, and the mean of these judgements is the estimate.

    The best mean itself is too good: the more so the more trials there are, the fewer seeds and the less trials differ.
    This is free of that but for a part of choosing by one seed fewer, which makes it a little too bad (Stone 1974,
    "Cross-Validatory Choice and Assessment of Statistical Predictions"; Varma and Simon 2006, "Bias in error estimation
    when using cross-validation for model selection"). The validation images are the same for all.

    Args:
        values: of each trial, one a seed, of the same seeds in the same order.

    Returns:
        The estimate; of one trial its mean; ``None`` if several trials have one seed, which cannot both choose and
        judge.
    """
    num_seeds = len(values[0])
    if len(values) == 1:
        return statistics.fmean(values[0])
    if num_seeds == 1:
        return None
    judged = []
    for seed in range(num_seeds):
        chosen = min(values, key=lambda one: _loss([*one[:seed], *one[seed + 1 :]], metric))
        judged.append(chosen[seed])
    return statistics.fmean(judged)


def is_settled(experiment: Experiment, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> bool:
    """Whether nothing is left to train of a confirmation, nor the winner on all images, once the search's ``trials``
    are at their end.

    Raises:
        ExperimentError: a study is damaged or cannot be reached.
    """
    confirmation = read_confirmation(experiment, settings, trials)
    if confirmation is not None and confirmation.num_missing:
        return False
    has_folds = read_folds(settings) is not None
    winner = choose_winner(trials, confirmation, metric=str(settings["metric"]), has_folds=has_folds)
    return winner is None or find_final(experiment, winner[0]) is not None


def has_lost(experiment: Experiment, settings: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> bool:
    """Whether a machine failed one of the repetitions of a confirmation, which the next run of the search tries again;
    this one ranks its trial behind the others.

    Raises:
        ExperimentError: the study of the confirmation is damaged, or cannot be reached.
    """
    wanted = read_confirm(settings)
    best = [] if wanted is None else best_trials(trials, str(settings["metric"]))[: wanted[0]]
    lost = list_lost(_list_repeated(experiment)) if best else set()
    return any(of_trial == trial.number for of_trial, _, _ in lost for trial in best)


def _list_repeated(experiment: Experiment) -> list[FrozenTrial]:
    part = experiment.part(CONFIRMATION)
    part.fetch()
    return list_trials(part) if part.exists() else []


def _confirm(trial: FrozenTrial, repeated: Sequence[FrozenTrial | None], metric: str) -> ConfirmedTrial:
    ended = [one for one in repeated if one is not None and one.state.is_finished()]
    values = tuple(one.value for one in ended if one.state == TrialState.COMPLETE and one.value is not None)
    mean = statistics.fmean(values) if values else None
    assert trial.value is not None
    sign = 1 if DIRECTIONS[metric] == "maximize" else -1
    return ConfirmedTrial(
        trial=trial.number,
        search_value=trial.value,
        num_epochs=best_epoch(trial, metric) or 1,
        values=values,
        num_failed=len(ended) - len(values),
        mean=mean,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        optimism=None if mean is None else sign * (trial.value - mean),
    )


def _loss(values: Sequence[float], metric: str) -> float:
    """The mean, so that less is better; rounded, so that no trial wins by the rounding of equal means."""
    return round((-1 if DIRECTIONS[metric] == "maximize" else 1) * statistics.fmean(values), _DIGITS)


def _is_whole(one: ConfirmedTrial, num_seeds: int) -> bool:
    return len(one.values) == num_seeds


def _is_of(trial: FrozenTrial, number: int) -> bool:
    repetition = read_repetition(trial)
    return repetition is not None and repetition.of_trial == number


def _fresh_seeds(seed: int, count: int, *, used: set[int]) -> list[int]:
    fresh: list[int] = []
    position = 0
    while len(fresh) < count:
        position += 1
        candidate = derive_seed(seed, position, _CONFIRM)
        if candidate not in used and candidate not in fresh:
            fresh.append(candidate)
    return fresh

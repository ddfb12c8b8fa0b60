"""What a sampler looks at is bounded, and follows from the trials alone."""

from __future__ import annotations

import random

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_models.epoch import DIRECTIONS
from search.study.horizon import Horizon

# Few values, so that ties are common; a trial is complete with a value, or pruned with those of some epochs.
ENDS = st.one_of(st.integers(0, 5), st.lists(st.integers(0, 3), max_size=3))


def make_trials(ends: list[int | list[int]]) -> list[FrozenTrial]:
    trials = []
    for number, end in enumerate(ends):
        if isinstance(end, int):
            trial = create_trial(state=TrialState.COMPLETE, value=float(end))
        else:
            trial = create_trial(state=TrialState.PRUNED, intermediate_values=dict(enumerate(map(float, end), start=1)))
        trial.number = number
        trials.append(trial)
    return trials


def look(trials: list[FrozenTrial], *, metric: str = "val_loss", num_best: int, num_others: int) -> list[int]:
    horizon = Horizon(metric, num_best=num_best, num_others=num_others)
    for trial in trials:
        horizon.add(trial)
    return [trial.number for trial in horizon.trials()]


@settings(max_examples=60, deadline=None)
@given(ends=st.lists(ENDS, max_size=40), order=st.randoms(use_true_random=False), others=st.integers(0, 10))
def test_it_is_the_same_in_whatever_order_trials_end(
    ends: list[int | list[int]], order: random.Random, others: int
) -> None:
    trials = make_trials(ends)
    shuffled = order.sample(trials, len(trials))
    seen = look(trials, num_best=4, num_others=others)
    assert look(shuffled, num_best=4, num_others=others) == seen == sorted(seen)
    assert len(seen) == min(len(trials), 4 + others)


@settings(max_examples=60, deadline=None)
@given(ends=st.lists(ENDS, max_size=40), metric=st.sampled_from(sorted(DIRECTIONS)))
def test_the_best_are_those_that_tpe_takes_for_good_ones(ends: list[int | list[int]], metric: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials = make_trials(ends)
    below, _ = _split_trials(optuna.create_study(direction=DIRECTIONS[metric]), trials, 4)
    assert look(trials, metric=metric, num_best=4, num_others=0) == [trial.number for trial in below]


def test_the_others_are_a_sample_of_all_times() -> None:
    trials = make_trials([0] * 10_000)
    seen = look(trials, num_best=25, num_others=475)
    assert len(seen) == 500
    for start in range(0, 10_000, 2000):
        assert 60 < sum(start <= number < start + 2000 for number in seen) < 140


@pytest.mark.parametrize("count", [0, 10, 500])
def test_up_to_its_size_it_holds_all(count: int) -> None:
    assert look(make_trials([number % 7 for number in range(count)]), num_best=25, num_others=475) == [*range(count)]

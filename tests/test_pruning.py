"""Pruners decide as Optuna's do, from values alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.pruners import MedianPruner as OptunaMedianPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_models.epoch import DIRECTIONS
from search.study.pruning import HalvingPruner, HyperbandPruner, MedianPruner, NoPruner, Pruner
from search.study.standings import Standings

MAX_EPOCHS = 9
# Few values, so that ties are common.
CURVES = st.lists(st.lists(st.integers(0, 6), min_size=MAX_EPOCHS, max_size=MAX_EPOCHS), min_size=2, max_size=12)
METRICS = st.sampled_from(sorted(DIRECTIONS))


def should_prune(pruner: Pruner, number: int, values: dict[int, float], others: Sequence[FrozenTrial]) -> bool:
    standings = Standings(pruner)
    for other in others:
        for epoch, value in other.intermediate_values.items():
            standings.epoch_ended(other.number, epoch, value)
        standings.trial_ended(other)
    return standings.should_prune(number, values)


def decide_both(
    curves: Sequence[Sequence[int]], order: Sequence[int], *, metric: str, ours: Pruner, theirs: BasePruner
) -> None:
    """Lets the trials report in turns, as ``order`` has it, and compares each decision."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=DIRECTIONS[metric], pruner=theirs)
    live = {trial.number: trial for trial in [study.ask() for _ in curves]}
    for turn in order:
        if not live:
            return
        number = sorted(live)[turn % len(live)]
        trial, known = live[number], study.trials[number].intermediate_values
        epoch = len(known) + 1
        value = float(curves[number][epoch - 1])
        if epoch == MAX_EPOCHS:
            trial.report(value, epoch)
            study.tell(live.pop(number), value)
            continue
        others = [other for other in study.trials if other.number != number]
        mine = should_prune(ours, number, {**known, epoch: value}, others)
        trial.report(value, epoch)
        assert mine == trial.should_prune(), (number, epoch)
        if mine:
            study.tell(live.pop(number), state=TrialState.PRUNED)


@settings(max_examples=60, deadline=None)
@given(curves=CURVES, order=st.lists(st.integers(0, 11), min_size=60, max_size=100), metric=METRICS, data=st.data())
def test_halving_decides_as_optunas(
    curves: list[list[int]], order: list[int], metric: str, data: st.DataObject
) -> None:
    first, factor = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 4))
    longer = 2 * MAX_EPOCHS  # so that no rung is in its second half
    ours = HalvingPruner(metric=metric, min_epochs=first, max_epochs=longer, reduction_factor=factor)
    theirs = SuccessiveHalvingPruner(min_resource=first, reduction_factor=factor)
    decide_both(curves, order, metric=metric, ours=ours, theirs=theirs)


@pytest.mark.parametrize(
    ("first", "last", "factor", "rungs"),
    [
        (3, 30, 3, [3, 9]),
        (1, 10, 3, [1, 3]),
        (1, 27, 3, [1, 3, 9]),
        (2, 3, 3, [2]),
        (4, 8, 2, [4]),
        (1, 8, 2, [1, 2, 4]),
    ],
)
def test_a_trial_that_has_come_past_half_of_its_epochs_meets_no_rung_but_the_first(
    first: int, last: int, factor: int, rungs: list[int]
) -> None:
    settings = {"metric": "val_accuracy", "min_epochs": first, "max_epochs": last, "reduction_factor": factor}
    halving, hyperband = HalvingPruner(**settings), HyperbandPruner(**settings)
    assert [epoch for epoch in range(1, last) if halving.field(0, epoch) is not None] == rungs
    fields = [hyperband.field(number, epoch) for number in range(200) for epoch in range(1, last)]
    assert {field[1] for field in fields if field is not None} == set(rungs)


@settings(max_examples=60, deadline=None)
@given(curves=CURVES, order=st.lists(st.integers(0, 11), min_size=60, max_size=100), metric=METRICS, data=st.data())
def test_median_decides_as_optunas(curves: list[list[int]], order: list[int], metric: str, data: st.DataObject) -> None:
    first = data.draw(st.integers(1, 4))
    ours, theirs = MedianPruner(metric=metric, min_epochs=first), OptunaMedianPruner(n_warmup_steps=first)
    decide_both(curves, order, metric=metric, ours=ours, theirs=theirs)


@pytest.mark.parametrize(("max_epochs", "factor", "shares"), [(9, 3, (9, 5, 3)), (30, 3, (27, 12, 6, 4)), (1, 2, (1,))])
def test_hyperband_deals_trials_to_brackets_in_the_papers_proportions(
    max_epochs: int, factor: int, shares: tuple[int, ...]
) -> None:
    pruner = HyperbandPruner(metric="val_accuracy", min_epochs=1, max_epochs=max_epochs, reduction_factor=factor)
    counts = Counter(pruner.bracket(number) for number in range(3000))
    assert sorted(counts) == list(range(len(shares)))
    for bracket, share in enumerate(shares):
        assert math.isclose(counts[bracket] / 3000, share / sum(shares), abs_tol=0.03)


def test_hyperband_compares_within_a_bracket_from_its_own_first_rung_on() -> None:
    pruner = HyperbandPruner(metric="val_accuracy", min_epochs=1, max_epochs=9, reduction_factor=3)
    early = [number for number in range(200) if pruner.bracket(number) == 0]
    late = [number for number in range(200) if pruner.bracket(number) == 1]
    strong = [create_trial(value=0.9, intermediate_values=dict.fromkeys(range(1, 10), 0.9)) for _ in range(200)]
    for number, trial in enumerate(strong):
        trial.number = number
    weak = {1: 0.1}
    assert should_prune(pruner, early[0], weak, [strong[n] for n in early[1:5]])
    assert not should_prune(pruner, early[0], weak, [strong[n] for n in late[:5]])
    assert not should_prune(pruner, late[0], weak, [strong[n] for n in late[1:5]])
    assert should_prune(pruner, late[0], dict.fromkeys((1, 2, 3), 0.1), [strong[n] for n in late[1:5]])


@settings(max_examples=60, deadline=None)
@given(curves=CURVES, window=st.integers(1, 5), metric=METRICS, data=st.data())
def test_in_a_window_a_trial_is_compared_with_those_before_it_alone(
    curves: list[list[int]], window: int, metric: str, data: st.DataObject
) -> None:
    pruner = data.draw(
        st.sampled_from(
            [
                HalvingPruner(metric=metric, min_epochs=1, max_epochs=MAX_EPOCHS, reduction_factor=2),
                HyperbandPruner(metric=metric, min_epochs=1, max_epochs=MAX_EPOCHS, reduction_factor=3),
                MedianPruner(metric=metric, min_epochs=1),
            ]
        )
    )
    trials = []
    for number, curve in enumerate(curves):
        epochs = dict(enumerate(map(float, curve[: data.draw(st.integers(1, MAX_EPOCHS))]), start=1))
        state = TrialState.COMPLETE if len(epochs) == MAX_EPOCHS else TrialState.PRUNED
        value = epochs[1] if state == TrialState.COMPLETE else None
        trials.append(create_trial(state=state, value=value, intermediate_values=epochs))
        trials[-1].number = number
    standings = Standings(pruner, window=window)
    for trial in data.draw(st.permutations(trials)):
        for epoch, value in trial.intermediate_values.items():
            standings.epoch_ended(trial.number, epoch, value)
        standings.trial_ended(trial)
    for number in range(len(trials)):
        for epoch in range(1, MAX_EPOCHS):
            values = {e: float(curves[number][e - 1]) for e in range(1, epoch + 1)}
            before = trials[: max(0, number + 1 - window)]
            assert standings.should_prune(number, values) == should_prune(pruner, number, values, before)


def test_without_a_pruner_everything_goes_on() -> None:
    best = create_trial(value=1.0, intermediate_values={1: 1.0})
    assert not should_prune(NoPruner(), 1, {1: 0.0}, [best] * 10)

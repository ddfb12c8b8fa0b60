"""Suggestions cost the same after any number of trials, and are the same whatever was interrupted."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from epochs import make_epoch
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.configuration.config import SearchConfig, parse_config
from search.records.record import Failure, Reason
from search.study.horizon import Horizon
from search.study.search_study import SearchStudy
from search.study.suggestions import Suggester

NUM_EPOCHS = 4
SPACE = {
    "model": {"choice": ["customnet", "resnet18"]},
    "lr": {"float": [1e-4, 1e-1], "log": True},
    "dropout": {"float": [0.0, 0.6], "step": 0.1},
    "unfreeze": {"subset": ["layer3", "layer4"]},
}


def make_config(**changes: Any) -> SearchConfig:
    raw = {"space": SPACE, "max_trials": 100_000, "max_epochs": NUM_EPOCHS}
    return parse_config(raw | changes, where="test")


def make_past(count: int) -> list[FrozenTrial]:
    """As many trials that have ended, one in three complete, and one in ten failed."""
    drawer, trials = Suggester(make_config(sampler="random"), window=1), []
    for number in range(count):
        drawn = drawer.suggest(number % 50)
        state = TrialState.FAIL if number % 10 == 9 else TrialState.PRUNED if number % 3 else TrialState.COMPLETE
        last = NUM_EPOCHS if state == TrialState.COMPLETE else 2
        values = dict.fromkeys(range(1, last + 1), number * 7 % 101 / 101)
        trials.append(
            create_trial(
                state=state,
                value=values[1] if state == TrialState.COMPLETE else None,
                params=drawn.params,
                distributions=drawn.distributions,
                intermediate_values=values,
            )
        )
    return trials


class CountingStorage(InMemoryStorage):
    """Counts how many trials it gave out, by what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.given: Counter[str] = Counter()

    def get_trial(self, trial_id: int) -> FrozenTrial:
        self.given["one"] += 1
        return super().get_trial(trial_id)

    def get_all_trials(self, *arguments: Any, **keywords: Any) -> list[FrozenTrial]:
        trials = super().get_all_trials(*arguments, **keywords)
        self.given["all"] += len(trials)
        return trials


def open_study(config: SearchConfig, past: Sequence[FrozenTrial]) -> SearchStudy:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=CountingStorage(), direction="maximize")
    study.add_trials(past)
    return SearchStudy(study, config)


def run_trials(study: SearchStudy, count: int, *, at_once: int = 3) -> list[int]:
    """Runs so many trials, ``at_once`` side by side; every eighth fails. Gives their numbers."""
    running: list[int] = []
    done: list[int] = []
    while len(done) < count:
        while len(running) < at_once and (assignment := study.next_assignment()) is not None:
            running.append(assignment.number)
        number = running.pop(0)
        epoch = len(study.trial(number).intermediate_values) + 1
        if number % 8 == 7:
            study.fail(number, Failure(Reason.DIVERGED, "nan"))
        elif not study.report(number, make_epoch(epoch, number * 7 % 101 / 101)).is_finished():
            running.append(number)
            continue
        done.append(number)
        assert not study.is_finished()
    return done


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median", "none"])
def test_a_trial_looks_up_as_much_in_a_long_study_as_in_a_short_one(pruner: str, deterministic: bool) -> None:
    config = make_config(pruner=pruner, sampler="random", deterministic=deterministic, max_concurrent_trials=3)
    past = make_past(1000)
    per_epoch = []
    for count in (50, 1000):
        study = open_study(config, past[:count])
        storage = study.study._storage
        assert isinstance(storage, CountingStorage)
        storage.given.clear()
        done = run_trials(study, 20)
        assert storage.given["all"] == 0, "a list of all trials"
        num_epochs = sum(len(study.trial(number).intermediate_values) for number in done)
        per_epoch.append(storage.given["one"] / (num_epochs + len(done)))
    assert per_epoch[1] == pytest.approx(per_epoch[0], rel=0.25)
    assert per_epoch[1] < 8


def test_tpe_looks_at_a_bounded_number_of_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    sample = TPESampler.sample_relative

    def sample_and_count(self: TPESampler, study: optuna.Study, *arguments: Any) -> dict[str, Any]:
        seen.append(len(study.get_trials(deepcopy=False)))
        return sample(self, study, *arguments)

    monkeypatch.setattr(TPESampler, "sample_relative", sample_and_count)
    past = make_past(2000)
    for count in (100, 2000):
        run_trials(open_study(make_config(), past[:count]), 2)
    num_failed = 10
    assert seen[0] == 100 - num_failed + 1, "itself and all that say something"
    assert seen[-1] == 500 + 2 + 1, "the horizon, those beside it, and itself"


def test_a_search_within_the_horizon_is_as_tpe_with_all_trials_would_have_it() -> None:
    found = []
    for horizon in (None, Horizon("val_accuracy", num_others=10**6)):
        study = optuna.create_study(direction="maximize")
        searched = SearchStudy(study, make_config(), horizon=horizon)
        run_trials(searched, 60, at_once=2)
        found.append([searched.trial(number).params for number in range(60)])
    assert found[0] == found[1]


@pytest.mark.parametrize("pruner", ["halving", "median"])
def test_beyond_the_horizon_a_repeatable_search_does_not_depend_on_stops_and_speed(pruner: str) -> None:
    """With a horizon of eight trials, so that sixty go far beyond it."""
    config = make_config(deterministic=True, max_concurrent_trials=3, max_trials=60, pruner=pruner)
    found = []
    for seed in range(3):
        order = random.Random(seed)
        study = optuna.create_study(direction="maximize")
        searched, running = _reopen(study, config), {}
        while True:
            while len(running) < 3 and (assignment := searched.next_assignment()) is not None:
                running[assignment.number] = assignment.hyperparameters
            if not running:
                break
            number = order.choice(sorted(running))
            epoch = len(searched.trial(number).intermediate_values) + 1
            value = 0.9 - abs(running[number]["lr"] - 0.01) - 0.2 / epoch
            if searched.report(number, make_epoch(epoch, value)).is_finished():
                del running[number]
            if seed and order.random() < 0.1:
                searched, running = _reopen(study, config), {}
        assert searched.is_finished()
        found.append([(t.state, t.params, t.intermediate_values) for t in study.get_trials()])
    assert found[0] == found[1] == found[2]
    assert {state for state, _, _ in found[0]} == {TrialState.COMPLETE, TrialState.PRUNED}


def _reopen(study: optuna.Study, config: SearchConfig) -> SearchStudy:
    return SearchStudy(study, config, horizon=Horizon(config.metric, num_best=3, num_others=5))

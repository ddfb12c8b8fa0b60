"""A study cut off at any moment and continued: nothing lost, doubled or decided otherwise; and repeatable searches."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from search.configuration.config import SearchConfig, parse_config
from search.records.experiment import Experiment
from search.records.fingerprint import fingerprint
from search.records.record import Failure, Reason, read_study
from search.study.search_study import SearchStudy

NUM_EPOCHS = 5
SPACE = {
    "model": {"choice": ["customnet", "resnet18"]},
    "lr": {"float": [1e-4, 1e-1], "log": True},
    "dropout": {"float": [0.0, 0.6], "step": 0.1},
    "unfreeze": {"subset": ["layer3", "layer4"]},
}
DIVERGED = Failure(Reason.DIVERGED, "epoch 2: train_loss nan")


def make_config(**changes: Any) -> SearchConfig:
    raw = {"space": SPACE, "max_trials": 16, "max_epochs": NUM_EPOCHS, "deterministic": True, **changes}
    return parse_config({"max_concurrent_trials": 3, **raw}, where="test")


def make_experiment(path: Path) -> Experiment:
    made = Experiment(path)
    made.create()
    return made


def accuracy(hyperparameters: dict[str, Any], epoch: int) -> float:
    """What a training would get: a function of what is trained and of the epoch."""
    dropout, lr = hyperparameters["dropout"], hyperparameters["lr"]
    return round(0.5 + 0.3 * dropout - abs(lr - 0.01) + 0.05 * epoch * (1 - dropout), 6)


def train(study: SearchStudy, *, seed: int, at_once: int = 3, stop_after: int | None = None) -> None:
    """Trains as slots do that are now fast, now slow: each step is one epoch of any running trial.

    Every seventh trial fails in its second epoch. ``stop_after``: steps after which everything stops.
    """
    order = random.Random(seed)
    running: dict[int, dict[str, Any]] = {}
    steps = 0
    while stop_after is None or steps < stop_after:
        while len(running) < at_once and (assignment := study.next_assignment()) is not None:
            running[assignment.number] = assignment.hyperparameters
        if not running:
            assert study.is_finished()
            return
        number = order.choice(sorted(running))
        epoch = len(study.trial(number).intermediate_values) + 1
        if number % 7 == 6 and epoch == 2:
            study.fail(number, DIVERGED)
        else:
            study.report(number, make_epoch(epoch, accuracy(running[number], epoch)))
        if not study.is_running(number):
            del running[number]
        steps += 1


def essence(trial: FrozenTrial) -> tuple[object, ...]:
    """All that a repeatable search repeats."""
    params = tuple(sorted(trial.params.items()))
    return trial.number, trial.state, params, trial.value, tuple(trial.intermediate_values.items())


def trials_of(experiment: Experiment) -> list[FrozenTrial]:
    return read_study(experiment).get_trials()


def table(experiment: Experiment) -> list[tuple[object, ...]]:
    return [essence(trial) for trial in trials_of(experiment)]


@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median", "none"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_deterministic_search_does_not_depend_on_which_slot_is_faster(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    config = make_config(sampler=sampler, pruner=pruner, max_trials=24)
    tables = []
    for seed in range(3):
        experiment = make_experiment(tmp_path / f"timing-{seed}")
        train(SearchStudy.open(experiment, config), seed=seed)
        tables.append(table(experiment))
    assert tables[0] == tables[1] == tables[2]
    if pruner != "none":
        assert TrialState.PRUNED in {trial[1] for trial in tables[0]}
    assert TrialState.COMPLETE in {trial[1] for trial in tables[0]}


def test_fewer_slots_than_the_window_give_the_same_search(tmp_path: Path) -> None:
    tables = []
    for slots in (1, 2, 3):
        experiment = make_experiment(tmp_path / str(slots))
        train(SearchStudy.open(experiment, make_config()), seed=0, at_once=slots)
        tables.append(table(experiment))
    assert tables[0] == tables[1] == tables[2]


def test_concurrency_and_seed_decide_a_deterministic_search(tmp_path: Path) -> None:
    tables = []
    for name, changes in (("a", {}), ("b", {"max_concurrent_trials": 1}), ("c", {"seed": 1})):
        experiment = make_experiment(tmp_path / name)
        train(SearchStudy.open(experiment, make_config(**changes)), seed=0)
        tables.append(table(experiment))
    assert len({str(rows) for rows in tables}) == 3


def test_a_fingerprint_tells_searches_apart_by_what_they_found_and_not_by_when(
    undisturbed: Experiment, tmp_path: Path
) -> None:
    again = make_experiment(tmp_path / "again")
    train(SearchStudy.open(again, make_config()), seed=5)
    assert fingerprint(trials_of(again)) == fingerprint(trials_of(undisturbed))
    text = again.journal.read_text()
    altered = re.sub(r'"intermediate_value":0\.\d+', '"intermediate_value":0.123', text, count=1)
    assert altered != text
    again.journal.write_text(altered)
    assert fingerprint(trials_of(again)) != fingerprint(trials_of(undisturbed))


def test_an_ordinary_search_does_depend_on_timing(tmp_path: Path) -> None:
    """Else the tests above would say nothing."""
    tables = []
    for seed in range(4):
        experiment = make_experiment(tmp_path / f"timing-{seed}")
        train(SearchStudy.open(experiment, make_config(deterministic=False)), seed=seed)
        tables.append(str(table(experiment)))
    assert len(set(tables)) > 1


def test_no_trial_comes_out_before_all_that_it_must_see_have_ended(tmp_path: Path) -> None:
    study = SearchStudy.open(make_experiment(tmp_path / "window"), make_config(pruner="none"))
    out = [study.next_assignment() for _ in range(4)]
    assert [a and a.number for a in out] == [0, 1, 2, None], "as many as the window is wide"
    assert not study.is_full()
    for number in (2, 1):
        for epoch in range(1, NUM_EPOCHS + 1):
            study.report(number, make_epoch(epoch, 0.5))
        assert study.next_assignment() is None, "trial 0 is still at work"
    for epoch in range(1, NUM_EPOCHS + 1):
        study.report(0, make_epoch(epoch, 0.5))
    out = [study.next_assignment() for _ in range(4)]
    assert [a and a.number for a in out] == [3, 4, 5, None]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    experiment = make_experiment(tmp_path_factory.mktemp("undisturbed") / "search")
    train(SearchStudy.open(experiment, make_config()), seed=0)
    return experiment


def test_a_journal_cut_anywhere_continues_to_the_same_search(undisturbed: Experiment, tmp_path: Path) -> None:
    """What a crash can leave is a journal that ends after any byte; here after any line and in the middle of it."""
    whole, lines = undisturbed.journal.read_bytes(), undisturbed.journal.read_bytes().splitlines(keepends=True)
    ends = [sum(map(len, lines[:count])) for count in range(1, len(lines) + 1)]
    for position, end in enumerate(ends[::4]):
        experiment = make_experiment(tmp_path / str(position))
        experiment.journal.write_bytes(whole[: end - position % 3])
        train(SearchStudy.open(experiment, make_config()), seed=position)
        assert table(experiment) == table(undisturbed), f"cut after {end} bytes"


@settings(max_examples=10, deadline=None)
@given(stops=st.lists(st.integers(0, 12), min_size=1, max_size=8))
def test_a_search_stopped_again_and_again_is_the_same_search(
    undisturbed: Experiment, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    experiment = make_experiment(tmp_path_factory.mktemp("stopped") / "search")
    for seed, steps in enumerate(stops):
        train(SearchStudy.open(experiment, make_config()), seed=seed, stop_after=steps)
    train(SearchStudy.open(experiment, make_config()), seed=99)
    assert table(experiment) == table(undisturbed)


def test_a_search_extended_later_is_the_same_as_one_asked_for_at_once(undisturbed: Experiment, tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "extended")
    for max_trials in (5, 11, 16):
        train(SearchStudy.open(experiment, make_config(max_trials=max_trials)), seed=max_trials)
    assert table(experiment) == table(undisturbed)


def cut_after(marker: str, lines: list[bytes]) -> bytes:
    last = max(position for position, line in enumerate(lines) if marker.encode() in line)
    return b"".join(lines[: last + 1])


@pytest.mark.parametrize(
    ("marker", "pruner", "state"),
    [('"pruned_after_epoch"', "halving", TrialState.PRUNED), ('"reason"', "none", TrialState.FAIL)],
)
def test_a_decision_taken_before_a_crash_is_carried_out_after_it(
    tmp_path: Path, marker: str, pruner: str, state: TrialState
) -> None:
    """The journal ends right after the decision was written and before the trial's end was."""
    first = make_experiment(tmp_path / "first")
    config = make_config(deterministic=False, pruner=pruner)
    train(SearchStudy.open(first, config), seed=0, at_once=1)
    second = make_experiment(tmp_path / "second")
    second.journal.write_bytes(cut_after(marker, first.journal.read_bytes().splitlines(keepends=True)))
    [cut] = [trial for trial in trials_of(second) if not trial.state.is_finished()]
    study = SearchStudy.open(second, config)
    train(study, seed=1, at_once=1)
    there, now = trials_of(first)[cut.number], trials_of(second)[cut.number]
    assert there.state == now.state == state
    assert essence(there) == essence(now)


def test_a_trial_is_recorded_with_all_its_parameters_at_once(undisturbed: Experiment, tmp_path: Path) -> None:
    lines = undisturbed.journal.read_bytes().splitlines(keepends=True)
    experiment = make_experiment(tmp_path / "cut")
    for count in range(2, len(lines)):
        experiment.journal.write_bytes(b"".join(lines[:count]))
        for trial in trials_of(experiment):
            assert make_config().space.suggest(trial)


def test_chosen_configurations_come_first_once_and_in_order(tmp_path: Path) -> None:
    experiment, config = make_experiment(tmp_path / "queue"), make_config(max_trials=4, pruner="none")
    chosen: list[dict[str, Any]] = [
        {"model": "customnet", "lr": 0.02, "dropout": 0.1},
        {"model": "resnet18", "unfreeze.layer3": True},
    ]
    for _ in range(2):  # the same command again
        study = SearchStudy.open(experiment, config)
        study.enqueue(chosen)
        train(study, seed=0, stop_after=3)
    train(SearchStudy.open(experiment, config), seed=0)
    trials = trials_of(experiment)
    assert len(trials) == 4
    for trial, params in zip(trials, chosen, strict=False):
        assert params.items() <= trial.params.items()
    assert [trial.user_attrs.get("enqueued") for trial in trials] == [0, 1, None, None]


def test_warm_trials_steer_the_sampler_and_are_not_in_the_study(undisturbed: Experiment, tmp_path: Path) -> None:
    finished = [t for t in trials_of(undisturbed) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    tables = []
    for name, warm in (("cold", []), ("warm", finished), ("warm-again", finished)):
        experiment = make_experiment(tmp_path / name)
        train(SearchStudy.open(experiment, make_config(seed=5), warm=warm), seed=len(tables))
        tables.append(table(experiment))
    assert tables[0] != tables[1]
    assert tables[1] == tables[2]
    assert all(len(rows) == 16 for rows in tables)

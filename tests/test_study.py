from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from optuna.trial import TrialState

from search.configuration.config import SearchConfig, parse_config
from search.errors import ExperimentError
from search.records.address import STUDY_STORAGE_VARIABLE
from search.records.experiment import Experiment
from search.records.record import MESSAGE, REASON, Failure, Reason, best_epoch, best_trial, read_study
from search.study.search_study import Assignment, SearchStudy

NUM_EPOCHS = 4
SPACE = {
    "model": {"choice": ["customnet", "resnet18"]},
    "lr": {"float": [1e-4, 1e-1], "log": True},
    "shift": {"int": [0, 14]},
    "dropout": {"float": [0.0, 0.6], "step": 0.1},
    "unfreeze": {"subset": ["layer3", "layer4"]},
}
FAILURE = Failure(Reason.MEMORY, "out of memory: 2 GiB asked")


def make_config(**changes: Any) -> SearchConfig:
    settings: dict[str, Any] = {"space": SPACE, "max_trials": 8, "max_epochs": NUM_EPOCHS, "pruner": "none"}
    settings["study_storage"] = os.environ.get(STUDY_STORAGE_VARIABLE)  # as the fixture study_storage has it
    return parse_config(settings | changes, where="test")


def value_of(accuracy: float, metric: str) -> float:
    return make_epoch(1, accuracy).metric(metric)


@pytest.fixture
def experiment(tmp_path: Path, study_storage: str | None) -> Experiment:
    made = Experiment(tmp_path / "first")
    made.create()
    return made


def next_of(study: SearchStudy) -> Assignment:
    assignment = study.next_assignment()
    assert assignment is not None
    return assignment


def report_all(study: SearchStudy, number: int, accuracies: Iterable[float], *, first: int = 1) -> TrialState:
    """Reports epochs with these accuracies until the trial ends or they do."""
    state = TrialState.RUNNING
    for epoch, accuracy in enumerate(accuracies, start=first):
        state = study.report(number, make_epoch(epoch, accuracy))
        if state.is_finished():
            break
    return state


def run_trial(study: SearchStudy, accuracies: Iterable[float]) -> tuple[Assignment, TrialState]:
    assignment = next_of(study)
    return assignment, report_all(study, assignment.number, accuracies)


def run_to_the_end(study: SearchStudy) -> list[Assignment]:
    """Runs every trial that is left, one at a time; some are better than others."""
    done = []
    while (assignment := study.next_assignment()) is not None:
        done.append(assignment)
        quality = (assignment.number * 7 % 10) / 20
        report_all(study, assignment.number, [quality + epoch / 100 for epoch in range(NUM_EPOCHS)])
    return done


def test_numbers_are_consecutive_and_a_full_study_hands_out_nothing(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(max_trials=3))
    assignments = [study.next_assignment() for _ in range(5)]
    assert [a and a.number for a in assignments] == [0, 1, 2, None, None]


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_after_all_epochs_a_trial_is_complete_with_its_best_epochs_value(experiment: Experiment, metric: str) -> None:
    study = SearchStudy.open(experiment, make_config(metric=metric))
    _, state = run_trial(study, [0.5, 0.75, 0.75, 0.25])
    [trial] = read_study(experiment).get_trials()
    assert state == trial.state == TrialState.COMPLETE
    assert trial.value == value_of(0.75, metric)
    assert best_epoch(trial, metric) == 2, "the earliest of equals"
    assert list(trial.intermediate_values) == [1, 2, 3, 4]


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_successive_halving_prunes_what_is_worse_and_keeps_its_epochs(experiment: Experiment, metric: str) -> None:
    study = SearchStudy.open(experiment, make_config(metric=metric, pruner="halving", min_epochs=2))
    assert run_trial(study, [0.5, 0.6, 0.7, 0.8])[1] == TrialState.COMPLETE
    for accuracies in ([0.45, 0.4], [0.35, 0.3]):
        assignment, state = run_trial(study, [*accuracies, 0.9, 0.9])
        trial = read_study(experiment).get_trials()[assignment.number]
        assert state == trial.state == TrialState.PRUNED
        assert trial.intermediate_values == {n: value_of(a, metric) for n, a in enumerate(accuracies, start=1)}
        assert trial.value == value_of(accuracies[-1], metric), "as Optuna has it: the last value, not the best"
        assert not study.is_running(assignment.number)
    assert run_trial(study, [0.6, 0.7, 0.8, 0.9])[1] == TrialState.COMPLETE, "a better one goes on"


def test_a_failed_trial_has_a_reason_and_a_message_and_no_value(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config())
    number = run_trial(study, [0.5])[0].number
    study.fail(number, FAILURE)
    [trial] = read_study(experiment).get_trials()
    assert (trial.state, trial.value) == (TrialState.FAIL, None)
    assert trial.user_attrs == {REASON: "memory", MESSAGE: FAILURE.message}
    assert trial.intermediate_values == {1: 0.5}
    assert not study.is_running(number)


def test_a_trial_that_goes_on_elsewhere_has_both_devices(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config())
    assignment = study.next_assignment()
    assert assignment is not None
    for epoch, device in enumerate(("cpu", "cpu", "NVIDIA H200", "cpu"), start=1):
        study.note_device(assignment.number, device)
        study.report(assignment.number, make_epoch(epoch, 0.5))
    assert study.trial(0).user_attrs["device"] == "cpu, then NVIDIA H200"


def test_a_trial_that_fails_at_once_has_its_device(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config())
    assignment = study.next_assignment()
    assert assignment is not None
    study.note_device(assignment.number, "cpu")
    study.fail(assignment.number, FAILURE)
    assert study.trial(0).user_attrs["device"] == "cpu"


def test_failing_an_ended_trial_changes_nothing(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config())
    run_trial(study, [0.5] * NUM_EPOCHS)
    study.fail(0, FAILURE)
    [trial] = read_study(experiment).get_trials()
    assert (trial.state, trial.value, trial.user_attrs) == (TrialState.COMPLETE, 0.5, {})


@pytest.mark.parametrize("pruner", ["halving", "median"])
def test_an_epoch_told_twice_changes_nothing(experiment: Experiment, pruner: str) -> None:
    """A continued trial tells what its checkpoint holds again; the pruner must not judge the same epoch twice."""
    config = make_config(pruner=pruner, min_epochs=1, max_epochs=6)
    study = SearchStudy.open(experiment, config)
    number = run_trial(study, [0.1, 0.2])[0].number
    for _ in range(5):
        assert run_trial(study, [0.9] * 6)[1] == TrialState.COMPLETE
    continued = SearchStudy.open(experiment, config)
    assert next_of(continued).number == number
    assert report_all(continued, number, [0.3, 0.3]) == TrialState.RUNNING
    assert continued.trial(number).intermediate_values == {1: 0.1, 2: 0.2}
    assert continued.report(number, make_epoch(3, 0.1)) == TrialState.PRUNED, "a new epoch is judged"


def test_a_study_reopened_in_the_middle_hands_out_interrupted_trials_first(experiment: Experiment) -> None:
    config = make_config(max_trials=5)
    first = SearchStudy.open(experiment, config)
    run_trial(first, [0.5] * NUM_EPOCHS)
    interrupted = [run_trial(first, [0.6, 0.7])[0], next_of(first)]
    second = SearchStudy.open(experiment, config)
    assert not second.is_running(1), "nobody has taken it up yet"
    assert [next_of(second), next_of(second)] == interrupted
    assert report_all(second, 1, [0.8, 0.65], first=3) == TrialState.COMPLETE
    assert second.trial(1).value == 0.8
    assert [next_of(second).number, next_of(second).number] == [3, 4]
    assert second.next_assignment() is None


def test_a_larger_max_trials_extends_a_finished_study(experiment: Experiment) -> None:
    run_to_the_end(SearchStudy.open(experiment, make_config(max_trials=3)))
    assert SearchStudy.open(experiment, make_config(max_trials=3)).next_assignment() is None
    more = SearchStudy.open(experiment, make_config(max_trials=5))
    assert [assignment.number for assignment in run_to_the_end(more)] == [3, 4]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_continued_study_does_not_draw_its_first_suggestions_again(experiment: Experiment, sampler: str) -> None:
    before = run_to_the_end(SearchStudy.open(experiment, make_config(sampler=sampler, max_trials=4)))
    after = run_to_the_end(SearchStudy.open(experiment, make_config(sampler=sampler, max_trials=8)))
    rates = [assignment.hyperparameters["lr"] for assignment in [*before, *after]]
    assert len(set(rates)) == 8


def test_a_study_is_finished_once_it_is_full_and_nothing_in_it_runs(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(max_trials=2))
    finished = [study.is_finished()]
    run_trial(study, [0.5] * NUM_EPOCHS)
    finished.append(study.is_finished())
    number = next_of(study).number
    finished.append(study.is_finished())
    study.fail(number, FAILURE)
    assert finished == [False, False, False]
    assert study.is_finished()
    assert not SearchStudy.open(experiment, make_config(max_trials=3)).is_finished()


@pytest.mark.parametrize("study_storage", ["journal"], indirect=True)
@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median", "none"])
@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_every_sampler_goes_with_every_pruner(experiment: Experiment, sampler: str, pruner: str) -> None:
    """Twelve trials, as TPE draws its first ten at random."""
    study = SearchStudy.open(experiment, make_config(sampler=sampler, pruner=pruner, max_trials=12))
    run_to_the_end(study)
    states = [trial.state for trial in read_study(experiment).get_trials()]
    assert len(states) == 12
    assert TrialState.COMPLETE in states
    assert set(states) == {TrialState.COMPLETE} | ({TrialState.PRUNED} if pruner != "none" else set())
    assert study.is_finished()


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_seed_alone_decides_what_trials_one_at_a_time_are(tmp_path: Path, sampler: str) -> None:
    drawn = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made = Experiment(tmp_path / name)
        made.create()
        drawn.append(run_to_the_end(SearchStudy.open(made, make_config(sampler=sampler, seed=seed, max_trials=12))))
    assert drawn[0] == drawn[1]
    rates = [[assignment.hyperparameters["lr"] for assignment in assignments] for assignments in drawn]
    assert not set(rates[0]) & set(rates[2])


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_the_best_trial_is_complete_and_the_first_of_equals(experiment: Experiment, metric: str) -> None:
    study = SearchStudy.open(experiment, make_config(metric=metric, pruner="halving", min_epochs=2))
    study.fail(run_trial(study, [0.99])[0].number, FAILURE)
    assert best_trial(study.study.get_trials(), metric) is None
    equals = [run_trial(study, values)[1] for values in ([0.5, 0.6, 0.7, 0.6], [0.6, 0.6, 0.7, 0.5])]
    study.fail(run_trial(study, [0.9, 0.95])[0].number, FAILURE)
    assert [*equals, run_trial(study, [0.8, 0.9])[1]] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    best = best_trial(study.study.get_trials(), metric)
    assert best is not None
    assert (best.number, best.value) == (1, value_of(0.7, metric))


def test_an_experiment_can_be_renamed_and_then_read_and_continued(experiment: Experiment, tmp_path: Path) -> None:
    before = run_to_the_end(SearchStudy.open(experiment, make_config(max_trials=2)))
    moved = Experiment(tmp_path / "elsewhere" / "second")
    moved.path.parent.mkdir()
    experiment.path.rename(moved.path)
    trials = read_study(moved).get_trials()
    assert [make_config().space.suggest(trial) for trial in trials] == [a.hyperparameters for a in before]
    after = run_to_the_end(SearchStudy.open(moved, make_config(max_trials=3)))
    assert [assignment.number for assignment in after] == [2]
    assert len(read_study(moved).get_trials()) == 3


@pytest.mark.parametrize("content", ["", "torn", "this is\nno journal\n"], ids=["empty", "torn", "text"])
def test_a_journal_without_a_study_is_refused_by_its_name(tmp_path: Path, content: str) -> None:
    journal = tmp_path / "study.journal"
    journal.write_text(content)
    with pytest.raises(ExperimentError, match=r"study\.journal"):
        read_study(Experiment(tmp_path))


def test_a_trial_given_back_comes_out_again_under_its_own_number(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(max_trials=2))
    assignments = [next_of(study), next_of(study)]
    assert not study.has_next()
    study.give_back(0)
    assert not study.is_running(0)
    assert study.has_next()
    assert next_of(study) == assignments[0]
    assert report_all(study, 0, [0.5] * NUM_EPOCHS) == TrialState.COMPLETE


def test_chosen_configurations_that_have_no_place_are_counted(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(max_trials=2))
    assert study.enqueue([{"lr": 0.01}, {"lr": 0.02}, {"lr": 0.03}]) == 1
    run_to_the_end(study)
    assert SearchStudy.open(experiment, make_config(max_trials=2)).enqueue([{"lr": 0.03}]) == 1
    assert SearchStudy.open(experiment, make_config(max_trials=3)).enqueue([]) == 0

"""Searches whose trials are means over folds: in the study alone, and on a real local Ray."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from optuna.trial import TrialState
from scripted_training import BAD, GOOD, DiesInSecondFold, ScriptedTraining

from cluster.session import local_ray
from fmnist_models.data import LabelledImages, load_images
from fmnist_models.errors import DataError
from fmnist_models.folds import FoldedImages
from fmnist_models.training import Training
from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError, ExperimentError
from search.records.epochs_file import parse_epochs
from search.records.experiment import FINAL, Experiment
from search.records.record import best_epoch, best_value, list_trials, read_study
from search.running.preparation import Prepared, prepare
from search.running.progress import SilentProgress
from search.running.slots import Resources, plan_slots
from search.study.search_study import SearchStudy
from search.workflows.evaluation import RULE_FOLDS, evaluate_and_save
from search.workflows.main_job import SearchResult, run_search
from search.workflows.replay import find_replayable, replay_trial

FOLDS, EPOCHS = 5, 2
CPUS = 2


def make_config(**changes: Any) -> SearchConfig:
    raw: dict[str, Any] = {
        "dataset": "synthetic",
        "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
        "max_trials": 12,
        "max_epochs": EPOCHS,
        "objective": {"folds": FOLDS},
    }
    return parse_config(raw | changes, where="test")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = Experiment(tmp_path / "folded")
    made.create()
    return made


def run_trial(study: SearchStudy, accuracies: Sequence[float]) -> int:
    """Reports epochs with these accuracies, or until the trial ends."""
    assignment = study.next_assignment()
    assert assignment is not None
    for epoch, accuracy in enumerate(accuracies, start=1):
        if study.report(assignment.number, make_epoch(epoch, accuracy)).is_finished():
            break
    return assignment.number


def level(value: float) -> list[float]:
    """Every fold the same, but for a little, and the first epoch worse than the second."""
    return [value + fold / 1000 + (0.0 if epoch else -0.1) for fold in range(FOLDS) for epoch in range(EPOCHS)]


def test_after_the_last_fold_a_trial_is_complete_with_the_best_mean(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(pruner="none"))
    run_trial(study, [0.9, 0.5, 0.1, 0.6, 0.5, 0.7, 0.5, 0.6, 0.5, 0.6])
    [trial] = list_trials(experiment)
    assert trial.state == TrialState.COMPLETE
    assert trial.value == pytest.approx(0.6)
    assert (best_epoch(trial, "val_accuracy"), len(trial.intermediate_values)) == (2, FOLDS * EPOCHS)


def test_a_hopeless_one_dies_after_the_first_folds_with_its_folds_recorded(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(pruner="median"))
    run_trial(study, level(0.8))
    run_trial(study, level(0.5))
    run_trial(study, level(0.9))
    trials = list_trials(experiment)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert len(trials[1].intermediate_values) == 4 * EPOCHS
    assert best_value(trials[1], "val_accuracy") == pytest.approx(0.5 + 0.0015)


def test_in_the_first_fold_the_configured_pruner_ends_it_at_its_rungs(experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(pruner="halving", reduction_factor=2))
    for value in (0.8, 0.5, 0.4):
        run_trial(study, level(value))
    trials = list_trials(experiment)
    assert [len(trial.intermediate_values) for trial in trials] == [FOLDS * EPOCHS, 1, 1]


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_a_study_reopened_between_any_two_epochs_goes_on_as_if_nothing_had_been(
    count: int, experiment: Experiment, tmp_path: Path
) -> None:
    """The eighth epoch is that after which the fourth fold condemns it."""
    states = []
    for made, pause in ((experiment, count), (Experiment(tmp_path / "straight"), 0)):
        made.create()
        study = SearchStudy.open(made, make_config(pruner="median"))
        run_trial(study, level(0.8))
        if pause:
            run_trial(study, level(0.5)[:pause])
            study = SearchStudy.open(made, make_config(pruner="median"))
        run_trial(study, level(0.5) if pause < 8 else level(0.7))
        trials = list_trials(made)
        states.append([(trial.state, trial.intermediate_values) for trial in trials[:2]])
    assert states[0] == states[1]


def test_in_a_repeatable_search_a_fold_is_compared_with_what_the_window_shows(experiment: Experiment) -> None:
    config = make_config(pruner="median", deterministic=True, max_concurrent_trials=2)
    study = SearchStudy.open(experiment, config)
    first, second = study.next_assignment(), study.next_assignment()
    assert first is not None
    assert second is not None
    for number, value in ((second.number, 0.9), (first.number, 0.5)):
        for epoch, accuracy in enumerate(level(value), start=1):
            study.report(number, make_epoch(epoch, accuracy))
    run_trial(study, level(0.6))  # trial 2 sees trial 0 alone
    run_trial(study, level(0.6))  # trial 3 sees trial 1 too
    states = [trial.state for trial in list_trials(experiment)]
    assert states == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
@pytest.mark.parametrize("pruner", ["halving", "hyperband", "median", "none"])
def test_every_sampler_and_pruner_goes_with_folds(sampler: str, pruner: str, experiment: Experiment) -> None:
    study = SearchStudy.open(experiment, make_config(sampler=sampler, pruner=pruner, max_trials=14))
    while not study.is_finished():
        run_trial(study, level((len(study.study.trials) * 7 % 10) / 20))
    trials = read_study(experiment).get_trials()
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert TrialState.COMPLETE in {trial.state for trial in trials}


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"folds": 1}, r"objective\.folds: .*greater than or equal to 2"),
        ({"folds": 21}, r"objective\.folds: .*less than or equal to 20"),
        ({"folds": 5.0}, r"objective\.folds: .*integer"),
        ({"fold": 5}, r"unknown key 'objective\.fold'; valid: folds|objective\.folds is missing"),
        ({}, r"objective\.folds is missing"),
    ],
)
def test_what_is_no_number_of_folds_is_refused(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(objective=objective)


def test_a_class_with_fewer_images_than_folds_is_refused_before_anything_starts(fashion_mnist_root: Path) -> None:
    config = make_config(dataset="fashion-mnist", train_size=100, objective={"folds": 20})
    with pytest.raises(DataError, match="cannot be split into 20 folds"):
        prepare(config, data_root=fashion_mnist_root)


@pytest.mark.parametrize(
    ("folds", "pruner", "is_told"), [(4, "halving", True), (5, "halving", False), (4, "none", False)]
)
def test_too_few_folds_to_be_sure_of_anything_between_them_are_told(folds: int, pruner: str, is_told: bool) -> None:
    config = make_config(train_size=200, objective={"folds": folds}, pruner=pruner)
    prepared = prepare(config, data_root=Path("unused"))
    assert any("pruned in the first one alone" in note for note in prepared.notes) == is_told
    assert prepared.num_images == (200 - 200 // folds, 200 // folds)


# On Ray


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where Ray's processes find scripted_training
        with local_ray(num_cpus=CPUS, num_gpus=0):
            yield


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    return load_images("synthetic", "train", root=Path("unused"), size=200)


def run(
    experiment: Experiment,
    images: LabelledImages,
    *,
    enqueue: Sequence[float] = (),
    make_training: Callable[..., Any] = Training,
    **settings: Any,
) -> tuple[SearchResult, Prepared]:
    config = make_config(train_size=len(images), test_size=100, **settings)
    prepared = Prepared(config, FoldedImages(images, config.folds or 0, config.seed), {}, ())
    experiment.create()
    experiment.config.write_text(config.to_yaml())
    study = SearchStudy.open(experiment, config)
    study.enqueue([{"lr": course} for course in enqueue])
    slots = plan_slots(config, [Resources(CPUS, 0)])
    options: dict[str, Any] = {"progress": SilentProgress(), "data_root": Path("unused")}
    result = run_search(experiment, prepared, slots, study=study, make_training=make_training, **options)
    return result, prepared


def table(experiment: Experiment, number: int) -> list[tuple[Any, ...]]:
    """A trial's epochs without wall times."""
    text = experiment.trial(number).epochs.read_text()
    return [dataclasses.astuple(dataclasses.replace(epoch, epoch_s=0.0)) for epoch in parse_epochs(text)]


@dataclass(frozen=True)
class FoldedSearch:
    experiment: Experiment
    prepared: Prepared
    result: SearchResult


@pytest.fixture(scope="module")
def finished(local_cluster: None, images: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> FoldedSearch:
    experiment = Experiment(tmp_path_factory.mktemp("searches") / "finished")
    result, prepared = run(experiment, images, max_trials=2, objective={"folds": 3}, pruner="none")
    return FoldedSearch(experiment, prepared, result)


@pytest.mark.timeout(300)
def test_a_search_ends_with_a_tested_model_of_all_images(finished: FoldedSearch) -> None:
    experiment, evaluation = finished.experiment, finished.result.evaluation
    trials = list_trials(experiment)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    best = max(trials, key=lambda trial: (trial.value or 0, -trial.number))
    assert evaluation is not None
    assert (evaluation.trial, evaluation.value, evaluation.rule) == (best.number, best.value, RULE_FOLDS)
    [final] = list_trials(experiment.part(FINAL))
    assert len(final.intermediate_values) == best_epoch(best, "val_accuracy") == evaluation.epoch
    assert experiment.best_weights.is_file()


def test_a_trials_epochs_say_their_fold_and_none_of_its_models_is_kept(finished: FoldedSearch) -> None:
    for number in (0, 1):
        files = finished.experiment.trial(number)
        assert [row[0] for row in table(finished.experiment, number)] == list(range(1, 3 * EPOCHS + 1))
        header, *lines = files.epochs.read_text().splitlines()
        assert header.endswith(",dataset,fold")
        assert [line.rpartition(",")[2] for line in lines] == ["1", "1", "2", "2", "3", "3"]
        assert not files.best.exists()
        assert not files.last.exists()
    with pytest.raises(ExperimentError, match="is a mean over folds and has no model of its own"):
        evaluate_and_save(
            finished.experiment, finished.prepared.config, 0, data_root=Path("unused"), data=finished.prepared.data
        )


@pytest.mark.timeout(300)
def test_a_trial_trained_again_gets_the_same_curve_in_all_folds(finished: FoldedSearch) -> None:
    slots = plan_slots(finished.prepared.config, [Resources(CPUS, 0)])
    recorded = find_replayable(finished.experiment, 0)
    replay = replay_trial(finished.experiment, recorded, finished.prepared, slots)
    assert replay.is_same
    assert len(replay.epochs) == 3 * EPOCHS


@pytest.mark.timeout(300)
def test_killed_in_the_second_fold_a_trial_goes_on_to_the_same_curve(
    finished: FoldedSearch, images: LabelledImages, experiment: Experiment
) -> None:
    mark = experiment.path.with_name("mark")
    make_training = functools.partial(DiesInSecondFold, mark=mark)
    run(experiment, images, make_training=make_training, max_trials=1, objective={"folds": 3}, pruner="none")
    assert mark.exists()
    assert table(experiment, 0) == table(finished.experiment, 0)


@pytest.mark.timeout(300)
def test_a_hopeless_configuration_trains_no_fold_more_than_shows_it(
    local_cluster: None, images: LabelledImages, experiment: Experiment
) -> None:
    make_training = functools.partial(ScriptedTraining, diary=experiment.path.with_name("diary"))
    run_options: dict[str, Any] = {"max_trials": 2, "max_concurrent_trials": 1, "pruner": "median"}
    with pytest.raises(ExperimentError):  # a scripted model is none that can be tested
        run(experiment, images, enqueue=[GOOD, BAD], make_training=make_training, **run_options)
    good, bad = list_trials(experiment)
    assert (good.state, bad.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert sorted(bad.intermediate_values) == list(range(1, 4 * EPOCHS + 1))
    assert [row[0] for row in table(experiment, bad.number)] == sorted(bad.intermediate_values)
    assert not experiment.trial(bad.number).last.exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_workers_train_folds_as_one(local_cluster: None, images: LabelledImages, experiment: Experiment) -> None:
    settings: dict[str, Any] = {"objective": {"folds": 2}, "workers_per_trial": 2, "precision": "fp32"}
    result, _ = run(experiment, images, max_trials=1, pruner="none", **settings)
    [trial] = list_trials(experiment)
    assert trial.state == TrialState.COMPLETE
    assert [row[0] for row in table(experiment, 0)] == list(range(1, 2 * EPOCHS + 1))
    assert result.evaluation is not None


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_best_means_are_confirmed_with_fresh_seeds_in_the_same_folds(
    local_cluster: None, images: LabelledImages, experiment: Experiment
) -> None:
    settings: dict[str, Any] = {"objective": {"folds": 2}, "pruner": "none", "confirm": {"top": 2, "seeds": 2}}
    result, _ = run(experiment, images, max_trials=2, **settings)
    assert result.evaluation is not None
    assert result.evaluation.confirmation is not None
    repeated = list_trials(experiment.part("confirmation"))
    trials = list_trials(experiment)
    assert len(repeated) == 4
    for one in repeated:
        size = best_epoch(trials[one.user_attrs["of_trial"]], "val_accuracy")
        assert one.user_attrs["fold_epochs"] == size
        assert len(one.intermediate_values) == 2 * (size or 0)
        assert one.value == pytest.approx(sum(one.intermediate_values[f * (size or 0)] for f in (1, 2)) / 2)

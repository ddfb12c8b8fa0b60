"""Which trials are confirmed, with which seeds, and who wins: on real studies, without a cluster."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from made_experiment import FAILED, make_experiment
from optuna.trial import FrozenTrial, TrialState, create_trial

from fmnist_models.checkpoint import save_weights
from fmnist_models.data import LabelledImages, TrainingData, join_parts, measure_normalisation
from fmnist_models.epoch import DIRECTIONS
from fmnist_models.networks import build_network
from fmnist_models.seeds import derive_seed
from search.cli import main
from search.cli.running import describe_failures, describe_untested
from search.configuration.config import SearchConfig, parse_config
from search.errors import ConfigError, ExperimentError
from search.records.address import STUDY_STORAGE_VARIABLE, read_reference
from search.records.confirmation import (
    Confirmation,
    find_final,
    has_lost,
    is_settled,
    plan_confirmation,
    plan_final,
    read_confirmation,
)
from search.records.database import Access, open_database
from search.records.evaluation_file import Evaluation
from search.records.experiment import CONFIRMATION, FINAL, Experiment
from search.records.inventory import State, summarise
from search.records.lock import hold_experiment
from search.records.record import Failure, Reason, best_epoch, best_value, list_trials, open_study
from search.records.removal import remove_experiments
from search.records.repetition import Repetition, read_repetition
from search.records.results import compact_parameters
from search.report.material import read_material
from search.review.comparison import compare
from search.review.confirmation_text import describe_confirmation
from search.review.loaded import load_experiment
from search.running.continuation import begin_run, check_continuation
from search.running.preparation import Prepared, load_training_data
from search.running.runner import Outcome
from search.study.search_study import SearchStudy
from search.workflows.evaluation import RULE_CONFIRMED, RULE_UNCONFIRMED, evaluate_and_save
from search.workflows.repeating import are_trained, train_repetitions

CURVES = ([0.5, 0.9, 0.7], [0.6, 0.8, 0.88], [0.3, 0.4, 0.5], FAILED)  # values 0.9 in epoch 2, 0.88 in 3, 0.5 in 3
DIVERGES, LOST = -1.0, -2.0  # in place of a value
SEARCH = {
    "dataset": "synthetic",
    "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-2], "log": True}},
    "max_trials": len(CURVES),
    "max_epochs": 3,
    "pruner": "none",
    "confirm": {"top": 2, "seeds": 2},
}


def configure(**changes: Any) -> SearchConfig:
    return parse_config({**SEARCH, **changes}, where="test")


def make_search(path: Path, **changes: Any) -> Experiment:
    return make_experiment(path, configure(**changes), CURVES)


def plan(trials: Sequence[FrozenTrial], **changes: int) -> list[Repetition]:
    wanted = {"top": 2, "num_seeds": 2, "seed": 0, **changes}
    return plan_confirmation(trials, metric="val_accuracy", **wanted)


def repeat(experiment: Experiment, repetitions: Sequence[Repetition], values: Mapping[int, Sequence[float]]) -> None:
    """Trains them in the experiment: each reports what ``values`` has for its trial and replicate, 0 before its last
    epoch, or fails as a negative one says."""
    there = list_trials(experiment) if experiment.exists() else []
    size = len(there) + len(repetitions)
    config = configure(confirm=None, max_trials=size, sampler="random", pruner="none", keep_checkpoints=1)
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = open_study(experiment, study_storage=None, direction=DIRECTIONS[config.metric])
        repeating = SearchStudy(study, config, repetitions=repetitions)
        while (assignment := repeating.next_assignment()) is not None:
            repetition = read_repetition(repeating.trial(assignment.number))
            assert repetition is not None
            assert repetition.of_trial is not None
            assert (assignment.seed, assignment.num_epochs) == (repetition.seed, repetition.num_epochs)
            value = values[repetition.of_trial][(repetition.replicate or 1) - 1]
            if value < 0:
                reason = Reason.DIVERGED if value == DIVERGES else Reason.INFRASTRUCTURE
                repeating.fail(assignment.number, Failure(reason, "…"))
                continue
            for epoch in range(1, repetition.num_epochs + 1):
                is_last = epoch == repetition.num_epochs
                state = repeating.report(assignment.number, make_epoch(epoch, value if is_last else 0.99))
                assert state == (TrialState.COMPLETE if is_last else TrialState.RUNNING)


def confirm(experiment: Experiment, values: Mapping[int, Sequence[float]], **changes: Any) -> Confirmation:
    trials = list_trials(experiment)
    repeat(experiment.part(CONFIRMATION), plan(trials), values)
    found = read_confirmation(experiment, configure(**changes).model_dump(), trials)
    assert found is not None
    return found


def test_the_best_are_repeated_for_their_best_number_of_epochs_with_the_same_seeds(tmp_path: Path) -> None:
    wanted = plan(list_trials(make_search(tmp_path / "a")))
    assert [(one.of_trial, one.replicate, one.num_epochs) for one in wanted] == [
        (0, 1, 2),
        (1, 1, 3),
        (0, 2, 2),
        (1, 2, 3),
    ]
    seeds = [one.seed for one in wanted]
    assert seeds[0] == seeds[1] != seeds[2] == seeds[3]


def test_no_seed_of_the_search_is_used_again(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    trials = list_trials(experiment)
    fresh = {one.seed for one in plan(trials, num_seeds=50)}
    assert len(fresh) == 50
    assert not fresh & {derive_seed(0, number) for number in range(10_000)}
    assert fresh != {one.seed for one in plan(trials, num_seeds=50, seed=1)}
    assert plan_final(trials[0], num_epochs=2, seed=0, before=[]).seed not in fresh


def test_a_repetitions_last_epoch_counts_and_not_its_best(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, 0.8], 1: [0.8, 0.8]})
    first = list_trials(experiment.part(CONFIRMATION))[0]
    assert first.intermediate_values == {1: 0.99, 2: 0.7}
    assert (best_epoch(first, "val_accuracy"), best_value(first, "val_accuracy"), first.value) == (2, 0.7, 0.7)
    assert (first.state, first.params) == (TrialState.COMPLETE, list_trials(experiment)[0].params)


def test_a_lucky_seed_does_not_win(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    found = confirm(experiment, {0: [0.7, 0.8], 1: [0.88, 0.86]})
    assert found.winner == 1
    assert [one.trial for one in found.trials] == [1, 0]
    lucky = found.trials[1]
    assert (lucky.search_value, lucky.values, lucky.mean) == (0.9, (0.7, 0.8), pytest.approx(0.75))
    assert lucky.deviation == pytest.approx(0.0707, abs=1e-4)
    assert lucky.optimism == pytest.approx(0.15)
    assert found.trials[0].optimism == pytest.approx(0.01)


def test_for_a_loss_less_is_better_and_optimism_is_positive_where_the_search_looked_better(tmp_path: Path) -> None:
    config = configure(metric="val_loss", confirm={"top": 2, "seeds": 1})
    losses = ([0.5, 0.2, 0.3], [0.6, 0.5, 0.25])
    experiment = Experiment(tmp_path / "a")
    with hold_experiment(experiment):
        begin_run(experiment, config)
        study = SearchStudy.open(experiment, config)
        for curve in losses:
            assignment = study.next_assignment()
            assert assignment is not None
            for epoch, loss in enumerate(curve, start=1):
                study.report(assignment.number, dataclasses.replace(make_epoch(epoch, 0.5), val_loss=loss))
    trials = list_trials(experiment)
    wanted = plan_confirmation(trials, metric="val_loss", top=2, num_seeds=1, seed=0)
    part = experiment.part(CONFIRMATION)
    alone = config.model_copy(update={"confirm": None, "max_trials": 2})
    with hold_experiment(part):
        begin_run(part, alone)
        repeating = SearchStudy(open_study(part, study_storage=None, direction="minimize"), alone, repetitions=wanted)
        for loss in (0.4, 0.3):
            assignment = repeating.next_assignment()
            assert assignment is not None
            for epoch in range(1, (assignment.num_epochs or 0) + 1):
                repeating.report(assignment.number, dataclasses.replace(make_epoch(epoch, 0.5), val_loss=loss))
    found = read_confirmation(experiment, config.model_dump(), trials)
    assert found is not None
    assert (found.winner, [one.optimism for one in found.trials]) == (1, pytest.approx([0.05, 0.2]))


def test_a_configuration_that_fails_with_a_seed_cannot_win(tmp_path: Path) -> None:
    found = confirm(make_search(tmp_path / "a"), {0: [0.7, 0.7], 1: [0.99, DIVERGES]})
    assert found.winner == 0
    assert [(one.trial, one.num_failed) for one in found.trials] == [(0, 0), (1, 1)]


def test_what_its_machine_failed_is_left_to_train_and_the_new_attempt_counts(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    part, trials = experiment.part(CONFIRMATION), list_trials(experiment)
    found = confirm(experiment, {0: [0.7, 0.7], 1: [0.99, LOST]})
    assert (found.winner, found.num_missing) == (0, 0)
    assert has_lost(experiment, configure().model_dump(), trials)
    assert not are_trained(part, plan(trials))
    [lost] = [one for one in plan(trials) if (one.of_trial, one.replicate) == (1, 2)]
    repeat(part, [lost], {1: [0.0, 0.9]})
    again = read_confirmation(experiment, configure().model_dump(), trials)
    assert again is not None
    assert (again.winner, again.trials[0].values) == (1, (0.99, 0.9))
    assert not has_lost(experiment, configure().model_dump(), trials)
    assert are_trained(part, plan(trials))


def test_what_machines_failed_three_times_has_failed(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    part, trials = experiment.part(CONFIRMATION), list_trials(experiment)
    confirm(experiment, {0: [0.7, 0.7], 1: [0.99, LOST]})
    [lost] = [one for one in plan(trials) if (one.of_trial, one.replicate) == (1, 2)]
    for _ in range(2):
        assert has_lost(experiment, configure().model_dump(), trials)
        repeat(part, [lost], {1: [0.0, LOST]})
    assert not has_lost(experiment, configure().model_dump(), trials)
    assert are_trained(part, plan(trials))


def test_if_each_fails_nobody_is_confirmed(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    found = confirm(experiment, {0: [0.7, DIVERGES], 1: [0.99, DIVERGES]})
    assert (found.winner, found.num_missing) == (None, 0)
    assert is_settled(experiment, configure().model_dump(), list_trials(experiment))


def test_nothing_is_decided_before_all_have_ended(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    trials = list_trials(experiment)
    before = read_confirmation(experiment, configure().model_dump(), trials)
    assert before is not None
    assert (before.winner, before.num_missing, [one.trial for one in before.trials]) == (None, 4, [0, 1])
    repeat(experiment.part(CONFIRMATION), plan(trials)[:3], {0: [0.7, 0.7], 1: [0.8, 0.8]})
    found = read_confirmation(experiment, configure().model_dump(), trials)
    assert found is not None
    assert (found.winner, found.num_missing) == (None, 1)
    assert not is_settled(experiment, configure().model_dump(), trials)


def test_before_the_winner_is_trained_on_all_images_only_a_trial_named_by_hand_is_tested(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    save_weights_of(experiment, 0)
    with pytest.raises(ExperimentError, match=r"not confirmed .* all images; `fmnist search resume`.*--trial N"):
        evaluate(experiment, None)
    confirm(experiment, {0: [0.7, 0.7], 1: [0.8, 0.8]})
    with pytest.raises(ExperimentError, match="no winner to test yet"):
        evaluate(experiment, None)
    assert not experiment.best_weights.exists()
    assert (evaluate(experiment, 0).trial, experiment.evaluation.summary.exists()) == (0, False)
    final = experiment.part(FINAL)
    repeat(final, [plan_final(list_trials(experiment)[1], num_epochs=3, seed=0, before=[])], {1: [1.0]})
    save_weights_of(final, 0)
    evaluation = evaluate(experiment, None)
    assert (evaluation.trial, evaluation.rule) == (1, RULE_CONFIRMED)


def test_the_winners_temperature_is_that_of_its_own_trial(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, 0.7], 1: [0.8, 0.8]})
    final = experiment.part(FINAL)
    repeat(final, [plan_final(list_trials(experiment)[1], num_epochs=3, seed=0, before=[])], {1: [1.0]})
    save_weights_of(final, 0)
    assert evaluate(experiment, None).temperature == 1  # its trial has kept no weights
    save_weights_of(experiment, 1)
    alone = evaluate(experiment, 1)
    assert evaluate(experiment, None).temperature == alone.temperature != 1


def test_the_best_is_the_confirmed_winner_wherever_it_is_shown(tmp_path: Path) -> None:
    experiment, other = make_search(tmp_path / "a"), make_search(tmp_path / "b")
    confirm(experiment, {0: [0.7, 0.7], 1: [0.8, 0.8]})
    bests = [load_experiment(one.path).best for one in (experiment, other)]
    assert [(one.number, one.value, one.epoch) for one in bests if one] == [(1, 0.88, 3), (0, 0.9, 2)]
    sides = compare([experiment, other]).sides
    assert [(side.best_trial, side.best_value) for side in sides] == [(1, 0.88), (0, 0.9)]
    assert sides[0].parameters == compact_parameters(list_trials(experiment)[1].params)
    winner = read_material(experiment).winner
    assert winner is not None
    assert winner.number == 1


def test_a_winner_that_is_not_the_first_is_no_confirmation(tmp_path: Path) -> None:
    found = confirm(make_search(tmp_path / "a"), {0: [0.7, 0.7], 1: [0.8, 0.8]})
    assert found.is_sound()
    assert dataclasses.replace(found, winner=None).is_sound()
    assert not dataclasses.replace(found, winner=0).is_sound()
    assert not dataclasses.replace(found, winner=3, trials=()).is_sound()


def test_checkpoints_that_a_crash_left_beside_a_finished_confirmation_are_removed(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, 0.7], 1: [0.8, 0.8]})
    part = experiment.part(CONFIRMATION)
    left = [part.trial(0).last, part.trial(1).best]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    unused: Any = None  # as nothing is trained
    prepared, wanted = Prepared(configure(), unused, {}, ()), plan(list_trials(experiment))
    outcome = train_repetitions(part, prepared, unused, wanted, title="", progress=unused)
    assert outcome == Outcome.FINISHED
    assert not any(path.exists() for path in left)


def test_where_none_could_be_confirmed_the_best_is_tested_and_said_to_be_unconfirmed(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, DIVERGES], 1: [0.99, DIVERGES]})
    save_weights_of(experiment, 0)
    evaluation = evaluate(experiment, None)
    assert (evaluation.trial, evaluation.rule) == (0, RULE_UNCONFIRMED)


def test_a_search_with_folds_of_which_none_could_be_confirmed_says_so_and_tests_nothing(tmp_path: Path) -> None:
    folds = configure(max_trials=1, objective={"folds": 2})
    experiment = make_experiment(tmp_path / "a", folds, [[0.5, 0.9, 0.7, 0.5, 0.8, 0.7]])
    trials = list_trials(experiment)
    [wanted, _] = plan(trials, top=1)
    repeat(experiment.part(CONFIRMATION), plan(trials, top=1), {0: [0.7, DIVERGES]})
    assert wanted.num_epochs == 2
    with pytest.raises(ExperimentError, match="none is confirmed: each of the best trials failed with some fresh seed"):
        evaluate(experiment, None, objective={"folds": 2})
    resume = "fmnist search resume a"
    assert "resume" not in describe_untested(folds, Outcome.FINISHED, resume=resume)
    assert "none is confirmed" in describe_untested(folds, Outcome.FINISHED, resume=resume)
    told = describe_untested(configure(), Outcome.OUT_OF_TIME, resume=resume)
    assert told == "it is not confirmed yet, so nothing was tested; `fmnist search resume a` goes on"


def save_weights_of(experiment: Experiment, number: int) -> None:
    files = experiment.trial(number)
    files.path.mkdir(parents=True, exist_ok=True)
    save_weights(files.best, build_network("customnet", {}).state_dict())


def evaluate(experiment: Experiment, number: int | None, **changes: Any) -> Evaluation:
    config = configure(train_size=100, test_size=20, **changes)
    root = Path("unused")
    data = load_training_data(config, data_root=root)
    return evaluate_and_save(experiment, config, number, data_root=root, data=data)


def test_a_search_that_wants_no_confirmation_has_none(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a", confirm=None)
    trials = list_trials(experiment)
    assert read_confirmation(experiment, configure(confirm=None).model_dump(), trials) is None
    assert is_settled(experiment, configure(confirm=None).model_dump(), trials)


def test_fewer_seeds_or_more_trials_later_leave_what_was_trained(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, 0.8], 1: [0.76, 0.2]})
    fewer = configure(confirm={"top": 2, "seeds": 1})
    found = read_confirmation(experiment, fewer.model_dump(), list_trials(experiment))
    assert found is not None
    assert (found.winner, found.num_missing) == (1, 0)
    more = configure(confirm={"top": 3, "seeds": 2})
    found = read_confirmation(experiment, more.model_dump(), list_trials(experiment))
    assert found is not None
    assert (found.winner, found.num_missing) == (None, 2)


def test_a_search_may_be_continued_with_a_confirmation(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a", confirm=None)
    check_continuation(experiment, configure())
    with pytest.raises(ConfigError, match="max_epochs"):
        check_continuation(experiment, configure(max_epochs=4))


def test_an_interrupted_repetition_comes_out_again_as_it_was(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    wanted, part, config = plan(list_trials(experiment)), experiment.part(CONFIRMATION), configure(max_trials=4)
    with hold_experiment(part):
        begin_run(part, config)
        study = open_study(part, study_storage=None, direction="maximize")
        first = SearchStudy(study, config, repetitions=wanted).next_assignment()
        again = SearchStudy(study, config, repetitions=wanted[1:])
        assert [again.next_assignment(), again.next_assignment()][0] == first
        assert again.trial(1).user_attrs["of_trial"] == 1


def test_a_deterministic_search_confirms_as_many_at_a_time(tmp_path: Path) -> None:
    config = configure(deterministic=True, max_concurrent_trials=1, max_trials=4)
    part = make_search(tmp_path / "a").part(CONFIRMATION)
    with hold_experiment(part):
        begin_run(part, config)
        study = open_study(part, study_storage=None, direction="maximize")
        repeating = SearchStudy(study, config, repetitions=plan(list_trials(Experiment(tmp_path / "a"))))
        assert [repeating.next_assignment() is not None for _ in range(5)] == [True] * 4 + [False]


def test_repetitions_are_no_search_to_go_on_with(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, 0.8], 1: [0.8, 0.8]})
    with pytest.raises(ExperimentError, match="no search to go on with"):
        SearchStudy.open(experiment.part(CONFIRMATION), configure())


def test_the_final_training_is_found_and_after_a_failure_tried_with_another_seed(tmp_path: Path) -> None:
    experiment = make_search(tmp_path / "a")
    trial, final = list_trials(experiment)[1], experiment.part(FINAL)
    first = plan_final(trial, num_epochs=3, seed=0, before=[])
    repeat(final, [first], {1: [DIVERGES]})
    assert find_final(experiment, 1) is None
    second = plan_final(trial, num_epochs=3, seed=0, before=list_trials(final))
    assert second.seed != first.seed
    assert second.key != first.key
    repeat(final, [second], {1: [DIVERGES, 0.99]})
    found = find_final(experiment, 1)
    assert found is not None
    assert found.number == 1
    assert find_final(experiment, 0) is None


def test_a_strangers_notes_make_no_repetition(tmp_path: Path) -> None:
    trial = plan(list_trials(make_search(tmp_path / "a")))[0].to_trial()
    assert read_repetition(trial) is not None
    for name, value in [("seed", "7"), ("num_epochs", True), ("of_trial", -1), ("fold", 1.5), ("seed", 2**40)]:
        altered = plan(list_trials(Experiment(tmp_path / "a")))[0].to_trial()
        altered.user_attrs[name] = value
        assert read_repetition(altered) is None


def test_all_images_together_are_normalised_as_all_of_them(synthetic_data: TrainingData) -> None:
    joined = join_parts(synthetic_data)
    assert len(joined.train) == len(synthetic_data.train) + len(synthetic_data.validation)
    assert sorted(joined.train.labels) == sorted([*synthetic_data.train.labels, *synthetic_data.validation.labels])
    turned = LabelledImages(joined.train.images[::-1], joined.train.labels[::-1])
    assert measure_normalisation(turned).mean == joined.normalisation.mean
    assert measure_normalisation(turned).std == pytest.approx(joined.normalisation.std, rel=1e-12)


@pytest.mark.parametrize(
    ("confirm", "expected"),
    [
        ({"top": 0}, "confirm.top"),
        ({"seeds": 1.5}, "confirm.seeds"),
        ({"tops": 3}, "valid: top, seeds"),
        (3, "confirm"),
    ],
)
def test_a_wrong_section_is_refused_with_what_is_valid(confirm: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        configure(confirm=confirm)


def test_what_came_of_it_is_shown_where_trials_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    experiment = make_search(tmp_path / "a")
    assert summarise(experiment).state == State.INTERRUPTED
    assert describe_confirmation(confirm(experiment, {0: [0.7, 0.8], 1: [0.88, 0.86]})) == (
        "Trial 1 won with a val_accuracy of 0.8700 ± 0.0141 over 2 fresh seeds; the search had it at 0.8800, 0.0100 "
        "too good. Estimate without selection bias: 0.8700 (each seed scores the trial that the other seeds chose). "
        "The search was most wrong about trial 0: 0.1500 too good. That shows the luck of seed and epoch, not that of "
        "the validation images, which are the same."
    )
    shown = run_fmnist(capsys, "trials", "show", experiment.path, 0)
    assert "with fresh seeds (2): val_accuracy 0.7500 ± 0.0707; the search had it 0.1500 too good" in shown
    shown = run_fmnist(capsys, "trials", "show", experiment.part(CONFIRMATION).path, 1)
    assert "a repetition: trial 1 with fresh seed 1" in shown
    run_fmnist(capsys, "report", experiment.path, "--output", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Confirmed with fresh seeds" in page
    assert "0.8700 ± 0.0141" in page
    assert "Trial 1 won: CustomNet" in page
    assert summarise(experiment).state == State.INTERRUPTED  # the winner was not trained on all images
    repeat(
        experiment.part(FINAL), [plan_final(list_trials(experiment)[1], num_epochs=3, seed=0, before=[])], {1: [1.0]}
    )
    assert summarise(experiment).state == State.FINISHED
    assert is_settled(experiment, configure().model_dump(), list_trials(experiment))


def run_fmnist(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fmnist", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
    captured = capsys.readouterr()
    assert not ended.value.code, captured.err
    return captured.out


def test_a_damaged_confirmation_leaves_the_search_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = make_search(tmp_path / "a")
    confirm(experiment, {0: [0.7, 0.8], 1: [0.88, 0.86]})
    experiment.part(CONFIRMATION).journal.write_text("nonsense")
    assert "0.9000 at its best" in run_fmnist(capsys, "trials", "show", experiment.path, 0)
    run_fmnist(capsys, "report", experiment.path, "--output", tmp_path / "page.html")
    with pytest.raises(ExperimentError, match=r"confirmation.study\.journal"):
        read_confirmation(experiment, configure().model_dump(), list_trials(experiment))


def test_removing_an_experiment_removes_the_studies_of_its_parts(tmp_path: Path, sqlite_address: str) -> None:
    config = configure(study_storage=sqlite_address)
    experiment = make_experiment(tmp_path / "a", config, CURVES)
    part = experiment.part(CONFIRMATION)
    with hold_experiment(part):
        begin_run(part, config)
        study = open_study(part, study_storage=sqlite_address, direction="maximize")
        assert SearchStudy(study, config, repetitions=plan(list_trials(experiment))).next_assignment() is not None
    reference = read_reference(part)
    assert reference is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STUDY_STORAGE_VARIABLE, sqlite_address)
        assert [gone.name for gone in remove_experiments([experiment], directory=tmp_path)] == ["a"]
    with pytest.raises(KeyError):
        open_database(sqlite_address, Access.READ).get_study_id_from_name(reference.study)


def test_why_no_trial_is_complete_is_told_once_for_each_reason() -> None:
    failed = [
        create_trial(state=TrialState.FAIL, user_attrs={"reason": reason, "message": message})
        for reason, message in (("infrastructure", "no GPU on a"), ("code", "no"), ("infrastructure", "no GPU on b"))
    ]
    assert describe_failures([*failed, create_trial(state=TrialState.RUNNING)]) == [
        "2 trials failed as infrastructure: no GPU on a",
        "1 trial failed as code: no",
    ]

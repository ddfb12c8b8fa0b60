"""Confirmations on a real local Ray: a search whose best trial was only lucky."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from optuna.trial import TrialState
from scripted_training import BAD, GOOD, LOCAL, LUCKY, search_and_confirm

from cluster.session import local_ray
from fmnist_models.checkpoint import load_weights
from fmnist_models.data import TrainingData, load_images
from fmnist_models.metrics import score
from fmnist_models.prediction import predict_probabilities
from fmnist_models.saved_model import load_model
from search.configuration.config import read_config
from search.records.evaluation_file import read_evaluation
from search.records.experiment import CONFIRMATION, FINAL, Experiment
from search.records.record import list_trials
from search.running.runner import Outcome
from search.workflows.evaluation import RULE_CONFIRMED, evaluate_and_save
from search.workflows.main_job import SearchResult

TESTS = Path(__file__).parent
LUCKY_TRIAL, FAIR_TRIAL = 0, 1


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS))  # where Ray's processes find scripted_training
        with local_ray(num_cpus=2, num_gpus=0):
            yield


@dataclass(frozen=True)
class Confirmed:
    """A search that was confirmed, and a line for each epoch that was trained."""

    experiment: Experiment
    result: SearchResult
    diary: list[str]


@pytest.fixture(scope="module")
def confirmed(local_cluster: None, synthetic_data: TrainingData, tmp_path_factory: pytest.TempPathFactory) -> Confirmed:
    folder = tmp_path_factory.mktemp("confirmed")
    result = search_and_confirm(folder / "a", synthetic_data)
    return Confirmed(Experiment(folder / "a"), result, (folder / "diary").read_text().splitlines())


def test_the_lucky_trial_does_not_win(confirmed: Confirmed) -> None:
    evaluation = confirmed.result.evaluation
    assert confirmed.result.outcome == Outcome.FINISHED
    assert evaluation is not None
    assert evaluation.confirmation is not None
    assert list_trials(confirmed.experiment)[LUCKY_TRIAL].value == 0.99
    assert (evaluation.trial, evaluation.epoch, evaluation.rule) == (FAIR_TRIAL, 3, RULE_CONFIRMED)
    assert evaluation.value == evaluation.confirmation.trials[0].mean == pytest.approx(0.85)
    assert [one.optimism for one in evaluation.confirmation.trials] == pytest.approx([0.05, 0.49])
    assert read_evaluation(confirmed.experiment.evaluation) == evaluation


def test_repetitions_end_at_the_trials_best_epoch_on_the_searchs_schedule(confirmed: Confirmed) -> None:
    repeated = [line for line in confirmed.diary if "images=600" in line][6:]
    assert len(repeated) == 2 * 2 + 2 * 3
    assert sum(f"lr={GOOD} epoch=3" in line for line in repeated) == 0
    assert all("of=3 " in line for line in confirmed.diary)
    assert len({line.split("seed=")[1].split()[0] for line in repeated}) == 2


def test_the_winner_is_trained_on_all_images_and_its_weights_are_the_best_model(confirmed: Confirmed) -> None:
    final = [line for line in confirmed.diary if "images=800" in line]
    assert [line.split(" seed=")[0] for line in final] == [f"lr={BAD} epoch={epoch}" for epoch in (1, 2, 3)]
    part, evaluation = confirmed.experiment.part(FINAL), confirmed.result.evaluation
    weights, best = (load_weights(path) for path in (part.trial(0).best, confirmed.experiment.best_weights))
    assert all(torch.equal(best[name], weights[name]) for name in weights)
    assert set(best) - set(weights) == {"training_distance.references"}
    model, config = load_model(confirmed.experiment.best_weights.parent)
    assert config.distance_threshold is not None
    test = load_images("synthetic", "test", root=Path("unused"), size=200)
    probabilities = predict_probabilities(model, test.images, normalisation=config.normalisation)
    assert evaluation is not None
    assert score(test.labels, probabilities.argmax(1), class_names=config.class_names) == evaluation.scores


def test_what_is_confirmed_keeps_no_checkpoints(confirmed: Confirmed) -> None:
    trials = confirmed.experiment.part(CONFIRMATION).trials
    assert sorted(path.name for path in trials.rglob("*") if path.is_file()) == ["epochs.csv"] * 4
    assert not list(confirmed.experiment.part(FINAL).trials.rglob("last.pt"))


def test_evaluating_again_tests_the_same_model(confirmed: Confirmed, synthetic_data: TrainingData) -> None:
    again = evaluate_and_save(
        confirmed.experiment,
        read_config(confirmed.experiment),
        None,
        data_root=Path("unused"),
        data=synthetic_data,
    )
    assert again == confirmed.result.evaluation


def test_a_finished_confirmation_trains_nothing_more(confirmed: Confirmed, synthetic_data: TrainingData) -> None:
    result = search_and_confirm(confirmed.experiment.path, synthetic_data)
    assert result.evaluation == confirmed.result.evaluation
    assert confirmed.experiment.path.with_name("diary").read_text().splitlines() == confirmed.diary


def test_without_time_for_it_nothing_is_tested(
    confirmed: Confirmed, synthetic_data: TrainingData, tmp_path: Path
) -> None:
    experiment = Experiment(tmp_path / "a")
    untested = shutil.ignore_patterns(CONFIRMATION, FINAL, "best", "evaluation.json")
    shutil.copytree(confirmed.experiment.path, experiment.path, ignore=untested)
    result = search_and_confirm(tmp_path / "a", synthetic_data, time_budget_s=1e-6)
    assert result.outcome == Outcome.OUT_OF_TIME
    assert result.evaluation is None
    assert read_evaluation(experiment.evaluation) is None
    assert not experiment.best_weights.exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("part", [CONFIRMATION, FINAL])
def test_what_ends_while_it_confirms_goes_on_there(tmp_path: Path, kind: signal.Signals, part: str) -> None:
    experiment, torn = Experiment(tmp_path / "a"), Experiment(tmp_path / "a").part(part)
    command = [sys.executable, "-c", "import scripted_training; scripted_training.main()"]
    options = json.dumps({"epoch_s": 1.0, "confirm": LUCKY["confirm"]})
    command += [LOCAL, str(experiment.path), options]
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    with subprocess.Popen(command, env=environment) as process:
        until_s = time.monotonic() + 400
        while not any(torn.trials.glob("*/last.pt")) and process.poll() is None and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(kind)
    assert process.returncode == -kind
    before = [trial.intermediate_values for trial in list_trials(torn)]
    subprocess.run(command, env=environment, check=True)
    after = list_trials(torn)
    assert all(
        values.items() <= trial.intermediate_values.items() for values, trial in zip(before, after, strict=False)
    )
    assert {trial.state for trial in after} == {TrialState.COMPLETE}
    evaluation = read_evaluation(experiment.evaluation)
    assert evaluation is not None
    assert (evaluation.trial, evaluation.rule) == (FAIR_TRIAL, RULE_CONFIRMED)
    trained = Counter((tmp_path / "diary").read_text().splitlines())
    assert len(trained) == 6 + 10 + 3
    assert trained.total() <= len(trained) + 1  # no more is lost than the epoch in flight

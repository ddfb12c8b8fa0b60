"""Of a trial that is not at its end, the weights that are tested are those of the epoch that is recorded, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from epochs import make_epoch
from made_experiment import make_experiment
from torch import nn

from fmnist_models.checkpoint import load_weights, save_weights
from fmnist_models.epoch import Epoch
from fmnist_models.networks import build_network
from search.configuration.config import SearchConfig, parse_config
from search.errors import ExperimentError
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment
from search.review.trial_detail import read_details
from search.running.preparation import load_training_data
from search.running.saver import Saver, saved_epoch
from search.workflows.evaluation import evaluate_and_save

MAX_EPOCHS = 5


class Marked:
    """A trial's real network, whose weights say after which epoch it had them."""

    def __init__(self) -> None:
        self.model: nn.Module = build_network("customnet", {})
        self.history: list[Epoch] = []

    def train_epoch(self, accuracy: float) -> None:
        self.history.append(make_epoch(len(self.history) + 1, accuracy))
        *_, last = self.model.parameters()
        nn.init.constant_(last, len(self.history))

    def epochs(self) -> Iterator[Epoch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


def configure() -> SearchConfig:
    raw = {"dataset": "synthetic", "train_size": 100, "test_size": 20, "space": {"model": "customnet"}, "max_trials": 1}
    return parse_config(raw | {"max_epochs": MAX_EPOCHS, "pruner": "none"}, where="test")


def make_trial(folder: Path, *values: float) -> Experiment:
    """An experiment whose one trial has trained so far, its files written as its worker does."""
    experiment, training = make_experiment(folder, configure(), [values]), Marked()
    files = experiment.trial(0)
    files.path.mkdir(parents=True)
    saver = Saver(files, dataset="synthetic", metric="val_accuracy", max_epochs=MAX_EPOCHS)
    for value in values:
        training.train_epoch(value)
        saver.save(training)
    return experiment


def evaluate(experiment: Experiment) -> Evaluation:
    root, config = Path("unused"), configure()
    return evaluate_and_save(experiment, config, 0, data_root=root, data=load_training_data(config, data_root=root))


@pytest.mark.parametrize("values", [(0.5, 0.7, 0.6, 0.8), (0.5, 0.6), (0.5,)])
def test_a_trial_cut_short_at_its_best_epoch_is_not_tested_with_an_older_ones_weights(
    values: tuple[float, ...], tmp_path: Path
) -> None:
    experiment = make_trial(tmp_path, *values)
    with pytest.raises(ExperimentError, match=rf"not at its end, .* best epoch, {len(values)}, .*search resume"):
        evaluate(experiment)
    assert not experiment.trial(0).evaluation.summary.exists()
    assert not any(file.what == "best weights" for file in read_details(experiment, [0])[0].files)


@pytest.mark.parametrize(
    ("values", "best"), [((0.5, 0.7, 0.6), 2), ((0.5, 0.7, 0.6, 0.8, 0.9), 5), ((0.9, 0.7, 0.6, 0.8, 0.8), 1)]
)
def test_weights_are_those_of_the_epoch_that_is_recorded(values: tuple[float, ...], best: int, tmp_path: Path) -> None:
    experiment = make_trial(tmp_path, *values)
    weights = experiment.trial(0).best
    assert saved_epoch(weights) == best
    assert load_weights(weights)["fc.bias"].unique().tolist() == [best]
    assert evaluate(experiment).epoch == best
    is_over = len(values) == MAX_EPOCHS
    assert any(file.what == "best weights" for file in read_details(experiment, [0])[0].files) == is_over


def test_weights_of_a_trial_that_was_begun_anew_are_not_taken_for_those_of_the_recorded_epoch(tmp_path: Path) -> None:
    experiment = make_trial(tmp_path, 0.5, 0.9, 0.6, 0.8, 0.7)
    save_weights(experiment.trial(0).best, load_weights(experiment.trial(0).best), metadata={"epoch": "4"})
    with pytest.raises(ExperimentError, match=r"not those of its best epoch, 2: .*begun anew"):
        evaluate(experiment)


def test_weights_of_an_older_version_do_not_say_their_epoch_and_are_tested(tmp_path: Path) -> None:
    experiment = make_trial(tmp_path, 0.5, 0.7, 0.6, 0.8)
    save_weights(experiment.trial(0).best, load_weights(experiment.trial(0).best))
    assert saved_epoch(experiment.trial(0).best) is None
    assert evaluate(experiment).epoch == 4

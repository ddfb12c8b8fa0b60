"""An experiment in a person's own Python: everything is read when it is asked for, nothing is ever written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pandas as pd

from search.errors import ExperimentError
from search.records.confirmation import find_winner_or_best
from search.records.evaluation_file import Evaluation, read_evaluation
from search.records.experiment import Experiment, experiments_dir, find_experiment
from search.records.record import best_epoch, copy_study, list_trials, read_study
from search.records.results import compact_parameters, read_settings, read_trials

if TYPE_CHECKING:
    from fmnist_models.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The confirmed winner, or else the complete trial with the best validation epoch; ``value``, of the search's own
    training, and ``parameters`` as ``trials`` has them."""

    number: int
    value: float
    epoch: int
    parameters: dict[str, Any]


class LoadedExperiment:
    """What ``search.load_experiment`` gives. Of a search that runs, each look shows it as it is then."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    def __repr__(self) -> str:
        return f"LoadedExperiment({self._experiment.location!r})"

    @property
    def name(self) -> str:
        return self._experiment.name

    @property
    def path(self) -> Path:
        """Its folder; of an experiment on object storage, that of this machine's copy."""
        return self._experiment.path

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved configuration, ``metric``, ``dataset`` and ``space`` among it."""
        return read_settings(self._fetched())

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, best first, with the columns that the help of ``fmnist trials`` describes."""
        return read_trials(self._fetched())

    @property
    def best(self) -> BestTrial | None:
        """The best trial, or the winner if some were confirmed; ``None`` as long as none is complete."""
        experiment = self._fetched()
        settings = read_settings(experiment)
        metric, trial = settings["metric"], find_winner_or_best(experiment, settings, list_trials(experiment))
        epoch = None if trial is None else best_epoch(trial, metric)
        if trial is None or trial.value is None or epoch is None:
            return None
        return BestTrial(
            number=trial.number, value=trial.value, epoch=epoch, parameters=compact_parameters(trial.params)
        )

    @property
    def evaluation(self) -> Evaluation | None:
        """What the test set said of the trial that was best when the search ended; ``None`` before that.

        Raises:
            ExperimentError: the file is damaged.
        """
        return read_evaluation(self._fetched().evaluation)

    @property
    def study(self) -> optuna.Study:
        """A copy of the study in memory, for whatever Optuna can do with it: the record itself cannot be changed."""
        return copy_study(read_study(self._fetched()))

    def load_model(self) -> Classifier:
        """The best trial's model, a torch module in eval mode on the CPU: images ``(N, 28, 28)`` uint8, 0 is
        background, to the probabilities of all classes, ``(N, 10)`` float32, as ``fmnist predict`` gives them. Its
        ``distance``, ``None`` for a model saved without, maps images to their distance ``(N,)`` to the training images;
        above ``distance.threshold`` they do not look like them.

        Raises:
            ExperimentError: there is none yet.
            UserError: it is damaged.
        """
        from fmnist_models.saved_model import load_classifier

        experiment, folder = self._experiment, self._experiment.best_weights.parent
        experiment.fetch_best()
        try:
            classifier, _ = load_classifier(folder)
        except FileNotFoundError as error:
            raise ExperimentError(
                f"{error.filename} is missing; the end of a search writes it, as does `fmnist evaluate`"
            ) from error
        classifier.requires_grad_(False)
        return classifier

    def _fetched(self) -> Experiment:
        self._experiment.fetch()
        return self._experiment


def load_experiment(reference: str | Path, *, directory: str | Path | None = None) -> LoadedExperiment:
    """The experiment of that name, path or address on object storage, to read from.

    ``directory``: the folder of experiments that a name is looked up in; ``$FMNIST_EXPERIMENTS_DIR``, else
    ``./experiments``, if left out.

    Raises:
        ExperimentError: there is none (names those there are), or its folder holds links.
    """
    where = experiments_dir(None if directory is None else str(directory))
    return LoadedExperiment(find_experiment(str(reference), directory=where))

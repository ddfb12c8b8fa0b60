"""Cross-validating one configuration: its folds train like the trials of a search, and are judged by what each of them
had not seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState
from torch.nn import functional

from fmnist_models.data import CLASS_NAMES
from fmnist_models.files import write_aside
from fmnist_models.folds import FoldedImages
from fmnist_models.prediction import DeviceImages, predict_scores
from fmnist_models.seeds import derive_seed
from fmnist_models.training import Training
from search.configuration.config import SearchConfig, read_config
from search.configuration.dimensions import Fixed
from search.errors import ConfigError, ExperimentError
from search.records.confirmation import read_confirmation
from search.records.cross_validation import (
    CrossValidation,
    FoldPredictions,
    format_pooled,
    judge_folds,
    read_cross_validation,
)
from search.records.experiment import Experiment
from search.records.predictions import Predictions
from search.records.record import MESSAGE, best_epoch, list_trials
from search.records.repetition import Repetition, by_key, list_lost, read_repetition
from search.running.preparation import Prepared
from search.running.progress import Progress
from search.running.runner import Outcome
from search.running.slots import Slots
from search.running.trainable import Trainable
from search.workflows.evaluation import choose_trial
from search.workflows.repeating import are_trained, check_configuration, remove_checkpoints, train_repetitions
from search.workflows.trained_model import load_predictor

_CROSSVAL = 0x63766C64  # keeps these seeds apart from those of a search's trials and its confirmation
# What a search has that a cross-validation has not.
_NOT_OF_FOLDS: Mapping[str, Any] = {
    "confirm": None,
    "mlflow": None,
    "objective": None,
    "pruner": "none",
    "sampler": "random",
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The configuration that is cross-validated: of a trial of ``source``, or where all of the space is fixed."""

    config: SearchConfig
    params: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]
    num_epochs: int
    source: str | None = None
    of_trial: int | None = None

    def repetitions(self, num_folds: int) -> list[Repetition]:
        """Its folds, each with a seed of its own."""
        return [
            Repetition(
                params=self.params,
                distributions=self.distributions,
                num_epochs=self.num_epochs,
                seed=derive_seed(self.config.seed, fold, num_folds, _CROSSVAL),
                of_trial=self.of_trial,
                fold=fold,
            )
            for fold in range(1, num_folds + 1)
        ]


def subject_of_trial(experiment: Experiment, number: int | None) -> Subject:
    """The configuration of a trial, for its best number of epochs; that of the confirmed winner, or else of the best
    trial, if ``number`` is ``None``.

    Raises:
        ExperimentError: there is no such trial, or it has finished no epoch, or none is complete.
        ConfigError: the experiment's configuration is damaged.
    """
    config = read_config(experiment)
    if number is None:
        confirmation = read_confirmation(experiment, config.model_dump(), list_trials(experiment))
        number = None if confirmation is None else confirmation.winner
    trial = choose_trial(experiment, config, number)
    num_epochs = best_epoch(trial, config.metric)
    if num_epochs is None:
        raise ExperimentError(f"trial {trial.number} of {experiment.name} has finished no epoch, so none is its best")
    return Subject(
        config=config.model_copy(update={**_NOT_OF_FOLDS, "time_budget_s": None}),
        params=trial.params,
        distributions=trial.distributions,
        num_epochs=num_epochs,
        source=experiment.name,
        of_trial=trial.number,
    )


def subject_of_config(config: SearchConfig, *, where: str) -> Subject:
    """The one configuration of a file, for its ``max_epochs``.

    Raises:
        ConfigError: there is more than one in its space; names what is not fixed.
    """
    ranges = [name for name, dimension in config.space.dimensions.items() if not isinstance(dimension, Fixed)]
    if ranges:
        raise ConfigError(
            f"{where}: space.{ranges[0]} is not one value but {config.space.dimensions[ranges[0]]}; valid: one value "
            f"for each hyperparameter (not fixed: {', '.join(ranges)}), or an experiment, whose best trial is then used"
        )
    return Subject(
        config=config.model_copy(update=_NOT_OF_FOLDS), params={}, distributions={}, num_epochs=config.max_epochs
    )


def check_same(experiment: Experiment, wanted: list[Repetition]) -> None:
    """Makes sure that what the experiment holds, if anything, is of these folds.

    Raises:
        ExperimentError: it is not.
    """
    experiment.fetch()
    trials = list_trials(experiment) if experiment.exists() else []
    mine = [(one.key, one.params, one.num_epochs, one.seed) for one in wanted]
    there = [read_repetition(trial) for trial in trials]
    if not all(one is not None and (one.key, one.params, one.num_epochs, one.seed) in mine for one in there):
        raise ExperimentError(
            f"experiment {experiment.name} exists and holds something else than these {len(wanted)} folds; valid: "
            "the same command as before, or another --name"
        )


def cross_validate(
    experiment: Experiment,
    subject: Subject,
    prepared: Prepared,
    slots: Slots,
    *,
    progress: Progress,
    is_held: bool = False,
    make_training: Callable[..., Trainable] = Training,
) -> CrossValidation | None:
    """Trains the folds that have not been trained on the connected Ray cluster, and judges them; ``None`` if the time
    ran out before. ``prepared.data`` is what is to be folded. ``is_held``: this process holds the experiment already.

    Raises:
        ConfigError: the folds there were trained under another configuration.
        ExperimentError: a fold failed, or what happens cannot be recorded, or the experiment holds something else.
        KeyboardInterrupt: SIGINT; the same call goes on.
    """
    data = prepared.data
    assert isinstance(data, FoldedImages)
    wanted = subject.repetitions(data.folds)
    check_same(experiment, wanted)
    check_configuration(experiment, prepared)
    if are_trained(experiment, wanted):
        saved = read_cross_validation(experiment)
        if saved is not None:
            remove_checkpoints(experiment)  # a crash may have come in between
            return saved
    outcome = train_repetitions(
        experiment,
        prepared,
        slots,
        wanted,
        title=f"{experiment.name}: {data.folds} folds of {len(data.images):,} images, {subject.num_epochs} epochs each",
        progress=progress,
        time_left_s=prepared.config.time_budget_s,
        keep_weights=True,
        is_held=is_held,
        make_training=make_training,
    )
    if outcome == Outcome.OUT_OF_TIME:
        return None
    folds = [_predict_fold(experiment, prepared, data, one) for one in wanted]
    metrics, classes, pooled = judge_folds(folds, class_names=CLASS_NAMES)
    trial = by_key(list_trials(experiment))[wanted[0].key]
    found = CrossValidation(
        experiment=experiment.name,
        dataset=prepared.config.dataset,
        source=subject.source,
        of_trial=subject.of_trial,
        num_folds=data.folds,
        num_epochs=subject.num_epochs,
        hyperparameters=json.loads(json.dumps(prepared.config.space.suggest(trial))),
        metrics=metrics,
        classes=classes,
        pooled=pooled,
    )
    _save(experiment, found, folds)
    return found


def _predict_fold(
    experiment: Experiment, prepared: Prepared, data: FoldedImages, wanted: Repetition
) -> FoldPredictions:
    trials = list_trials(experiment)
    trial = by_key(trials)[wanted.key]
    if trial.state != TrialState.COMPLETE:
        again = "; the same command trains it again" if wanted.key in list_lost(trials) else ""
        raise ExperimentError(
            f"fold {wanted.fold} of {experiment.name} failed, so there is no result{again}: "
            f"{trial.user_attrs.get(MESSAGE)}"
        )
    assert wanted.fold is not None
    experiment.trial(trial.number).fetch()
    model, _ = load_predictor(experiment, prepared.config, trial)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fold = data.fold(wanted.fold)
    held_out = DeviceImages(fold.validation, device)
    scores = predict_scores(model.to(device), held_out.images, normalisation=fold.normalisation)
    loss = functional.cross_entropy(scores.double(), held_out.labels).item()
    predictions = Predictions(fold.validation.labels, scores.softmax(1).cpu().numpy())
    return FoldPredictions(data.held_out(wanted.fold), predictions, loss)


def _save(experiment: Experiment, found: CrossValidation, folds: list[FoldPredictions]) -> None:
    """Writes and sends the tables and, last, the result; from then on nobody needs the folds' weights."""
    try:
        pooled = format_pooled(folds, class_names=CLASS_NAMES, dataset=found.dataset)
        write_aside(experiment.out_of_fold, pooled)
        write_aside(experiment.cross_validation_table, found.to_csv())
        experiment.send()
        write_aside(experiment.cross_validation, json.dumps(found.to_dict(), indent=2) + "\n")
        if experiment.store is not None:
            experiment.store.send(experiment.cross_validation)
    except OSError as error:
        raise ExperimentError(f"the result cannot be saved in {experiment.path}: {error}") from error
    remove_checkpoints(experiment)


def with_folds(prepared: Prepared, folded: FoldedImages) -> Prepared:
    """The same with all training images, to be folded."""
    return dataclasses.replace(prepared, data=folded)

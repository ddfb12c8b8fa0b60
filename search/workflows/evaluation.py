"""The end of a search: one trial's best epoch meets the test set, and everything about it is saved."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from fmnist_models.data import (
    CLASS_NAMES,
    Normalisation,
    TrainingData,
    load_images,
    measure_normalisation,
)
from fmnist_models.files import write_aside
from fmnist_models.folds import FoldedImages
from fmnist_models.metrics import score
from fmnist_models.saved_model import is_saved_model
from fmnist_models.training_distance import measure_distance
from search.configuration.config import SearchConfig
from search.errors import ExperimentError
from search.records.confirmation import Confirmation, choose_winner, find_final, is_settled, read_confirmation
from search.records.evaluation_file import Evaluation, read_evaluation
from search.records.experiment import FINAL, Experiment
from search.records.fold_values import fold_epochs
from search.records.looks import begin_look, end_look
from search.records.predictions import Predictions
from search.records.record import best_epoch, best_trial, best_value, is_cross_validation, read_study
from search.workflows.saved_evaluation import save_best_model, save_evaluation
from search.workflows.trained_model import class_scores, is_behind, load_predictor, measure_temperature

RULE = "best epoch on validation images among complete trials; the test set had no part in the choice"
RULE_NAMED = "the trial was named by hand; its best epoch on validation images"
RULE_UNCONFIRMED = (
    f"{RULE}; NOT CONFIRMED, as each of the best trials failed with some fresh seed, so by chance it may look "
    "better than it is"
)
RULE_FOLDS = (
    "best mean over folds among complete trials, then trained on all training images; the test set had no part in the "
    "choice"
)
RULE_CONFIRMED = (
    "best mean of fresh seeds on validation images among the best trials, then trained on training and validation "
    "images together; the test set had no part in the choice"
)

NONE_CONFIRMED = "none is confirmed: each of the best trials failed with some fresh seed"


def choose_trial(experiment: Experiment, config: SearchConfig, number: int | None) -> FrozenTrial:
    """The trial of that number, or the best one if ``number`` is ``None``.

    Raises:
        ExperimentError: there is no such trial, or none that can be evaluated, or the trials are folds.
    """
    trials = read_study(experiment).get_trials(deepcopy=False)
    if is_cross_validation(trials):
        raise ExperimentError(
            f"{experiment.name} is a cross-validation: its trainings are folds of one configuration, of which none is "
            f"the best and none leaves a model; {experiment.cross_validation.name} says what they came to; valid: an "
            "experiment that is a search"
        )
    if number is None:
        best = best_trial(trials, config.metric)
        if best is None:
            raise ExperimentError(
                f"{experiment.name} has no complete trial yet; `fmnist trials {experiment.name}` shows what it has"
            )
        return best
    if not 0 <= number < len(trials):
        raise ExperimentError(f"{experiment.name} has no trial {number}; valid: 0 to {len(trials) - 1}")
    return trials[number]


def evaluate_trial(
    experiment: Experiment,
    config: SearchConfig,
    trial: FrozenTrial,
    *,
    data_root: Path,
    normalisation: Normalisation,
    temperature: float,
    rule: str,
    command: str,
    of_trial: int | None = None,
) -> tuple[Evaluation, Predictions]:
    """Tests the trial's best epoch on the test images, in fp32; ``rule`` says how the trial was chosen. The look is
    logged before it is taken, as one of ``command`` at trial ``of_trial``, if that is another one. Scores are divided
    by ``temperature``, which changes probabilities and no class.

    Raises:
        ExperimentError: the trial's checkpoint is gone or unreadable, or not of the configured space.
        DataError: the test images are damaged or missing.
    """
    epoch, value = best_epoch(trial, config.metric), best_value(trial, config.metric)
    experiment.trial(trial.number).fetch()
    weights = experiment.trial(trial.number).best
    if fold_epochs(trial) is not None:
        raise ExperimentError(
            f"trial {trial.number} of {experiment.name} is a mean over folds and has no model of its own; of its "
            "search the winner alone is trained on all images, at the end"
        )
    if epoch is not None and not trial.state.is_finished() and is_behind(weights, epoch):
        raise ExperimentError(
            f"trial {trial.number} of {experiment.name} is not at its end, and the weights of its best epoch, {epoch}, "
            "are kept with its last checkpoint alone; valid: a trial that is complete, as this one will be once its "
            "search has gone on (`fmnist search resume`)"
        )
    if epoch is None or value is None or not weights.is_file():
        raise ExperimentError(
            f"trial {trial.number} of {experiment.name} has no weights; after a search only the best "
            f"{config.keep_checkpoints} (keep_checkpoints) have"
        )
    if is_behind(weights, epoch):
        raise ExperimentError(
            f"trial {trial.number} of {experiment.name} has weights, but not those of its best epoch, {epoch}: it was "
            "begun anew when its checkpoint could not be read; valid: another trial"
        )
    model, hyperparameters = load_predictor(experiment, config, trial)
    test = load_images(config.dataset, "test", root=data_root, size=config.test_size)
    whole, looked_at = experiment.whole or experiment, trial.number if of_trial is None else of_trial
    look = begin_look(whole, trial=looked_at, command=command, num_images=len(test))
    logits = class_scores(model, test, normalisation=normalisation)
    predictions = Predictions(test.labels, (logits / temperature).softmax(1).numpy())
    scores = score(test.labels, predictions.predicted, class_names=CLASS_NAMES)
    end_look(whole, look, accuracy=scores.accuracy)
    evaluation = Evaluation(
        experiment=experiment.name,
        dataset=config.dataset,
        trial=trial.number,
        epoch=epoch,
        metric=config.metric,
        value=value,
        rule=rule,
        hyperparameters=hyperparameters,
        scores=scores,
        temperature=temperature,
    )
    return evaluation, predictions


def _why_unsettled(experiment: Experiment, config: SearchConfig) -> str:
    confirmed = "confirmed with fresh seeds and " if config.confirm is not None else ""
    by_hand = "" if config.folds is not None else ", and --trial N tests a trial as it was searched"
    return (
        f"{experiment.name} has no winner to test yet: it is not {confirmed}trained on all images; "
        f"`fmnist search resume` of it goes on{by_hand}"
    )


def evaluate_final(
    experiment: Experiment,
    config: SearchConfig,
    final: FrozenTrial,
    *,
    of_trial: int,
    value: float,
    data_root: Path,
    normalisation: Normalisation,
    temperature: float,
    rule: str,
    command: str,
) -> tuple[Evaluation, Predictions]:
    """Tests a trial of the experiment's part ``FINAL``. What its own epochs say of the validation images, which it was
    trained on, counts for nothing: ``value`` is what trial ``of_trial`` was chosen by, and ``temperature`` is that of
    the trial's own model. ``normalisation``: of all images.

    Raises:
        ExperimentError: its weights are gone or unreadable, or not of the configured space.
        DataError: the test images are damaged or missing.
    """
    evaluation, predictions = evaluate_trial(
        experiment.part(FINAL),
        config,
        final,
        data_root=data_root,
        normalisation=normalisation,
        temperature=temperature,
        rule=rule,
        command=command,
        of_trial=of_trial,
    )
    found = dataclasses.replace(evaluation, experiment=experiment.name, trial=of_trial, value=value)
    return found, predictions


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """What is to be tested. ``number`` and ``value``: the trial, and what it was chosen by; ``final``: its training on
    all images, ``None`` if it is tested as it was searched."""

    number: int
    value: float | None
    epoch: int | None
    rule: str
    confirmation: Confirmation | None
    final: FrozenTrial | None


def _choose_winner(experiment: Experiment, config: SearchConfig) -> _Chosen:
    trials = read_study(experiment).get_trials(deepcopy=False)
    confirmation = read_confirmation(experiment, config.model_dump(), trials)
    if not is_settled(experiment, config.model_dump(), trials):
        raise ExperimentError(_why_unsettled(experiment, config))
    has_folds = config.folds is not None
    winner = choose_winner(trials, confirmation, metric=config.metric, has_folds=has_folds)
    if has_folds and winner is None and confirmation is not None:
        raise ExperimentError(f"{experiment.name} has no model to test: {NONE_CONFIRMED}")
    final = None if winner is None else find_final(experiment, winner[0])
    if winner is not None and final is not None:
        return _Chosen(
            number=winner[0],
            value=winner[1],
            epoch=best_epoch(final, config.metric),
            rule=RULE_FOLDS if confirmation is None else RULE_CONFIRMED,
            confirmation=confirmation,
            final=final,
        )
    trial = choose_trial(experiment, config, None)
    return _Chosen(
        number=trial.number,
        value=best_value(trial, config.metric),
        epoch=best_epoch(trial, config.metric),
        rule=RULE if confirmation is None else RULE_UNCONFIRMED,
        confirmation=confirmation,
        final=None,
    )


def evaluate_winner(
    experiment: Experiment, config: SearchConfig, *, data_root: Path, data: TrainingData | FoldedImages
) -> Evaluation:
    """At the end of a search: the saved result if it is of the present winner, which is not tested again, else as
    ``evaluate_and_save``.

    Raises:
        ExperimentError, DataError: as ``evaluate_and_save``.
    """
    chosen = _choose_winner(experiment, config)
    saved = _read_saved(experiment, config, chosen)
    if saved is None:
        return evaluate_and_save(experiment, config, None, data_root=data_root, data=data, command="search")
    evaluation = dataclasses.replace(saved, rule=chosen.rule, confirmation=chosen.confirmation)
    if evaluation != saved:
        write_aside(experiment.evaluation.summary, json.dumps(evaluation.to_dict(), indent=2) + "\n")
    experiment.send()
    return evaluation


def _read_saved(experiment: Experiment, config: SearchConfig, chosen: _Chosen) -> Evaluation | None:
    """The result of a test of what is chosen; ``None`` if there is none, or not all that goes with it."""
    best = experiment.best_weights.parent
    try:
        if experiment.store is not None:
            experiment.store.fetch(best)
        saved = read_evaluation(experiment.evaluation)
    except ExperimentError:
        return None
    if saved is None or not is_saved_model(best) or not all(path.is_file() for path in experiment.evaluation.all):
        return None
    was_final = saved.rule in (RULE_FOLDS, RULE_CONFIRMED)
    found = (saved.dataset, saved.trial, saved.epoch, saved.value, was_final)
    wanted = (config.dataset, chosen.number, chosen.epoch, chosen.value, chosen.final is not None)
    return saved if found == wanted else None


def evaluate_and_save(
    experiment: Experiment,
    config: SearchConfig,
    number: int | None,
    *,
    data_root: Path,
    data: TrainingData | FoldedImages,
    command: str = "evaluate",
) -> Evaluation:
    """Tests a trial, or if ``number`` is ``None`` the best one, and saves the result with it or with the experiment.
    Where the best trials were confirmed, or are means over folds, the best one is the winner, as it was trained on all
    images. Its temperature is then that of the trial's own model, to which the validation images are new: the winner
    has been trained on them.

    ``data``: the images of the search. ``command``: what the log of looks at the test images says of this one.

    Raises:
        ExperimentError: no such trial, or no checkpoint of it, or it is not known yet which trial is the winner, or the
            result cannot be saved.
        DataError: the test images are damaged or missing.
    """
    split = data.fold(1) if isinstance(data, FoldedImages) else data
    chosen = None if number is not None else _choose_winner(experiment, config)
    searched = choose_trial(experiment, config, number if chosen is None else chosen.number)
    temperature = measure_temperature(experiment, config, searched, split)
    if chosen is not None and chosen.final is not None and chosen.value is not None:
        tested, there = chosen.final, experiment.part(FINAL)
        normalisation = measure_normalisation(
            load_images(config.dataset, "train", root=data_root, size=config.train_size)
        )
        evaluation, predictions = evaluate_final(
            experiment,
            config,
            chosen.final,
            of_trial=chosen.number,
            value=chosen.value,
            data_root=data_root,
            normalisation=normalisation,
            temperature=temperature,
            rule=chosen.rule,
            command=command,
        )
    else:
        tested, there, normalisation = searched, experiment, data.normalisation
        evaluation, predictions = evaluate_trial(
            experiment,
            config,
            tested,
            data_root=data_root,
            normalisation=normalisation,
            temperature=temperature,
            rule=RULE_NAMED if chosen is None else chosen.rule,
            command=command if number is None else f"{command} --trial {number}",
        )
    evaluation = dataclasses.replace(evaluation, confirmation=None if chosen is None else chosen.confirmation)
    try:
        if number is None:
            model, _ = load_predictor(there, config, tested)
            distance = measure_distance(split.train.images, split.validation.images)
            save_best_model(experiment, evaluation, model, normalisation=normalisation, distance=distance)
            save_evaluation(evaluation, predictions, experiment.evaluation)
            experiment.send_best()
            experiment.send()
        else:
            files = experiment.trial(number)
            save_evaluation(evaluation, predictions, files.evaluation)
            files.send(*files.evaluation.all)
    except OSError as error:
        raise ExperimentError(f"the result cannot be saved in {experiment.path}: {error}") from error
    return evaluation

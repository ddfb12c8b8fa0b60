"""What there is to say of a trial beside what its study holds: of its files and of its meeting with the test set."""

from __future__ import annotations

import contextlib
import os

from optuna.trial import FrozenTrial

from search.errors import ExperimentError
from search.records.evaluation_file import Evaluation, read_evaluation
from search.records.experiment import Experiment
from search.records.fold_values import FOLDS, complete_folds
from search.records.record import best_epoch, best_value
from search.records.spans import worked_s


def read_tests(experiment: Experiment) -> dict[int, Evaluation]:
    """What the test set said of trials, by their numbers: of the best one, and of those that were named by hand."""
    found = [experiment.evaluation]
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(experiment.trials))
        found += [experiment.trial(int(name)).evaluation for name in names if name.isdecimal() and len(name) < 9]
    tests: dict[int, Evaluation] = {}
    for files in found:
        with contextlib.suppress(ExperimentError):  # a damaged one is as good as none
            test = read_evaluation(files)
            if test is not None:
                tests.setdefault(test.trial, test)
    return tests


def notes_of(
    trial: FrozenTrial, experiment: Experiment, *, metric: str, test: Evaluation | None
) -> dict[str, str | int | float]:
    """Name → text or number: ``best_epoch`` and ``best_<metric>``, ``folds`` that are complete, ``duration_s``,
    ``checkpoint`` (its path, if it is on this machine), and the test metrics, if there are any."""
    notes: dict[str, str | int | float] = {}
    epoch, value = best_epoch(trial, metric), best_value(trial, metric)
    if epoch is not None and value is not None:
        notes |= {"best_epoch": epoch, f"best_{metric}": value}
    folds = complete_folds(trial)
    if folds is not None:
        notes[FOLDS] = folds
    duration_s = worked_s(trial)
    if duration_s is not None:
        notes["duration_s"] = round(duration_s, 3)
    if test is not None:
        notes |= test_metrics(test)
    files = experiment.trial(trial.number)
    checkpoint = next((path for path in (files.best, files.last) if os.path.isfile(path)), None)
    return notes if checkpoint is None else notes | {"checkpoint": str(checkpoint)}


def test_metrics(test: Evaluation) -> dict[str, float]:
    """The numbers of a test result that stand for all of it."""
    scores = test.scores
    return {
        "test_accuracy": scores.accuracy,
        "test_accuracy_low": scores.accuracy_low,
        "test_accuracy_high": scores.accuracy_high,
        "test_precision": scores.macro.precision,
        "test_recall": scores.macro.recall,
        "test_f1": scores.macro.f1,
    }

"""The main job: trials, then the table, then the best trial's one meeting with the test set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from optuna.trial import FrozenTrial

from fmnist_models.errors import UserError
from fmnist_models.files import write_aside
from fmnist_models.training import Training
from search.configuration.config import SearchConfig
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment
from search.records.record import best_trial
from search.records.results import read_trials
from search.running.preparation import Prepared
from search.running.progress import Progress
from search.running.runner import Outcome, run_trials
from search.running.slots import Slots
from search.running.trainable import Trainable
from search.study.search_study import SearchStudy
from search.workflows.confirming import confirm_best, is_final
from search.workflows.evaluation import evaluate_and_save


@dataclass(frozen=True)
class SearchResult:
    """How a search ended; no evaluation if no trial is complete, or if it is not known yet which one is the winner.

    ``idle_share``: of the slots' time in this run in which they had no trial, 0…1, confirmations left out; ``None`` if
    nothing ran.
    """

    outcome: Outcome
    num_trials: int
    evaluation: Evaluation | None
    idle_share: float | None


def run_search(
    experiment: Experiment,
    prepared: Prepared,
    slots: Slots,
    *,
    study: SearchStudy,
    progress: Progress,
    data_root: Path,
    make_training: Callable[..., Trainable] = Training,
) -> SearchResult:
    """Runs the search on the connected Ray cluster, confirms its best trials if asked to, and tests the winner.
    One that is to be confirmed, or has folds, tests nothing before it is at its end.

    Raises:
        ExperimentError: what happens cannot be recorded: the disk is full, the folder is gone.
        DataError: the test images are damaged or missing.
        KeyboardInterrupt: SIGINT; the table of trials is written all the same.
    """
    config, since = prepared.config, datetime.now()
    until_s = None if config.time_budget_s is None else time.monotonic() + config.time_budget_s
    try:
        outcome = run_trials(experiment, prepared, slots, study=study, progress=progress, make_training=make_training)
        trials = study.study.get_trials(deepcopy=False)
        if outcome == Outcome.FINISHED:
            _write_table(experiment)
            outcome = confirm_best(
                experiment,
                prepared,
                slots,
                trials=trials,
                progress=progress,
                until_s=until_s,
                make_training=make_training,
            )
    except KeyboardInterrupt:
        with contextlib.suppress(OSError, UserError):  # the study has it all
            _write_table(experiment)
            experiment.send()
        raise
    _write_table(experiment)
    evaluation = None
    if best_trial(trials, config.metric) is not None and _is_testable(experiment, config, outcome, trials):
        evaluation = evaluate_and_save(
            experiment, config, None, data_root=data_root, normalisation=prepared.data.normalisation
        )
    else:
        experiment.send()
    return SearchResult(outcome, len(trials), evaluation, idle_share(trials, since=since, num_slots=slots.count))


def _is_testable(experiment: Experiment, config: SearchConfig, outcome: Outcome, trials: Sequence[FrozenTrial]) -> bool:
    """Whether the test set's one meeting may be now: with the winner, once it is known, and not with each favourite
    before; if none of the best trials could be confirmed, with the best as the search has it, where it has a model."""
    if config.confirm is None and config.folds is None:
        return True
    return outcome == Outcome.FINISHED and (config.folds is None or is_final(experiment, config, trials))


def idle_share(trials: Sequence[FrozenTrial], *, since: datetime, num_slots: int) -> float | None:
    """How much of the time of ``num_slots`` slots, from ``since`` to the last trial's end, no trial had."""
    spans = [
        (max(trial.datetime_start, since), trial.datetime_complete)
        for trial in trials
        if trial.datetime_start and trial.datetime_complete and trial.datetime_complete > since
    ]
    if not spans:
        return None
    start, end = min(start for start, _ in spans), max(end for _, end in spans)
    busy_s = sum((end - start).total_seconds() for start, end in spans)
    return max(0.0, 1 - busy_s / (num_slots * (end - start).total_seconds()))


def _write_table(experiment: Experiment) -> None:
    write_aside(experiment.trials_table, read_trials(experiment).to_csv(index=False))

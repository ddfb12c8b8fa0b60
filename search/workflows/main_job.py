"""The main job: trials, then the table, then the best trial's one meeting with the test set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from fmnist_models.errors import UserError
from fmnist_models.files import write_aside
from fmnist_models.training import Training
from search.configuration.config import SearchConfig
from search.records.csv_text import table_as_csv
from search.records.evaluation_file import Evaluation
from search.records.experiment import Experiment
from search.records.occupancy import Occupancy, measure_occupancy
from search.records.record import best_trial
from search.records.results import read_trials
from search.records.runs import read_runs
from search.running.preparation import Prepared
from search.running.progress import Progress
from search.running.runner import Outcome, run_trials
from search.running.slots import Slots
from search.running.trainable import Trainable
from search.study.search_study import SearchStudy
from search.workflows.confirming import confirm_best, is_final
from search.workflows.evaluation import evaluate_winner


@dataclass(frozen=True)
class SearchResult:
    """How a search ended; no evaluation if no trial is complete, or if it is not known yet which one is the winner.

    ``occupancy``: of all runs of the search, confirmations left out.
    """

    outcome: Outcome
    num_trials: int
    evaluation: Evaluation | None
    occupancy: Occupancy


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
    config = prepared.config
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
        evaluation = evaluate_winner(experiment, config, data_root=data_root, data=prepared.data)
    else:
        experiment.send()
    occupancy = measure_occupancy(trials, read_runs(experiment), now=None)
    return SearchResult(outcome, len(trials), evaluation, occupancy)


def _is_testable(experiment: Experiment, config: SearchConfig, outcome: Outcome, trials: Sequence[FrozenTrial]) -> bool:
    """Whether the test set's one meeting may be now: with the winner, once it is known, and not with each favourite
    before; if none of the best trials could be confirmed, with the best as the search has it, where it has a model."""
    if config.confirm is None and config.folds is None:
        return True
    return outcome == Outcome.FINISHED and (config.folds is None or is_final(experiment, config, trials))


def _write_table(experiment: Experiment) -> None:
    write_aside(experiment.trials_table, table_as_csv(read_trials(experiment)))

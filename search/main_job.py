"""The main job: trials, then the table, then the best trial's one meeting with the test set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fmnist_models.files import write_aside
from search.evaluation import Evaluation, choose_trial, evaluate_trial, save_best_model, save_evaluation
from search.experiment import Experiment
from search.preparation import Prepared
from search.progress import Progress
from search.record import best_trial
from search.results import read_trials
from search.runner import Outcome, remove_losers, run_trials
from search.slots import Slots
from search.study import SearchStudy


@dataclass(frozen=True)
class SearchResult:
    """How a search ended; no evaluation if it was interrupted or no trial is complete."""

    outcome: Outcome
    num_trials: int
    evaluation: Evaluation | None


def run_search(
    experiment: Experiment,
    prepared: Prepared,
    slots: Slots,
    *,
    study: SearchStudy,
    progress: Progress,
    data_root: Path,
) -> SearchResult:
    """Runs the search on the connected Ray cluster and, unless it is interrupted, tests its best trial.

    Raises:
        DataError: the test images are damaged or missing.
    """
    outcome = run_trials(experiment, prepared, slots, study=study, progress=progress)
    write_aside(experiment.trials_table, read_trials(experiment).to_csv(index=False))
    trials = study.study.get_trials(deepcopy=False)
    config = prepared.config
    evaluation = None
    if outcome != Outcome.INTERRUPTED and best_trial(trials, config.metric) is not None:
        normalisation = prepared.data.normalisation
        best = choose_trial(experiment, config, None)
        evaluation = evaluate_trial(experiment, config, best, data_root=data_root, normalisation=normalisation)
        save_evaluation(evaluation, experiment.path)
        save_best_model(experiment, config, evaluation, normalisation=normalisation)
        remove_losers(experiment, study, config.metric)
    return SearchResult(outcome, len(trials), evaluation)

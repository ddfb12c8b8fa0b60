"""The main job: trials, then the table, then the best trial's one meeting with the test set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fmnist_models.files import write_aside
from search.evaluation import Evaluation, evaluate_and_save
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
    metric = prepared.config.metric
    evaluation = None
    if outcome != Outcome.INTERRUPTED:
        if best_trial(trials, metric) is not None:
            evaluation = evaluate_and_save(
                experiment, prepared.config, None, data_root=data_root, normalisation=prepared.data.normalisation
            )
        remove_losers(experiment, study, metric)
    return SearchResult(outcome, len(trials), evaluation)

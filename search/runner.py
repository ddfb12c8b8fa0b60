"""Running a search: Ray Tune schedules the study's trials on the cluster that this process is connected to."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from enum import Enum

import ray
from optuna.trial import TrialState
from ray import tune

from fmnist_models.training import Training
from search.experiment import Experiment
from search.preparation import Prepared
from search.progress import Progress
from search.record import best_trial
from search.slots import Slots
from search.study import SearchStudy
from search.trial import Shared, Trainable, run_trial
from search.tune_bridge import StudyScheduler, StudySearcher

_MAX_FAILURES = 2  # restarts of a trial whose process died


class Outcome(Enum):
    """How a search ended."""

    FINISHED = "finished"
    OUT_OF_TIME = "out of time"
    INTERRUPTED = "interrupted"


def run_trials(
    experiment: Experiment,
    prepared: Prepared,
    slots: Slots,
    *,
    study: SearchStudy,
    progress: Progress,
    make_training: Callable[..., Trainable] = Training,
) -> Outcome:
    """Trains the study's trials on the connected Ray cluster, as many at a time as there are slots.

    Ctrl-C ends it early with everything so far in the study, trials that were running among it.
    """
    if study.is_finished():
        return Outcome.FINISHED
    config = prepared.config
    shared = Shared(
        experiment=experiment,
        data=ray.put(prepared.data),
        pretrained={name: ray.put(state) for name, state in prepared.pretrained.items()},
        slot=slots.slot,
        num_epochs=config.max_epochs,
        dataset=config.dataset,
        metric=config.metric,
        seed=config.seed,
        precision=config.precision,
        make_training=make_training,
    )
    start_s = time.monotonic()
    shutil.rmtree(experiment.ray_files, ignore_errors=True)
    _quiet_tune()
    try:
        tune.Tuner(
            tune.with_resources(tune.with_parameters(run_trial, shared=shared), slots.slot.trial_resources),
            tune_config=tune.TuneConfig(
                search_alg=StudySearcher(study, progress),
                scheduler=StudyScheduler(study, progress),
                num_samples=-1,
                max_concurrent_trials=slots.count,
                reuse_actors=slots.slot.num_workers == 1,
                time_budget_s=config.time_budget_s,
                trial_dirname_creator=_trial_dirname,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(experiment.ray_files),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            ),
        ).fit()
    finally:
        shutil.rmtree(experiment.ray_files, ignore_errors=True)
    if study.is_finished():
        return Outcome.FINISHED
    if config.time_budget_s is not None and time.monotonic() - start_s >= config.time_budget_s:
        return Outcome.OUT_OF_TIME
    return Outcome.INTERRUPTED


def remove_losers(experiment: Experiment, study: SearchStudy, metric: str) -> None:
    """Removes the checkpoints of all ended trials but the best."""
    trials = study.study.get_trials(deepcopy=False)
    best = best_trial(trials, metric)
    for trial in trials:
        if trial.state != TrialState.RUNNING and (best is None or trial.number != best.number):
            experiment.trial(trial.number).remove_checkpoints()


def _trial_dirname(trial: tune.experiment.Trial) -> str:
    return f"{trial.config['number']:05d}"


def _quiet_tune() -> None:
    """Our own progress is shown and the study is the record: Tune's printing, logging and snapshots are for nothing."""
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(10**9)

"""Running a search: Ray Tune schedules the study's trials on the cluster that this process is connected to."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import ray
from ray import tune
from ray._private import worker as ray_worker
from ray.air._internal import usage
from ray.tune.error import TuneError
from ray.tune.execution import class_cache

from fmnist_models.errors import UserError
from fmnist_models.training import Training
from search.configuration.config import SearchConfig
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.running.leak_watch import LeakWatch, remove_groups
from search.running.preparation import Prepared
from search.running.progress import Progress
from search.running.retention import Retention
from search.running.slots import Slot, Slots
from search.running.time_budget import TimeBudget
from search.running.time_watch import TimeWatch
from search.running.trainable import Trainable
from search.running.trial import run_trial
from search.running.tune_bridge import Halt, StudyScheduler, StudySearcher
from search.running.waiting_watch import WaitingWatch
from search.running.worker import Shared
from search.study.search_study import SearchStudy


class Outcome(Enum):
    """How a search ended."""

    FINISHED = "finished"
    OUT_OF_TIME = "out of time"


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

    Whatever ends it early, Ctrl-C as well as a lost machine, leaves everything so far in the study, trials that were
    running among it.

    Raises:
        ExperimentError: what happens cannot be recorded: the disk is full, the folder is gone.
        KeyboardInterrupt: SIGINT.
    """
    config = prepared.config
    retention = Retention(experiment, config, study.study.get_trials(deepcopy=False))
    if study.is_finished():
        return Outcome.FINISHED
    shared = Shared(
        experiment=experiment,
        data=ray.put(prepared.data),
        pretrained={name: ray.put(state) for name, state in prepared.pretrained.items()},
        slot=slots.slot,
        num_epochs=config.max_epochs,
        dataset=config.dataset,
        metric=config.metric,
        seed=config.seed,
        precision={network.name: config.precision_of(network.name) for network in config.space.networks},
        deterministic=config.deterministic,
        timeout_s=config.trial_timeout_s,
        feature_cache_bytes=int(config.feature_cache_gb * 1e9),
        make_training=make_training,
    )
    time_watch = _make_time_watch(experiment, config, slots)
    experiment.remove_ray_files()
    _quiet_tune()
    try:
        with _environment_inherited():
            tune.Tuner(
                tune.with_resources(tune.with_parameters(run_trial, shared=shared), _reservation(slots.slot)),
                tune_config=tune.TuneConfig(
                    search_alg=StudySearcher(study, experiment, retention=retention, progress=progress),
                    scheduler=StudyScheduler(
                        study, experiment, retention=retention, progress=progress, time_watch=time_watch
                    ),
                    num_samples=-1,
                    max_concurrent_trials=slots.count,
                    reuse_actors=True,
                    trial_dirname_creator=_trial_dirname,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=experiment.ray_location,
                    verbose=0,
                    stop=TimeBudget(config.time_budget_s),
                    callbacks=[
                        WaitingWatch(slots.slot, progress),
                        *([LeakWatch(slots.slot)] if slots.slot.num_workers > 1 else []),
                        *([time_watch] if time_watch is not None else []),
                    ],
                    failure_config=tune.FailureConfig(max_failures=config.max_restarts),
                ),
            ).fit()
    except Halt as halt:
        raise ExperimentError(f"the search had to stop: {halt}; `fmnist search resume` continues it") from halt
    except (OSError, TuneError) as error:
        raise ExperimentError(f"the search in {experiment.location} had to stop: {error}") from error
    finally:
        with contextlib.suppress(OSError, UserError):  # what matters more has been said
            study.record_charges()
        if slots.slot.num_workers > 1:
            remove_groups(slots.slot)
        experiment.remove_ray_files()
    retention.sweep(study.study.get_trials(deepcopy=False))
    if study.is_finished():
        return Outcome.FINISHED
    if config.time_budget_s is None:
        raise ExperimentError(f"Ray Tune gave trials of {experiment.name} up; `fmnist search resume` goes on with them")
    return Outcome.OUT_OF_TIME


@contextlib.contextmanager
def _environment_inherited() -> Iterator[None]:
    """Processes of a Ray that this one started have its environment already; given some of it once more by Tune, as
    those of a cluster are, trials could not have the processes that wait for them, and would start others."""
    own: Any = ray_worker._global_node
    if not own.head:
        yield
        return
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = before


def _make_time_watch(experiment: Experiment, config: SearchConfig, slots: Slots) -> TimeWatch | None:
    if config.trial_timeout_s is None:
        return None
    return TimeWatch(experiment, config.trial_timeout_s, waits_for_word=slots.slot.num_workers > 1)


def _reservation(slot: Slot) -> dict[str, float] | tune.PlacementGroupFactory:
    """What Tune holds for a trial; a worker group finds its own nodes."""
    if slot.num_workers == 1 and slot.node_labels:
        return tune.PlacementGroupFactory([slot.trial_resources], bundle_label_selector=[dict(slot.node_labels)])
    return slot.trial_resources


def _trial_dirname(trial: tune.experiment.Trial) -> str:
    return f"{trial.config['number']:05d}"


def _quiet_tune() -> None:
    """Our own progress is shown and the study is the record: Tune's printing, logging and snapshots are for nothing."""
    usage.tag_callbacks = lambda callbacks: False  # it loads MLflow, W&B and Comet to count their callbacks
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(10**9)

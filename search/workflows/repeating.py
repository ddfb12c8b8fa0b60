"""Training repetitions: on the cluster like the trials of a search, in an experiment of their own."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.files import write_aside
from fmnist_models.folds import FoldedImages
from fmnist_models.training import Training
from search.configuration.config import SearchConfig
from search.records.csv_text import table_as_csv
from search.records.experiment import Experiment
from search.records.lock import hold_experiment
from search.records.record import list_trials, open_study
from search.records.repetition import Repetition, by_key, list_lost
from search.records.results import read_trials
from search.running.continuation import begin_run, check_continuation
from search.running.preparation import Prepared
from search.running.progress import Progress
from search.running.runner import Outcome, run_trials
from search.running.slots import Slots
from search.running.trainable import Trainable
from search.study.search_study import SearchStudy


def are_trained(experiment: Experiment, wanted: Sequence[Repetition]) -> bool:
    """Whether each of the repetitions has been trained to its end, or has failed for good.

    Raises:
        ExperimentError: the study that holds them is damaged or cannot be reached.
    """
    experiment.fetch()
    trials = list_trials(experiment) if experiment.exists() else []
    running = [key for key, trial in by_key(trials).items() if not trial.state.is_finished()]
    return not _missing(trials, wanted) and not any(one.key in running for one in wanted)


def check_configuration(experiment: Experiment, prepared: Prepared) -> None:
    """Makes sure that what the experiment holds, if anything, was trained under the configuration of ``prepared``.

    Raises:
        ConfigError: it was not; shows each key that differs.
    """
    check_continuation(experiment, _derive_config(prepared, 0, time_left_s=None, keep_weights=False))


def train_repetitions(
    experiment: Experiment,
    prepared: Prepared,
    slots: Slots,
    wanted: Sequence[Repetition],
    *,
    title: str,
    progress: Progress,
    time_left_s: float | None = None,
    keep_weights: bool = False,
    is_held: bool = False,
    make_training: Callable[..., Trainable] = Training,
) -> Outcome:
    """Trains those of the repetitions that have not been trained, on the connected Ray cluster.

    A repetition keeps its number, its seed and what it has trained, whatever else is wanted later; one whose machine
    failed is a new trial. ``prepared``: of the
    search, or with other images. ``time_left_s``: seconds after which no more is trained. ``keep_weights``: each keeps
    the weights of its last epoch, else none does in the end. ``is_held``: this process holds the experiment already.

    Raises:
        ConfigError: those there were trained under another configuration.
        ExperimentError: another process is at it, or what happens cannot be recorded.
        KeyboardInterrupt: SIGINT.
    """
    is_done = are_trained(experiment, wanted)
    check_configuration(experiment, prepared)
    if is_done:
        if not keep_weights:  # a crash may have come before they were removed
            remove_checkpoints(experiment)
        return Outcome.FINISHED
    if time_left_s is not None and time_left_s <= 0:
        return Outcome.OUT_OF_TIME
    before = list_trials(experiment) if experiment.exists() else []
    total = len(before) + len(_missing(before, wanted))
    config = _derive_config(prepared, total, time_left_s=time_left_s, keep_weights=keep_weights)
    with contextlib.nullcontext() if is_held else hold_experiment(experiment):
        begin_run(experiment, config, num_slots=min(slots.count, total))
        study = open_study(experiment, study_storage=config.study_storage, direction=DIRECTIONS[config.metric])
        trials = study.get_trials(deepcopy=False)
        missing = _missing(trials, wanted)
        config = config.model_copy(update={"max_trials": len(trials) + len(missing)})
        progress.begin(title, config, trials)
        outcome = run_trials(
            experiment,
            dataclasses.replace(prepared, config=config),
            slots,
            study=SearchStudy(study, config, repetitions=missing, experiment=experiment),
            progress=progress,
            make_training=make_training,
        )
        if outcome == Outcome.FINISHED and not keep_weights:
            remove_checkpoints(experiment)
        write_aside(experiment.trials_table, table_as_csv(read_trials(experiment)))
        experiment.send()
        return outcome


def remove_checkpoints(experiment: Experiment) -> None:
    """Those that are there: on object storage one list tells, and not requests for each trial."""
    there = None if experiment.store is None else set(experiment.store.find(experiment.trials))
    for trial in list_trials(experiment):
        files = experiment.trial(trial.number)
        paths = (files.last, files.best)
        files.remove(*(path for path in paths if there is None or path in there or path.exists()))


def _missing(trials: Sequence[FrozenTrial], wanted: Sequence[Repetition]) -> list[Repetition]:
    """Those that no trial is, or none that has come to its own end or may yet do so."""
    there, lost = by_key(trials), list_lost(trials)
    return [one for one in wanted if one.key not in there or one.key in lost]


def _derive_config(
    prepared: Prepared, num_trials: int, *, time_left_s: float | None, keep_weights: bool
) -> SearchConfig:
    """The search's configuration without what chooses: nothing is drawn and nothing pruned."""
    config = prepared.config
    return config.model_copy(
        update={
            "max_trials": num_trials,
            "sampler": "random",
            "pruner": "none",
            "time_budget_s": time_left_s,
            "keep_checkpoints": num_trials if keep_weights else 1,
            "confirm": None,
            "mlflow": None,
            "objective": config.objective if isinstance(prepared.data, FoldedImages) else None,
        }
    )

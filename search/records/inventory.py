"""The experiments of a folder: what each is, how far it is and what it takes on disk. Neither Ray nor torch."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.errors import UserError
from search.errors import DatabaseError, ExperimentError
from search.records.confirmation import is_settled
from search.records.experiment import Experiment, locate_experiment
from search.records.record import best_trial, list_trials
from search.records.results import read_settings
from search.records.store import Store

_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are
_MAX_HOLDER_BYTES = 1000


class State(StrEnum):
    """Of an experiment."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"
    DAMAGED = "damaged"
    UNREACHABLE = "unreachable"  # its database is, or nobody said that it may be connected to


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a search is: ``num_ended`` of ``max_trials`` trials; ``num_open`` are not at their end.

    ``best_value``: of the best complete trial, in ``metric``; ``None`` if none is complete, or they are folds.
    ``is_settled``: nothing is left of its confirmation, if it wants one.
    """

    num_ended: int
    num_open: int
    max_trials: int
    dataset: str
    metric: str
    best_value: float | None
    is_settled: bool = True

    @property
    def is_finished(self) -> bool:
        return self.num_ended >= self.max_trials and not self.num_open and self.is_settled


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An experiment at a glance.

    ``holder``: who runs it, if anybody does. ``progress``: ``None`` if it cannot be read; ``message`` says why.
    ``changed``: when the last of its files was; ``size_bytes``: what they take on disk.
    """

    name: str
    state: State
    holder: str | None
    progress: Progress | None
    message: str | None
    changed: datetime | None
    size_bytes: int


def list_experiments(directory: Path | Store) -> list[Experiment]:
    """The experiments of a folder by name, damaged ones too; none if there is no such folder.

    Raises:
        ExperimentError: it is no folder, or not readable.
    """
    if isinstance(directory, Store):
        found = [locate_experiment(name, directory=directory) for name in directory.names() if not name.startswith(".")]
        for experiment in found:
            experiment.fetch()
        return [experiment for experiment in found if experiment.exists() or os.path.isfile(experiment.config)]
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ExperimentError(f"the experiments folder {directory} cannot be read: {error.strerror}") from error
    experiments = [Experiment((directory / name).absolute()) for name in names if not name.startswith(".")]
    return [experiment for experiment in experiments if experiment.exists() or os.path.isfile(experiment.config)]


def summarise(experiment: Experiment, *, until: datetime | None = None) -> Summary:
    """What the experiment's files say of it; makes and changes none.

    ``until``: a moment, with its time zone; ``progress`` is as it was then, and ``None`` if no trial had begun.
    """
    size_bytes, changed, holder, progress, message, reachable = 0, None, None, None, None, True
    try:
        size_bytes, changed = _measure(experiment)
        experiment.check_files()
        holder = find_holder(experiment)
        progress = _read_progress(experiment, until)
    except DatabaseError as error:
        message, reachable = str(error), False
    except Exception as error:  # whatever a stranger's files make a reader stumble over, the others are still listed
        message = str(error) if isinstance(error, (UserError, OSError)) else repr(error)
    return Summary(
        name=experiment.name,
        state=_judge(holder, progress, reachable=reachable),
        holder=holder,
        progress=progress,
        message=message,
        changed=changed,
        size_bytes=size_bytes,
    )


def find_holder(experiment: Experiment) -> str | None:
    """Who runs the experiment, as its lock says; ``None`` if nobody does. Makes and changes no file.

    Raises:
        OSError: the lock cannot be looked at.
    """
    try:
        # Without O_NONBLOCK this would wait for whoever writes to a named pipe in the lock's place.
        descriptor = os.open(experiment.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that only look do not meet each other
    except BlockingIOError:
        return os.read(descriptor, _MAX_HOLDER_BYTES).decode(errors="replace").strip() or "another process"
    except OSError:  # a file system that cannot lock files: a search would not have started there
        return None
    finally:
        os.close(descriptor)
    return None


def _measure(experiment: Experiment) -> tuple[int, datetime | None]:
    return measure_folder(experiment.path) if experiment.store is None else experiment.store.measure(experiment.path)


def measure_folder(path: Path) -> tuple[int, datetime]:
    """What the files below a folder take on disk, in bytes, and when the last of them was changed."""
    size_bytes, changed_s = 0, 0.0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                status = os.lstat(os.path.join(folder, name))
                size_bytes += status.st_blocks * _BLOCK_BYTES
                changed_s = max(changed_s, status.st_mtime)
    return size_bytes, datetime.fromtimestamp(changed_s).astimezone()


def _read_progress(experiment: Experiment, until: datetime | None) -> Progress | None:
    settings = read_settings(experiment)
    trials = list_trials(experiment)
    if until is not None:
        trials = _as_of(trials, until)
        if not trials:
            return None
    best = best_trial(trials, settings["metric"])
    num_ended = sum(trial.state.is_finished() for trial in trials)
    return Progress(
        num_ended=num_ended,
        num_open=len(trials) - num_ended,
        max_trials=settings["max_trials"],
        dataset=settings["dataset"],
        metric=settings["metric"],
        best_value=None if best is None else best.value,
        is_settled=is_settled(experiment, settings, trials),
    )


def _as_of(trials: Sequence[FrozenTrial], moment: datetime) -> list[FrozenTrial]:
    """The trials that had begun by then; one that ended later is running."""
    begun = [t for t in trials if t.datetime_start is not None and t.datetime_start.astimezone() <= moment]
    return [
        t if t.datetime_complete is None or t.datetime_complete.astimezone() <= moment else _running(t) for t in begun
    ]


def _running(trial: FrozenTrial) -> FrozenTrial:
    again = copy.copy(trial)
    again.state, again.values, again.datetime_complete = TrialState.RUNNING, None, None
    return again


def _judge(holder: str | None, progress: Progress | None, *, reachable: bool) -> State:
    if holder is not None:
        return State.RUNNING
    if progress is None:
        return State.DAMAGED if reachable else State.UNREACHABLE
    return State.FINISHED if progress.is_finished else State.INTERRUPTED

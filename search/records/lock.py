"""One process at a time runs an experiment."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import platform
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from search.errors import ExperimentError
from search.records.experiment import Experiment

_MAX_HOLDER = 200  # characters
# Who only looks whether an experiment is held holds it for a moment.
_ATTEMPTS = 5
_PAUSE_S = 0.02


@contextlib.contextmanager
def lock_experiment(experiment: Experiment) -> Iterator[None]:
    """Holds the experiment for this process; the system frees it when the process ends, however it ends.

    Raises:
        ExperimentError: another process holds it; says which, where and since when.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open(experiment.lock))
        _take(file, experiment)
        if os.fstat(file.fileno()).st_nlink > 1:  # the same file under another name would be emptied too
            experiment.lock.unlink()
            file = stack.enter_context(_open(experiment.lock))
            _take(file, experiment)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield


@contextlib.contextmanager
def hold_experiment(experiment: Experiment) -> Iterator[None]:
    """Holds the experiment for this process, from before anything is read, compared or measured for it; makes its
    folder. What a start made that came to no study is removed at the end (see ``_remove_start``).

    Raises:
        ExperimentError: the folder is not writable, another process runs the experiment, a file that grows is
            hard-linked or no plain file, or the object storage cannot be reached.
    """
    before = set(os.listdir(experiment.path)) if experiment.path.is_dir() else None
    parents = [parent for parent in experiment.path.parents if not parent.exists()]
    try:
        experiment.create()
        folder = experiment.path.stat()
        with lock_experiment(experiment):
            try:
                _check_written_in_place(experiment)
                if experiment.store is not None:
                    experiment.store.fetch(experiment.path)
                yield
            finally:
                _remove_start(experiment, folder, before)
    finally:
        with contextlib.suppress(OSError):  # not empty, or not there
            for parent in parents:
                parent.rmdir()


def _check_written_in_place(experiment: Experiment) -> None:
    """Makes sure that what a search appends to is a file that has no other name: that would be an untrusted person's
    choice of a file, or a copy of the experiment that was made with hard links.

    Raises:
        ExperimentError: a file has another name, or is no plain file.
    """
    for path in (experiment.journal, experiment.log, experiment.test_looks):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                raise ExperimentError(f"{path} is no plain file; move it away")
            if found.st_nlink > 1:
                raise ExperimentError(
                    f"{path} is hard-linked to another file, which would be changed too; copy {experiment.path} "
                    "without hard links (cp -r) and continue the copy"
                )


def _open(path: Path) -> TextIO:
    """Follows no link, waits for no pipe, and leaves what is in the file."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise ExperimentError(f"{path} cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ExperimentError(f"{path} is no plain file")
    return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")


def _take(file: TextIO, experiment: Experiment) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if attempt + 1 < _ATTEMPTS:
                time.sleep(_PAUSE_S)
                continue
            holder = " ".join(file.read(_MAX_HOLDER).split()) or "another process"
            raise ExperimentError(
                f"experiment {experiment.name} is being run by {holder}; wait for it, or end it"
            ) from error
        except OSError as error:
            raise ExperimentError(
                f"{experiment.path} is on a file system that cannot lock files ({error.strerror}); "
                "choose another folder with --experiments-dir"
            ) from error
        break
    if not experiment.lock.exists() or not os.path.samestat(os.fstat(file.fileno()), experiment.lock.stat()):
        raise ExperimentError(f"experiment {experiment.name} was removed at this moment; try again")


def _remove_start(experiment: Experiment, folder: os.stat_result, before: set[str] | None) -> None:
    """Removes what a start made that came to no study; ``before``: what ``folder`` held, ``None`` if it was not there.

    Removes nothing if there is, or was, anything that such a start does not make, or if another folder has taken the
    place of this one: a study that cannot be found may have been moved, or be out of reach for a moment.
    """
    files = (experiment.lock, experiment.config, experiment.versions, experiment.warm_start, experiment.log)
    studies = {experiment.journal.name, experiment.reference.name}
    with contextlib.suppress(OSError):
        made = set(os.listdir(experiment.path)) - (before or set())
        unfinished = {name for name in made if fnmatch.fnmatch(name, ".*.part")}
        is_start = made - unfinished <= {path.name for path in files} | {experiment.trials.name}
        is_same = os.path.samestat(experiment.path.stat(), folder)
        if not is_start or not is_same or os.listdir(experiment.trials) or studies & (before or set()):
            return
        for name in made - {experiment.trials.name}:
            (experiment.path / name).unlink()
        if experiment.trials.name in made:
            experiment.trials.rmdir()
        if before is None:
            experiment.path.rmdir()

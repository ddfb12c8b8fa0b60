"""One process at a time runs an experiment."""

from __future__ import annotations

import contextlib
import fcntl
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
    with _open(experiment.lock) as file:
        _take(file, experiment)
        for path in (experiment.lock, experiment.journal, experiment.log):  # what is written in place
            _check_alone(path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield


def _open(path: Path) -> TextIO:
    """An untrusted link would have another file emptied, an untrusted pipe would wait."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise ExperimentError(f"{path} cannot be opened: {error.strerror}") from error
    return os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")


def _check_alone(path: Path) -> None:
    """Another name of the same file would be another file that is written to: of an untrusted person's choice, or of a
    copy of the experiment made with hard links.

    Raises:
        ExperimentError: the file has another name, or is no regular file.
    """
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise ExperimentError(f"{path} is no regular file; remove it")
        if found.st_nlink > 1:
            raise ExperimentError(
                f"{path} is hard-linked to another file, which would be changed too; copy the experiment's folder "
                "without hard links (cp -r) and continue the copy"
            )


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

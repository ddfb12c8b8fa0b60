"""One process at a time runs an experiment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
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
    try:
        # A stranger's link would have another file emptied.
        descriptor = os.open(experiment.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise ExperimentError(f"{experiment.lock} cannot be opened: {error.strerror}") from error
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        _take(file, experiment)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield


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

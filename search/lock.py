"""One process at a time runs an experiment."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator

from search.errors import ExperimentError
from search.experiment import Experiment


@contextlib.contextmanager
def lock_experiment(experiment: Experiment) -> Iterator[None]:
    """Holds the experiment for this process; the system frees it when the process ends, however it ends.

    Raises:
        ExperimentError: another process holds it; says which, where and since when.
    """
    with experiment.lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise ExperimentError(
                f"experiment {experiment.name} is being run by {holder}; wait for it, end it, or choose another --name"
            ) from error
        except OSError as error:
            raise ExperimentError(
                f"{experiment.path} is on a file system that cannot lock files ({error.strerror}); "
                "choose another folder with --experiments-dir"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
        file.flush()
        yield

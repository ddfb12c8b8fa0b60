"""Tells MLflow of a search while it runs, from a process beside it: a slow server, or none, costs it nothing."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import IO

from search.records.address import STUDY_STORAGE_VARIABLE
from search.records.experiment import Experiment
from search.records.tracking import TRACKING_URI_VARIABLE, Target

_PATIENCE_S = 60.0  # at the end of a search
# `python -m` would import what the current folder holds before what this process imports.
_COMMAND_LINE = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); from search.cli import main; main()"


@contextlib.contextmanager
def sending(
    experiment: Experiment, target: Target | None, *, tell: Callable[[str], None], patience_s: float = _PATIENCE_S
) -> Iterator[None]:
    """Has the experiment sent now and then while the block runs, and what is left at its end, for which it waits
    ``patience_s`` at most. ``tell`` is told of problems, which are nobody's error."""
    if target is None:
        yield
        return
    environment = {**os.environ, TRACKING_URI_VARIABLE: target.tracking_uri}
    if experiment.study_storage is not None:
        environment[STUDY_STORAGE_VARIABLE] = experiment.study_storage
    arguments = ["mlflow", experiment.location, "--mlflow-experiment", target.experiment, "--until-closed"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _COMMAND_LINE, json.dumps(sys.path), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for the search, which ends this process in order
    )
    assert process.stdin is not None
    assert process.stdout is not None
    reading = threading.Thread(target=_pass_on, args=(process.stdout, tell), daemon=True)
    reading.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()  # by which the process knows that the search is over; also if this one is killed
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            tell(f"MLflow did not get all of it; `fmnist mlflow {experiment.name}` sends the rest")
        reading.join()
        process.stdout.close()


def _pass_on(lines: IO[str], tell: Callable[[str], None]) -> None:
    for line in lines:
        tell(line.strip())

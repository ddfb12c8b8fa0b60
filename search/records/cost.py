"""What a search has cost, in epochs of training; starting, saving and testing are not counted. Neither Ray nor
torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment

_MAX_BYTES = 2**24
_S_PER_HOUR = 3600


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Hours of a CPU core and of a GPU; two of a core are an hour of two, or two hours of one."""

    core_hours: float
    gpu_hours: float

    def __str__(self) -> str:
        gpus = f" and {self.gpu_hours:.3g} GPU hours" if self.gpu_hours else ""
        return f"{self.core_hours:.3g} CPU core hours{gpus}"


def measure_cost(experiment: Experiment, *, cpus: float, gpus: float) -> Cost:
    """Of all epochs of the search, of its confirmation and of its winner's last training, on trials that hold ``cpus``
    and ``gpus``. Epochs that a crash had repeated count once, those of trials trained on other machines only where the
    trials' tables are on this one."""
    tables = [table for part in (experiment, *experiment.parts) for table in part.trials.glob("*/epochs.csv")]
    hours = math.fsum(seconds for table in tables for seconds in _read_seconds(table)) / _S_PER_HOUR
    return Cost(core_hours=cpus * hours, gpu_hours=gpus * hours)


def _read_seconds(table: Path) -> list[float]:
    """What each epoch took; nothing of a table that cannot be read."""
    try:
        epochs = parse_epochs(read_bounded(table, max_bytes=_MAX_BYTES).decode())
    except (OSError, FileError, ValueError):
        return []
    return [epoch.epoch_s for epoch in epochs if math.isfinite(epoch.epoch_s) and epoch.epoch_s >= 0]

"""What a search has cost: core-hours by wall clock and in CPU time. Neither Ray nor torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.records.epochs_file import parse_epochs
from search.records.experiment import Experiment
from search.records.record import SECONDS, list_trials

_MAX_BYTES = 2**24
_S_PER_HOUR = 3600


@dataclass(frozen=True)
class Seconds:
    """What a trial took: ``epochs`` by wall clock, ``processor`` as CPU time of its processes."""

    epochs: float
    processor: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Hours of a search, its confirmation and its winner's last training.

    ``core_hours`` and ``gpu_hours``: wall-clock time of all epochs, multiplied by the cores or GPUs that a trial holds;
    they grow when other work takes the cores away. ``processor_core_hours``: CPU time of the trials' processes (of a
    worker group: its workers and the slot), including start, validation and saving; ``None`` if no trial recorded any.
    The CPU time that a killed search had not yet recorded is missing. ``num_unmeasured``: trials that trained and
    recorded no CPU time.
    """

    core_hours: float
    gpu_hours: float
    processor_core_hours: float | None
    num_unmeasured: int

    def __str__(self) -> str:
        gpus = f" and {self.gpu_hours:.3g} GPU-hours" if self.gpu_hours else ""
        told = f"{self.core_hours:.3g} core-hours{gpus} wall clock (epochs only)"
        if self.processor_core_hours is None:
            return told
        trials = f"{self.num_unmeasured} trial{'' if self.num_unmeasured == 1 else 's'}"
        unmeasured = f"; {trials} not measured" if self.num_unmeasured else ""
        return f"{told}, {self.processor_core_hours:.3g} core-hours CPU time (with start and saving{unmeasured})"


def read_held(settings: Mapping[str, Any]) -> tuple[float, float]:
    """CPUs and GPUs that a trial holds by a configuration, maybe a stranger's, as plain values."""
    cpus = settings.get("cpus_per_trial")
    return (
        _amount(settings.get("workers_per_trial") if cpus is None else cpus, otherwise=1.0),
        _amount(settings.get("gpus_per_trial"), otherwise=0.0),
    )


def measure_cost(experiment: Experiment, *, cpus: float, gpus: float) -> Cost:
    """The cost of trials that hold ``cpus`` and ``gpus`` each.

    Wall-clock time counts an epoch once that was repeated after a crash. Trials of older versions recorded no seconds:
    their tables of epochs are read instead, if these are on this machine.

    Raises:
        ExperimentError: a study is damaged or cannot be reached.
    """
    epochs_s = processor_s = 0.0
    num_measured = num_unmeasured = 0
    for part in (experiment, *experiment.parts):
        if part is not experiment:
            part.fetch()
        for trial in list_trials(part) if part.exists() else ():
            seconds = read_seconds(trial)
            if seconds is None:
                epochs = _read_epochs(part.trial(trial.number).epochs)
                epochs_s += math.fsum(epochs)
                num_unmeasured += bool(epochs or trial.intermediate_values)
            else:
                epochs_s, processor_s = epochs_s + seconds.epochs, processor_s + seconds.processor
                num_measured += 1
    return Cost(
        core_hours=cpus * epochs_s / _S_PER_HOUR,
        gpu_hours=gpus * epochs_s / _S_PER_HOUR,
        processor_core_hours=processor_s / _S_PER_HOUR if num_measured else None,
        num_unmeasured=num_unmeasured,
    )


def read_seconds(trial: FrozenTrial) -> Seconds | None:
    """What a trial says that it took; ``None`` if it does not say, or nothing that makes sense."""
    told = trial.user_attrs.get(SECONDS)
    if not isinstance(told, Mapping):
        return None
    epochs, processor = (_amount(told.get(key), otherwise=math.nan) for key in ("epochs", "processor"))
    return None if math.isnan(epochs + processor) else Seconds(epochs, processor)


def _amount(value: object, *, otherwise: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 1e12 else otherwise  # type: ignore[arg-type, operator]


def _read_epochs(table: Path) -> list[float]:
    """What each epoch took, in seconds; nothing of a table that cannot be read."""
    try:
        epochs = parse_epochs(read_bounded(table, max_bytes=_MAX_BYTES).decode())
    except (OSError, FileError, ValueError):
        return []
    return [epoch.epoch_s for epoch in epochs if math.isfinite(epoch.epoch_s) and epoch.epoch_s >= 0]

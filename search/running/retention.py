"""What an experiment keeps on disk: trials at work their checkpoints, the best few their weights, others none."""

from __future__ import annotations

import heapq
import math
import shutil
import time
from collections.abc import Sequence

import torch
from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import DIRECTIONS
from fmnist_models.networks import build_network
from search.configuration.config import SearchConfig
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.records.inventory import measure_folder

_SIZE = "input_size"  # of the images, which AlexNet-11 has more weights for if they are larger
_GB = 1e9
_SECONDS_BETWEEN_CHECKS = 10.0


class Retention:
    """Keeps an experiment's folder bounded while trials come and go."""

    def __init__(self, experiment: Experiment, config: SearchConfig, trials: Sequence[FrozenTrial]) -> None:
        self._experiment = experiment
        self._config = config
        self._sign = 1 if DIRECTIONS[config.metric] == "maximize" else -1
        self._best: list[tuple[float, int]] = []  # a heap of (how good, -number), the worst first
        self._live_bytes = _models_per_live_trial(config) * _model_bytes(config)
        self._checked_s = -math.inf
        for trial in trials:
            if trial.state.is_finished():
                self._experiment.trial(trial.number).remove_unfinished()
                self._rank(trial)
        self.sweep(trials)  # of all at once, which on object storage is one list and not requests for each trial

    def trial_ended(self, trial: FrozenTrial) -> None:
        """Removes what the trial's end made needless: its own checkpoints, or those of a trial it is better than."""
        files = self._experiment.trial(trial.number)
        files.remove_unfinished()
        if trial.state != TrialState.COMPLETE or trial.value is None:
            files.remove_checkpoints()
            return
        files.remove(files.last)
        worse = self._rank(trial)
        if worse is not None:
            files = self._experiment.trial(worse)
            files.remove(files.best)

    def sweep(self, trials: Sequence[FrozenTrial]) -> None:
        """Removes what processes saved of trials after these had ended."""
        kept = {-number for _, number in self._best}
        store = self._experiment.store
        there = None if store is None else set(store.find(self._experiment.trials))
        for trial in trials:
            if trial.state.is_finished():
                files = self._experiment.trial(trial.number)
                surplus = [files.last] if trial.number in kept else [files.last, files.best]
                files.remove(*(path for path in surplus if there is None or path in there or path.exists()))

    def _rank(self, trial: FrozenTrial) -> int | None:
        """Puts a trial among the best if it belongs there; gives the number of the one that does not any more."""
        if trial.state != TrialState.COMPLETE or trial.value is None:
            return None
        heapq.heappush(self._best, (self._sign * trial.value, -trial.number))
        return -heapq.heappop(self._best)[1] if len(self._best) > _num_kept(self._config) else None

    def before_trial(self) -> None:
        """Makes sure that one more trial has room.

        Raises:
            ExperimentError: it has not.
        """
        free_bytes = shutil.disk_usage(self._experiment.path).free
        if free_bytes < self._live_bytes:
            raise ExperimentError(
                f"the disk of {self._experiment.path} is nearly full: {free_bytes / _GB:.3g} GB are free, and a trial "
                f"needs up to {self._live_bytes / _GB:.3g} GB; make room"
            )
        if self._config.max_disk_gb is None or time.monotonic() < self._checked_s + _SECONDS_BETWEEN_CHECKS:
            return
        self._checked_s = time.monotonic()
        whole = self._experiment.whole
        folder = self._experiment.path if whole is None else whole.path
        used_bytes, _ = measure_folder(folder)
        if used_bytes > self._config.max_disk_gb * _GB:
            raise ExperimentError(
                f"{folder} takes {used_bytes / _GB:.3g} GB, more than max_disk_gb: "
                f"{self._config.max_disk_gb:g}; raise it, or lower keep_checkpoints"
            )


def check_room(experiment: Experiment, config: SearchConfig, *, num_slots: int) -> None:
    """Makes sure that there is room for all that a search keeps at the same time; the folder may not exist yet.

    Raises:
        ExperimentError: the disk has not.
        ConfigError: ``config.max_disk_gb`` has not.
    """
    num_live, num_kept = _count_trials_on_disk(config, num_slots)
    need_bytes = (num_live * _models_per_live_trial(config) + num_kept) * _model_bytes(config)
    trials = "1 trial" if num_live == 1 else f"{num_live} trials"
    what = f"{trials} at a time and the best {num_kept} need up to {need_bytes / _GB:.3g} GB"
    advice = "lower max_concurrent_trials or keep_checkpoints"
    if config.max_disk_gb is not None and need_bytes > config.max_disk_gb * _GB:
        raise ConfigError(f"max_disk_gb: {what}, but got {config.max_disk_gb:g}; raise it, or {advice}")
    folder = next(path for path in (experiment.path, *experiment.path.parents) if path.exists())
    have_bytes = shutil.disk_usage(folder).free + measure_folder(experiment.path)[0]
    if need_bytes > have_bytes:
        raise ExperimentError(
            f"the disk of {experiment.path} has too little room: {what}, but {have_bytes / _GB:.3g} GB are free; "
            f"make room, or {advice}"
        )


def _count_trials_on_disk(config: SearchConfig, num_slots: int) -> tuple[int, int]:
    """How many trials train at the same time, at most, and how many keep their weights."""
    confirm = config.confirm
    num_confirming = min(confirm.top, config.max_trials) * confirm.seeds if confirm is not None else 0
    return min(num_slots, max(config.max_trials, num_confirming)), min(_num_kept(config), config.max_trials)


def _num_kept(config: SearchConfig) -> int:
    """Trials that keep their weights: those that are confirmed too, as the winner's temperature is measured with them
    on validation images that they were not trained on."""
    return max(config.keep_checkpoints, 0 if config.confirm is None else config.confirm.top)


def _models_per_live_trial(config: SearchConfig) -> int:
    """What a trial at work has at most on disk, in sizes of its model: the best epoch's weights, the last epoch's with
    their average, where there is one, and both moments of Adam, and the latter once more while it is written aside."""
    averages = "ema" in config.space.dimensions and any(config.space.dimensions["ema"].values())
    return 1 + 2 * (4 if averages else 3)


def _model_bytes(config: SearchConfig) -> int:
    """The size of the largest network of the space."""
    size = config.space.dimensions.get(_SIZE)
    choices = [{}, *({_SIZE: value} for value in (size.values() if size else ()))]
    with torch.device("meta"):
        models = [
            build_network(network.name, choice)
            for network in config.space.networks
            for choice in choices
            if choice.keys() <= network.hyperparameters.__dataclass_fields__.keys()
        ]
    sizes = [[tensor.nbytes for tensor in model.state_dict().values()] for model in models]
    return max(map(sum, sizes))

"""Kills the process of a trial that exceeded its time limit and did not end itself."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from search.records.experiment import Experiment
from search.running.time_limit import note_timeout

_GRACE_S = 15.0  # for the trial to begin, and for its process to end itself
_RESET_S = 90.0  # for a warm process to take up a trial: longer than it may wait for the thread of the last one


class TimeWatch(tune.Callback):
    """Kills, on whichever node, the process of a trial that has run for ``timeout_s`` seconds and a grace: a process
    that is stopped, or hangs in a driver or a file system, cannot end itself. So it does with a warm process that does
    not take up its next trial, which then goes to another one.

    ``waits_for_word``: a trial's time starts with its first report, because its workers may wait for resources before
    that; otherwise it starts when Tune sets the trial to RUNNING.
    """

    def __init__(self, experiment: Experiment, timeout_s: float, *, waits_for_word: bool) -> None:
        self._experiment = experiment
        self._timeout_s = timeout_s
        self._waits_for_word = waits_for_word
        self._controllers: dict[TuneTrial, Any] = {}
        self._since_s: dict[TuneTrial, float] = {}  # when trials began
        self._reset_since_s: dict[TuneTrial, float] = {}  # when warm processes were to take them up

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; the study is the record

    def follow(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Watches a trial until it ends."""
        self._controllers[trial] = tune_controller

    def on_trial_result(self, iteration: int, trials: list[Any], trial: TuneTrial, result: Any, **info: Any) -> None:
        self._since_s.setdefault(trial, time.monotonic())

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now_s = time.monotonic()
        for trial, controller in list(self._controllers.items()):
            is_resetting = trial in getattr(controller, "_resetting_trials", ())
            if is_resetting or trial.status != TuneTrial.RUNNING:
                self._since_s.pop(trial, None)
            if trial.is_finished():  # type: ignore[no-untyped-call]
                self._forget(trial)
            elif is_resetting:
                if now_s > self._reset_since_s.setdefault(trial, now_s) + _RESET_S:
                    self._reset_since_s[trial] = now_s
                    _kill_process(trial)
            elif trial.status == TuneTrial.RUNNING:
                self._reset_since_s.pop(trial, None)
                if not self._waits_for_word:
                    self._since_s.setdefault(trial, now_s)
                if now_s > self._since_s.get(trial, now_s) + self._timeout_s + _GRACE_S:
                    self._end(trial)

    def _end(self, trial: TuneTrial) -> None:
        note_timeout(self._experiment.trial(trial.config["number"]), self._timeout_s, grace_s=_GRACE_S)
        trial.max_failures = 0  # as for any trial that takes too long, there is no other attempt
        self._forget(trial)
        _kill_process(trial)

    def _forget(self, trial: TuneTrial) -> None:
        del self._controllers[trial]
        self._since_s.pop(trial, None)
        self._reset_since_s.pop(trial, None)


def _kill_process(trial: TuneTrial) -> None:
    handle = trial.temporary_state.ray_actor
    if handle is not None:  # else it has just died, which Tune will tell
        ray.kill(handle)

"""A search in virtual time: the study decides as it always does, and a recorded table says what a training gives.

Hundreds of searches take a minute, and a fleet of a thousand slots one process, so that a change to the sampler or a
pruner can be judged by what comes out. Neither Ray nor a training.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import optuna
from optuna.trial import TrialState

from fmnist_models.epoch import DIRECTIONS, Epoch, is_better
from search.configuration.config import SearchConfig
from search.study.horizon import Horizon
from search.study.recorded_table import RecordedTable
from search.study.search_study import Assignment, SearchStudy

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """``num_slots`` trials at a time. Virtual seconds: ``start_s`` from a trial's assignment to its first batch, and
    what the one driver takes to hand out a trial (``suggest_s``) and to hear of an epoch (``report_s``), during which
    everybody else waits who wants something of it."""

    num_slots: int
    start_s: float = 0.0
    suggest_s: float = 0.0
    report_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A trial that ended at ``time_s`` of virtual time. ``value``: its best; ``last_value``: what it would have had
    after all its epochs, if nothing had pruned it."""

    number: int
    state: TrialState
    time_s: float
    value: float
    last_value: float


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """What came out. ``busy_s``: virtual seconds of training over all slots; ``driver_s``: CPU seconds, real ones, that
    the study took for all its decisions."""

    metric: str
    num_slots: int
    num_epochs: int
    busy_s: float
    driver_s: float
    trials: tuple[Ended, ...]

    @property
    def duration_s(self) -> float:
        """Virtual seconds until the last trial ended."""
        return max(trial.time_s for trial in self.trials)

    @property
    def idle_share(self) -> float:
        """The share of all slots' time in which nothing was trained."""
        return 1 - self.busy_s / (self.num_slots * self.duration_s)

    @property
    def driver_s_per_trial(self) -> float:
        return self.driver_s / len(self.trials)

    def best_value(self, *, after: int) -> float:
        """The best value of the complete ones among the first ``after`` trials."""
        values = [t.value for t in self.trials if t.number < after and t.state == TrialState.COMPLETE]
        return max(values) if DIRECTIONS[self.metric] == "maximize" else min(values)

    def time_to(self, value: float) -> float | None:
        """Virtual seconds until a complete trial was at least as good as ``value``; ``None`` if none was."""
        times = [
            trial.time_s
            for trial in self.trials
            if trial.state == TrialState.COMPLETE and not is_better(value, trial.value, metric=self.metric)
        ]
        return min(times, default=None)


def simulate(config: SearchConfig, table: RecordedTable, fleet: Fleet, *, horizon: Horizon | None = None) -> Simulated:
    """A whole search of ``config``, whose space and number of epochs are the table's."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=DIRECTIONS[config.metric])
    return _Simulation(SearchStudy(study, config, horizon=horizon), config, table, fleet).run()


@dataclass
class _Simulation:
    study: SearchStudy
    config: SearchConfig
    table: RecordedTable
    fleet: Fleet
    driver_free_s: float = 0.0
    driver_s: float = 0.0
    busy_s: float = 0.0
    num_epochs: int = 0
    curves: dict[int, list[Epoch]] = field(default_factory=dict)  # of the trials at work
    coming: list[tuple[float, int, int]] = field(default_factory=list)  # a heap of (time, trial, epoch)
    ended: list[Ended] = field(default_factory=list)

    def run(self) -> Simulated:
        self._hand_out(0.0)
        while self.coming:
            self._epoch_ended(*heapq.heappop(self.coming))
        return Simulated(
            metric=self.config.metric,
            num_slots=self.fleet.num_slots,
            num_epochs=self.num_epochs,
            busy_s=self.busy_s,
            driver_s=self.driver_s,
            trials=tuple(self.ended),
        )

    def _hand_out(self, now_s: float) -> None:
        while len(self.curves) < self.fleet.num_slots:
            assignment: Assignment | None = self._decide(self.study.next_assignment)
            if assignment is None:
                return
            self.curves[assignment.number] = self.table.epochs(assignment.hyperparameters)
            self._begin(assignment.number, 1, self._driver(now_s, self.fleet.suggest_s) + self.fleet.start_s)

    def _begin(self, number: int, epoch: int, at_s: float) -> None:
        seconds = self.curves[number][epoch - 1].epoch_s
        self.busy_s += seconds
        heapq.heappush(self.coming, (at_s + seconds, number, epoch))

    def _epoch_ended(self, now_s: float, number: int, epoch: int) -> None:
        self.num_epochs += 1
        state = self._decide(lambda: self.study.report(number, self.curves[number][epoch - 1]))
        heard_s = self._driver(now_s, self.fleet.report_s)
        if state == TrialState.RUNNING:
            self._begin(number, epoch + 1, heard_s)
            return
        values = [epoch.metric(self.config.metric) for epoch in self.curves.pop(number)]
        best = max if DIRECTIONS[self.config.metric] == "maximize" else min
        self.ended.append(
            Ended(number=number, state=state, time_s=heard_s, value=best(values[:epoch]), last_value=values[-1])
        )
        self._hand_out(heard_s)

    def _driver(self, now_s: float, seconds: float) -> float:
        """When the driver, asked at ``now_s``, is done."""
        self.driver_free_s = max(now_s, self.driver_free_s) + seconds
        return self.driver_free_s

    def _decide(self, decide: Callable[[], _T]) -> _T:
        start_s = time.process_time()
        try:
            return decide()
        finally:
            self.driver_s += time.process_time() - start_s

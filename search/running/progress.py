"""Telling a person how a search goes: a calm live view in a terminal, one line per finished trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fmnist_models.epoch import Epoch, is_better
from fmnist_models.errors import printable
from search.configuration.config import SearchConfig
from search.configuration.space import MODEL
from search.records.fold_values import describe_epochs
from search.records.record import MESSAGE, REASON, STATE_NAMES, best_epoch, best_value
from search.records.repetition import read_repetition
from search.records.results import compact_parameters, format_value
from search.study.search_study import Assignment


class Progress(Protocol):
    """Is told what happens in a search."""

    def begin(self, title: str, config: SearchConfig, before: Sequence[FrozenTrial]) -> None:
        """From now on it is told of another study's trials, of which there are ``before`` already."""

    def trial_started(self, assignment: Assignment) -> None: ...

    def epoch_ended(self, number: int, epoch: Epoch) -> None: ...

    def trial_ended(self, trial: FrozenTrial) -> None: ...

    def waiting_for_slot(self) -> None: ...


class SilentProgress:
    """Tells nobody."""

    def begin(self, title: str, config: SearchConfig, before: Sequence[FrozenTrial]) -> None: ...

    def trial_started(self, assignment: Assignment) -> None: ...

    def epoch_ended(self, number: int, epoch: Epoch) -> None: ...

    def trial_ended(self, trial: FrozenTrial) -> None: ...

    def waiting_for_slot(self) -> None: ...


class SearchProgress(AbstractContextManager["SearchProgress"]):
    """Counts and shows: live if ``console`` is a terminal, else line by line. ``before`` are the trials that the
    study held at the start."""

    def __init__(self, console: Console, config: SearchConfig, before: Sequence[FrozenTrial]) -> None:
        self._console = console
        self._live: Live | None = None
        self._start(config, before)
        if console.is_terminal:
            self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def _start(self, config: SearchConfig, before: Sequence[FrozenTrial]) -> None:
        self._config = config
        self._metric = config.metric if config.dataset == "fashion-mnist" else f"{config.dataset} {config.metric}"
        self._counts = dict.fromkeys((TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL), 0)
        self._best: tuple[float, int, str] | None = None
        self._running: dict[int, tuple[str, int, Epoch | None]] = {}  # its network, epochs to train, newest epoch
        self._start_s = time.monotonic()
        for trial in before:
            if trial.state in self._counts:
                self._count(trial)
        self._num_before = sum(self._counts.values())

    def __enter__(self) -> SearchProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def begin(self, title: str, config: SearchConfig, before: Sequence[FrozenTrial]) -> None:
        self._start(config, before)
        self._console.print(Text(printable(title), style="bold"), soft_wrap=True)

    def trial_started(self, assignment: Assignment) -> None:
        num_epochs = assignment.num_epochs or self._config.max_epochs
        self._running[assignment.number] = (str(assignment.hyperparameters[MODEL]), num_epochs, None)

    def epoch_ended(self, number: int, epoch: Epoch) -> None:
        self._running[number] = (*self._running[number][:2], epoch)

    def trial_ended(self, trial: FrozenTrial) -> None:
        self._running.pop(trial.number, None)
        self._count(trial)
        self._console.print(self._line(trial), highlight=False, soft_wrap=True)

    def waiting_for_slot(self) -> None:
        self._console.print("waiting for a free slot: what the cluster has is in use, or not there yet", style="yellow")

    def _count(self, trial: FrozenTrial) -> None:
        self._counts[trial.state] += 1
        value = best_value(trial, self._config.metric)
        best = self._best[0] if self._best else None
        complete = trial.state == TrialState.COMPLETE
        if complete and value is not None and is_better(value, best, metric=self._config.metric):
            self._best = (value, trial.number, str(trial.params.get(MODEL, "")))

    def _line(self, trial: FrozenTrial) -> Text:
        epoch, value = best_epoch(trial, self._config.metric), best_value(trial, self._config.metric)
        repetition = read_repetition(trial)
        what = f"  {repetition}" if repetition else ""
        line = Text(f"trial {trial.number:>3}  {STATE_NAMES[trial.state]:<8}{what}  ")
        if trial.state == TrialState.FAIL:
            return line.append(printable(f"{trial.user_attrs[REASON]}: {trial.user_attrs[MESSAGE]}"), style="red")
        is_best = self._best is not None and self._best[1] == trial.number
        line.append(
            f"{self._metric} {value:.4f} ({describe_epochs(trial, epoch)})",
            style="bold green" if is_best else "dim" if trial.state == TrialState.PRUNED else "",
        )
        parameters = compact_parameters(trial.params)
        return line.append("  " + ", ".join(f"{k}={format_value(v)}" for k, v in parameters.items()), style="dim")

    def _render(self) -> RenderableType:
        done = sum(self._counts.values())
        elapsed_s = time.monotonic() - self._start_s
        summary = Text.assemble(
            (f"{done}/{self._config.max_trials} trials", "bold"),
            f"  {self._counts[TrialState.COMPLETE]} complete, {self._counts[TrialState.PRUNED]} pruned, "
            f"{self._counts[TrialState.FAIL]} failed   ",
            f"{_clock(elapsed_s)} elapsed{self._estimate(done, elapsed_s)}   on {self._config.dataset}",
        )
        if self._best:
            value, number, model = self._best
            summary.append(f"\nbest so far: {self._metric} {value:.4f} (trial {number} {model})", style="green")
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("trial", "model", "epoch", "train_loss", "val_loss", "val_accuracy"):
            table.add_column(name, justify="left" if name == "model" else "right")
        for number, (model, num_epochs, last) in sorted(self._running.items()):
            values = [f"{v:.4f}" for v in (last.train_loss, last.val_loss, last.val_accuracy)] if last else ["…"] * 3
            table.add_row(str(number), model, self._epoch(last, num_epochs), *values)
        return Group(summary, table)

    def _epoch(self, last: Epoch | None, num_epochs: int) -> str:
        done = last.epoch if last else 0
        if self._config.folds is None:
            return f"{done}/{num_epochs}"
        fold = max(0, done - 1) // num_epochs
        return f"fold {fold + 1}/{self._config.folds}, {done - fold * num_epochs}/{num_epochs}"

    def _estimate(self, done: int, elapsed_s: float) -> str:
        here = done - self._num_before
        if here < 1:
            return ""
        left_s = elapsed_s / here * (self._config.max_trials - done)
        if self._config.time_budget_s is not None:
            left_s = min(left_s, max(0.0, self._config.time_budget_s - elapsed_s))
        return f", about {_clock(left_s)} left"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"

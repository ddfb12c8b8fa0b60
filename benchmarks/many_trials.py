"""What the study alone costs per trial without any work, from the first thousand to the last; neither Ray nor slots.

`python -m benchmarks.many_trials [--trials 10000] [--sampler tpe] [--pruner halving] [--deterministic]`. Each trial has
up to three epochs. Seconds are those of a clock (`wall`) and of the CPU (`cpu`), as other work on the machine counts
only for the first.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import is_standard, keep
from fmnist_models.epoch import Epoch
from search.configuration.config import SearchConfig, parse_config
from search.records.experiment import Experiment
from search.study.search_study import Assignment, SearchStudy

SPACE = {
    "model": {"choice": ["customnet", "resnet18"]},
    "lr": {"float": [1e-4, 1e-1], "log": True},
    "weight_decay": {"float": [1e-4, 1e-1], "log": True},
    "dropout": {"float": [0.0, 0.7]},
    "unfreeze": {"subset": ["layer3", "layer4"]},
}
_NUM_EPOCHS = 3


def by_clock_and_cpu(wall: float, cpu: float, *, factor: float = 1.0) -> dict[str, float]:
    return {"wall": float(f"{wall * factor:.4g}"), "cpu": float(f"{cpu * factor:.4g}")}


@dataclass
class Stretch:
    """Some trials in a row: seconds of a clock and of the CPU, all in all and for their suggestions; epochs."""

    trials: int = 0
    epochs: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    suggest_wall_s: float = 0.0
    suggest_cpu_s: float = 0.0

    def to_dict(self) -> dict[str, dict[str, float]]:
        rest_wall_s, rest_cpu_s = self.wall_s - self.suggest_wall_s, self.cpu_s - self.suggest_cpu_s
        return {
            "ms_per_trial": by_clock_and_cpu(self.wall_s, self.cpu_s, factor=1e3 / self.trials),
            "ms_per_suggestion": by_clock_and_cpu(self.suggest_wall_s, self.suggest_cpu_s, factor=1e3 / self.trials),
            "ms_per_epoch_reported": by_clock_and_cpu(rest_wall_s, rest_cpu_s, factor=1e3 / self.epochs),
        }


def run(study: SearchStudy, stretches: dict[int, Stretch], *, at_once: int) -> None:
    """Trains every trial, ``at_once`` side by side; each is counted in the stretch of its thousand."""
    running: deque[tuple[Assignment, int]] = deque()
    while True:
        while len(running) < at_once:
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            assignment = study.next_assignment()
            if assignment is None:
                break
            stretch = stretches.setdefault(assignment.number // 1000, Stretch())
            stretch.trials += 1
            stretch.suggest_wall_s += time.perf_counter() - wall_s
            stretch.suggest_cpu_s += time.process_time() - cpu_s
            stretch.wall_s += time.perf_counter() - wall_s
            stretch.cpu_s += time.process_time() - cpu_s
            running.append((assignment, 0))
        if not running:
            return
        assignment, epoch = running.popleft()
        stretch = stretches[assignment.number // 1000]
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        ended = study.report(assignment.number, make_epoch(assignment, epoch + 1)).is_finished()
        stretch.epochs += 1
        stretch.wall_s += time.perf_counter() - wall_s
        stretch.cpu_s += time.process_time() - cpu_s
        if not ended:
            running.append((assignment, epoch + 1))


def make_epoch(assignment: Assignment, number: int) -> Epoch:
    """An epoch that nobody trained; its value says something about the hyperparameters."""
    accuracy = 0.9 - abs(assignment.hyperparameters["lr"] - 0.003) - 0.01 / number - assignment.number % 97 / 1e4
    loss = 1.0 - accuracy
    values = {"train_loss": loss, "train_accuracy": accuracy, "val_loss": loss, "val_accuracy": accuracy}
    return Epoch(epoch=number, lr=0.1, epoch_s=0.0, **values)


def measure(config: SearchConfig, folder: Path, *, at_once: int) -> dict[str, Any]:
    """Runs all trials but the last few, opens the study again as after a crash, and runs the rest."""
    experiment = Experiment(folder / "study")
    experiment.create()
    stretches: dict[int, Stretch] = {}
    before = config.model_copy(update={"max_trials": config.max_trials - at_once})
    run(SearchStudy.open(experiment, before), stretches, at_once=at_once)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    study = SearchStudy.open(experiment, config)
    assert study.next_assignment() is not None
    resume = by_clock_and_cpu(time.perf_counter() - wall_s, time.process_time() - cpu_s)
    whole = [stretch for _, stretch in sorted(stretches.items()) if stretch.trials >= min(1000, config.max_trials) / 2]
    (first_wall_s, first_cpu_s), (last_wall_s, last_cpu_s) = (
        (stretch.wall_s / stretch.trials, stretch.cpu_s / stretch.trials) for stretch in (whole[0], whole[-1])
    )
    return {
        "thousands": {f"from {1000 * n}": stretch.to_dict() for n, stretch in sorted(stretches.items())},
        "last_over_first": by_clock_and_cpu(last_wall_s / first_wall_s, last_cpu_s / first_cpu_s),
        "seconds_from_resume_to_the_first_new_trial": resume,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "journal_mb": round(experiment.journal.stat().st_size / 1e6, 1),
    }


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--sampler", choices=["tpe", "random"], default="tpe")
    parser.add_argument("--pruner", choices=["halving", "hyperband", "median", "none"], default="halving")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--at-once", type=int, default=4, help="trials side by side")
    arguments = parser.parse_args()
    raw = {
        "space": SPACE,
        "sampler": arguments.sampler,
        "pruner": arguments.pruner,
        "deterministic": arguments.deterministic,
        "max_concurrent_trials": arguments.at_once,
        "max_trials": arguments.trials,
        "max_epochs": _NUM_EPOCHS,
    }
    config = parse_config(raw, where="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(config, Path(folder), at_once=arguments.at_once)
    result = {"settings": vars(arguments), **measured}
    keep("many_trials", result, is_standard=is_standard(parser, arguments))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

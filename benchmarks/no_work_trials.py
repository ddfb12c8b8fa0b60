"""Seconds per trial that does no work: ours, with study, journal and TPE, beside Ray's documented nesting.

Each has a local Ray, which is started before the clock; they take turns. `python -m benchmarks.no_work_trials`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.configurations import draw
from benchmarks.no_work import NoWork
from benchmarks.peers.job import Job
from benchmarks.peers.ray_nesting import documented_ray, search
from benchmarks.results import keep, summarise
from cluster.session import local_ray
from fmnist_models.data import load_images, split_training
from search.config import parse_config
from search.experiment import new_experiment
from search.preparation import Prepared
from search.progress import SilentProgress
from search.runner import run_trials
from search.slots import local_resources, plan_slots
from search.study import SearchStudy


def ours(num_trials: int, folder: Path, *, workers: int = 1) -> SearchStudy:
    """A finished search of no-work trials, as `fmnist search run` does it."""
    images = load_images("synthetic", "train", root=folder, size=200)
    raw = {
        "dataset": "synthetic",
        "space": {
            "model": {"choice": ["customnet", "resnet18"]},
            "lr": {"float": [1e-4, 1e-1], "log": True},
            "dropout": {"float": [0.0, 0.7]},
            "unfreeze": {"subset": ["layer3", "layer4"]},
        },
        "max_trials": num_trials,
        "max_epochs": 1,
        "workers_per_trial": workers,
    }
    config = parse_config(raw, where="benchmark")
    experiment = new_experiment(folder.name, directory=folder.parent)
    experiment.create()
    study = SearchStudy.open(experiment, config)
    run_trials(
        experiment,
        Prepared(config, split_training(images, validation_fraction=0.1, seed=0), {}, ()),
        plan_slots(config, [local_resources()]),
        study=study,
        progress=SilentProgress(),
        make_training=NoWork,
    )
    assert study.is_finished()
    return study


def measure(num_trials: int, folder: Path) -> float:
    """Seconds per trial of a whole search, after a warm-up."""
    folder.mkdir()
    with _our_ray():
        ours(4, folder / "warm-up")
        start_s = time.perf_counter()
        ours(num_trials, folder / "measured")
        return (time.perf_counter() - start_s) / num_trials


def measure_groups(folder: Path) -> float:
    """Seconds per trial of two workers from the end of the first one, for which the worker group had to start."""
    with _our_ray():
        study = ours(20, folder, workers=2)
    ended = sorted(trial.datetime_complete.timestamp() for trial in study.study.trials if trial.datetime_complete)
    return (ended[-1] - ended[0]) / (len(ended) - 1)


def _our_ray() -> AbstractContextManager[None]:
    resources = local_resources()
    return local_ray(num_cpus=resources.cpus, num_gpus=resources.gpus)


def documented_nesting(num_trials: int, folder: Path, *, at_once: int) -> float:
    """Seconds per no-work trial as Ray's user guide nests Train in Tune: a TorchTrainer of one worker per trial."""
    job = Job(
        configurations=draw(num_trials, seed=0),
        num_epochs=0,
        early_stopping=False,
        num_images=0,
        num_trials_at_once=at_once,
        data_dir="",
        folder=str(folder),
    )
    job.write()
    with documented_ray(num_cpus=at_once):
        start_s = time.perf_counter()
        search(job)
        return (time.perf_counter() - start_s) / num_trials


_OURS, _NESTING, _ONE, _GROUPS = "ours", "nesting", "nesting-one-at-a-time", "ours-two-workers"


def measures(arguments: argparse.Namespace, folder: Path, *, cpus: int) -> dict[str, Callable[[], float]]:
    """What can be measured, each in seconds per trial."""
    num_trials = arguments.baseline_trials
    return {
        _OURS: lambda: measure(arguments.trials, folder / "ours"),
        _NESTING: lambda: documented_nesting(num_trials, folder / "nesting", at_once=cpus),
        _ONE: lambda: documented_nesting(num_trials, folder / "one", at_once=1),
        _GROUPS: lambda: measure_groups(folder / "groups"),
    }


def main() -> None:
    """Prints the figures and their ratios as JSON, and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = [_OURS, _NESTING, _ONE, _GROUPS]
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--trials", type=int, default=200, help="of ours, in each search")
    parser.add_argument("--baseline-trials", type=int, default=4, help="of Ray's, in each search")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cpus = local_resources().cpus
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(arguments.repeats):
            folder = Path(name, str(repeat))
            folder.mkdir()
            run = measures(arguments, folder, cpus=cpus)
            for what in arguments.only if repeat % 2 == 0 else arguments.only[::-1]:
                found.setdefault(what, []).append(run[what]())
    summaries = {what: summarise(values) for what, values in found.items()}
    medians = {what: summary["median"] for what, summary in summaries.items()}
    faster = {
        what: round(medians[what] / medians[_OURS], 1) for what in (_NESTING, _ONE) if {what, _OURS} <= set(medians)
    }
    result = {"settings": vars(arguments), "seconds_per_trial": summaries, "times_faster_than": faster}
    keep("no_work_trials", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

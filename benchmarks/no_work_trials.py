"""Seconds per trial that does no work: ours, with study, journal and TPE, beside Ray's documented nesting.

Each has a local Ray, which is started before the clock, and a search to warm it up; they take turns. Beside the whole
of a search stands what a trial costs once the search runs: from the end of the first trials, one in each place, to the
end of the last. `python -m benchmarks.no_work_trials`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.configurations import draw
from benchmarks.no_work import NoWork
from benchmarks.peers.job import Job
from benchmarks.peers.ray_nesting import documented_ray, search
from benchmarks.results import is_standard, keep, summarise
from fmnist_models.data import load_images, split_training
from search.configuration.config import parse_config
from search.records.experiment import new_experiment
from search.running.preparation import Prepared
from search.running.progress import SilentProgress
from search.running.runner import run_trials
from search.running.slots import local_resources, plan_slots
from search.study.search_study import SearchStudy


def ours(num_trials: int, folder: Path, *, workers: int = 1, num_epochs: int = 1) -> SearchStudy:
    """A finished search of no-work trials, none of them pruned, as `fmnist search run` does it."""
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
        "max_epochs": num_epochs,
        "pruner": "none",
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


def seconds_after_first(ended: Sequence[float], *, at_once: int) -> float:
    """Seconds per trial from the end of the first ``at_once`` trials, which waited for all that starts but once, to the
    end of the last; ``ended`` are the seconds at which trials ended."""
    ended = sorted(ended)
    return (ended[-1] - ended[at_once - 1]) / (len(ended) - at_once)


def measure(num_trials: int, folder: Path) -> dict[str, float]:
    """Seconds per trial of a whole search, after a warm-up, and after its first trials."""
    folder.mkdir()
    with our_ray():
        ours(4, folder / "warm-up")
        start_s = time.perf_counter()
        study = ours(num_trials, folder / "measured")
        whole = (time.perf_counter() - start_s) / num_trials
    return {_WHOLE: whole, _AFTER_FIRST: seconds_after_first(ends(study), at_once=local_resources().cpus)}


def measure_groups(folder: Path) -> dict[str, float]:
    """Of trials of two workers, which run one at a time; for the first one the worker group has to start."""
    with our_ray():
        study = ours(20, folder, workers=2)
    return {_AFTER_FIRST: seconds_after_first(ends(study), at_once=1)}


def ends(study: SearchStudy) -> list[float]:
    """When its trials ended, in seconds since 1970."""
    return [trial.datetime_complete.timestamp() for trial in study.study.trials if trial.datetime_complete]


def our_ray() -> AbstractContextManager[None]:
    """A local Ray as `fmnist search run` starts it, which sees all of this machine."""
    from cluster.session import local_ray

    resources = local_resources()
    return local_ray(num_cpus=resources.cpus, num_gpus=resources.gpus)


def documented_nesting(num_trials: int, folder: Path, *, at_once: int) -> dict[str, float]:
    """The same of no-work trials as Ray's user guide nests Train in Tune: a TorchTrainer of one worker per trial."""
    job = no_work_job(num_trials, folder / "measured", at_once=at_once)
    with documented_ray(num_cpus=at_once):
        search(no_work_job(1, folder / "warm-up", at_once=at_once))
        start_s = time.perf_counter()
        search(job)
        whole = (time.perf_counter() - start_s) / num_trials
    ended = [report["time_s"] for report in job.reports()]
    return {_WHOLE: whole, _AFTER_FIRST: seconds_after_first(ended, at_once=at_once)}


def no_work_job(num_trials: int, folder: Path, *, at_once: int) -> Job:
    """It has been written."""
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
    return job


_WHOLE, _AFTER_FIRST = "whole search", "after the first trials"
_OURS, _NESTING, _ONE, _GROUPS = "ours", "nesting", "nesting-one-at-a-time", "ours-two-workers"


def measures(arguments: argparse.Namespace, folder: Path, *, cpus: int) -> dict[str, Callable[[], dict[str, float]]]:
    """What can be measured, each in seconds per trial."""
    num_trials = arguments.baseline_trials
    return {
        _OURS: lambda: measure(arguments.trials, folder / "ours"),
        _NESTING: lambda: documented_nesting(num_trials * cpus, folder / "nesting", at_once=cpus),
        _ONE: lambda: documented_nesting(num_trials, folder / "one", at_once=1),
        _GROUPS: lambda: measure_groups(folder / "groups"),
    }


def main() -> None:
    """Prints the figures and their ratios as JSON, and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = [_OURS, _NESTING, _ONE, _GROUPS]
    parser.add_argument("--only", nargs="+", choices=known, default=known)
    parser.add_argument("--trials", type=int, default=200, help="of ours, in each search")
    parser.add_argument("--baseline-trials", type=int, default=3, help="of Ray's for each place, in each search")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cpus = local_resources().cpus
    if arguments.trials <= cpus or arguments.baseline_trials < 2:
        parser.error(f"valid are --trials from {cpus + 1}, one more than there are CPUs, and --baseline-trials from 2")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(arguments.repeats):
            folder = Path(name, str(repeat))
            folder.mkdir()
            run = measures(arguments, folder, cpus=cpus)
            for what in arguments.only if repeat % 2 == 0 else arguments.only[::-1]:
                for part, seconds in run[what]().items():
                    found.setdefault(part, {}).setdefault(what, []).append(seconds)
    summaries = {part: {what: summarise(v) for what, v in values.items()} for part, values in found.items()}
    faster = {
        part: {
            what: summarise([theirs / ours_s for ours_s, theirs in zip(values[_OURS], values[what], strict=True)])
            for what in (_NESTING, _ONE)
            if what in values and _OURS in values
        }
        for part, values in found.items()
    }
    result = {"settings": vars(arguments), "seconds_per_trial": summaries, "times_faster_than": faster}
    keep("no_work_trials", result, is_standard=is_standard(parser, arguments))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""Seconds per trial that does no work: ours, with study, journal and TPE, beside Ray's documented nesting.

Both run in one session of a local Ray, which is started before the clock. `python -m benchmarks.no_work_trials`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import train, tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from benchmarks.no_work import NoWork
from cluster.session import local_ray
from fmnist_models.data import load_images, split_training
from search.config import parse_config
from search.experiment import new_experiment
from search.preparation import Prepared
from search.progress import SilentProgress
from search.runner import run_trials
from search.slots import local_resources, plan_slots
from search.study import SearchStudy
from search.versions import collect_versions


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
    ours(4, folder / "warm-up")
    start_s = time.perf_counter()
    ours(num_trials, folder / "measured")
    return (time.perf_counter() - start_s) / num_trials


def seconds_after_first(study: SearchStudy) -> float:
    """Seconds per trial from the end of the first one, for which the slot's worker group had to start."""
    ended = sorted(trial.datetime_complete.timestamp() for trial in study.study.trials if trial.datetime_complete)
    return (ended[-1] - ended[0]) / (len(ended) - 1)


def documented_nesting(num_trials: int, folder: Path) -> float:
    """Seconds per no-work trial as Ray's user guide nests Train in Tune: a TorchTrainer of one worker per trial."""

    def train_loop(config: dict[str, Any]) -> None:
        train.report({"val_accuracy": config["lr"]})

    def driver(config: dict[str, Any]) -> None:
        TorchTrainer(
            train_loop,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(storage_path=str(folder / "train"), callbacks=[TuneReportCallback()]),
        ).fit()

    start_s = time.perf_counter()
    tune.Tuner(
        tune.with_resources(driver, {"CPU": 0.001}),
        param_space={"lr": tune.loguniform(1e-4, 1e-1)},
        tune_config=tune.TuneConfig(num_samples=num_trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    return (time.perf_counter() - start_s) / num_trials


def main() -> None:
    """Prints both figures and their ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200, help="of ours, in each of three searches")
    parser.add_argument("--baseline-trials", type=int, default=3)
    arguments = parser.parse_args()
    resources = local_resources()
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    with tempfile.TemporaryDirectory() as name, local_ray(num_cpus=resources.cpus, num_gpus=resources.gpus):
        folder = Path(name)
        runs = [measure(arguments.trials, folder / f"run-{repeat}") for repeat in range(3)]
        of_groups = [seconds_after_first(ours(20, folder / f"groups-{repeat}", workers=2)) for repeat in range(3)]
        baseline = documented_nesting(arguments.baseline_trials, folder)
    ours_s = float(np.median(runs))
    result = {
        "seconds_per_trial": round(ours_s, 4),
        "seconds_per_trial_runs": [round(run, 4) for run in runs],
        "trials_per_run": arguments.trials,
        "seconds_per_trial_of_two_workers_after_the_first": [round(run, 4) for run in of_groups],
        "documented_nesting_seconds_per_trial": round(baseline, 2),
        "times_faster": round(baseline / ours_s, 1),
        "cpus": resources.cpus,
        "versions": collect_versions(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

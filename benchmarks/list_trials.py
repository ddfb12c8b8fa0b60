"""Seconds and memory of `fmnist trials` on a study of 10,000 trials with 10 epochs each, each time in a fresh process.

`python -m benchmarks.list_trials`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.configuration.config import SearchConfig

NAME = "many"
_NUM_RUNS = 3
_STARTED, _ENDED = "2026-01-01T00:00:00.000000+00:00", "2026-01-01T00:01:00.000000+00:00"


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("options", nargs="*", default=["--top", "20"], help="of `fmnist trials`, after --")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, as a child's peak memory counts that of its parent too.
        path, sizes = Path(folder) / NAME, {"num_trials": arguments.trials, "num_epochs": arguments.epochs}
        making = multiprocessing.get_context("spawn").Process(target=make_study, args=(path,), kwargs=sizes)
        making.start()
        making.join()
        measure(folder, arguments.options)  # writes the bytecode that an installed package has
        runs = [measure(folder, arguments.options) for _ in range(_NUM_RUNS)]
    wall_s, cpu_s, peak_mb = (statistics.median(figures) for figures in zip(*runs, strict=True))
    command = " ".join(["fmnist trials", NAME, *arguments.options])
    from benchmarks.results import is_standard, keep, summarise  # after the measurement, for the same reason

    kept = zip(("wall_s", "cpu_s", "peak_mb"), map(summarise, zip(*runs, strict=True)), strict=True)
    result = {"settings": vars(arguments), **dict(kept)}
    keep("list_trials", result, is_standard=is_standard(parser, arguments))
    print(
        f"{arguments.trials:,} trials of {arguments.epochs} epochs, {command}: "
        f"{wall_s:.2f} s ({cpu_s:.2f} s of processor time), {peak_mb:.0f} MB at most; median of {_NUM_RUNS}"
    )


def make_study(path: Path, *, num_trials: int, num_epochs: int) -> None:
    """An experiment as a search leaves it, with a table of epochs for each trial; half of its trials are complete."""
    from search.configuration.config import parse_config
    from search.records.experiment import Experiment
    from search.yaml_file import dump_yaml

    config = parse_config(
        {
            "dataset": "synthetic",
            "space": {
                "model": {"choice": ["customnet", "resnet18"]},
                "lr": {"float": [1e-4, 1e-1], "log": True},
                "dropout": {"float": [0.0, 0.6], "step": 0.1},
                "optimizer": {"choice": ["adamw", "sgd"]},
                "momentum": {"float": [0.8, 0.95]},
                "unfreeze": {"subset": ["layer3", "layer4"]},
            },
            "max_trials": num_trials,
            "max_epochs": num_epochs,
        },
        where="benchmark",
    )
    experiment = Experiment(path)
    experiment.create()
    experiment.config.write_text(dump_yaml(config.model_dump()))
    rng = random.Random(0)
    with experiment.journal.open("w") as journal:
        print(_as_line({"op_code": 0, "worker_id": "w", "study_name": NAME, "directions": [2]}), file=journal)
        for number in range(num_trials):
            for operation in _trial(number, config, rng):
                print(_as_line(operation), file=journal)
            experiment.trial(number).path.mkdir()
            experiment.trial(number).epochs.write_text("epoch\n")


def _as_line(operation: dict[str, Any]) -> str:
    return json.dumps(operation, separators=(",", ":"))


def _trial(number: int, config: SearchConfig, rng: random.Random) -> list[dict[str, Any]]:
    from optuna.distributions import distribution_to_json
    from optuna.trial import FixedTrial

    drawn = {
        "model": rng.choice(["customnet", "resnet18"]),
        "lr": 10 ** rng.uniform(-4, -1),
        "dropout": rng.randrange(7) / 10,
        "optimizer": rng.choice(["adamw", "sgd"]),
        "momentum": rng.uniform(0.8, 0.95),
        "unfreeze.layer3": rng.random() < 0.5,
        "unfreeze.layer4": rng.random() < 0.5,
    }
    trial = FixedTrial(drawn)
    config.space.suggest(trial)
    by = {"worker_id": "12345678-1234-1234-1234-123456789012-140737353979712"}
    kinds = trial.distributions
    created = {"op_code": 4, **by, "study_id": 0, "datetime_start": _STARTED, "state": 0, "value": None, "values": None}
    created["distributions"] = {name: distribution_to_json(kind) for name, kind in kinds.items()}
    created["params"] = {name: kinds[name].to_internal_repr(value) for name, value in trial.params.items()}
    created |= {"user_attrs": {}, "system_attrs": {}, "intermediate_values": {}}
    curve = [1 - rng.uniform(0.2, 0.9) / epoch for epoch in range(1, config.max_epochs + 1)]
    state = 1 if number % 2 == 0 else 2  # COMPLETE or PRUNED, which here comes after the last epoch
    ended = {"op_code": 6, **by, "trial_id": number, "state": state, "datetime_complete": _ENDED}
    return [
        created,
        *(
            {"op_code": 7, **by, "trial_id": number, "step": epoch, "intermediate_value": value}
            for epoch, value in enumerate(curve, start=1)
        ),
        *([{"op_code": 8, **by, "trial_id": number, "user_attr": {"pruned_after_epoch": 10}}] if state == 2 else []),
        {**ended, "values": [max(curve)] if state == 1 else None},
    ]


def measure(folder: str, options: list[str]) -> tuple[float, float, float]:
    """Wall and processor seconds and peak megabytes of one listing."""
    command = [sys.executable, "-m", "search.cli", "trials", NAME, "--experiments-dir", folder, *options]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start_s
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()

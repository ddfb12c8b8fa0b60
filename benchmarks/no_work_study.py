"""Seconds that the study alone costs per trial of three epochs without any work, for a journal and for databases.

`python -m benchmarks.no_work_study [ADDRESS ...]`, each as `study_storage` takes it; studies stay there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from fmnist_models.epoch import Epoch
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.study.search_study import SearchStudy

_NUM_EPOCHS = 3


def seconds_per_trial(study_storage: str | None, num_trials: int) -> float:
    """To draw and record a trial, report its epochs and end it."""
    raw = {
        "space": {
            "model": {"choice": ["customnet", "resnet18"]},
            "lr": {"float": [1e-4, 1e-1], "log": True},
            "dropout": {"float": [0.0, 0.7]},
            "unfreeze": {"subset": ["layer3", "layer4"]},
        },
        "sampler": "random",
        "max_trials": num_trials,
        "max_epochs": _NUM_EPOCHS,
        "study_storage": study_storage,
    }
    config = parse_config(raw, where="benchmark")
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(Path(folder) / "study", study_storage)
        experiment.create()
        study = SearchStudy.open(experiment, config)
        start_s = time.perf_counter()
        while (assignment := study.next_assignment()) is not None:
            accuracy = 1.0 - abs(assignment.hyperparameters["lr"] - 0.003)
            for epoch in range(1, _NUM_EPOCHS + 1):
                if study.report(assignment.number, _epoch(epoch, accuracy)).is_finished():
                    break
        return (time.perf_counter() - start_s) / num_trials


def _epoch(number: int, accuracy: float) -> Epoch:
    loss = 1.0 - accuracy
    return Epoch(
        epoch=number,
        train_loss=loss,
        train_accuracy=accuracy,
        val_loss=loss,
        val_accuracy=accuracy,
        lr=0.1,
        epoch_s=0.0,
    )


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("addresses", nargs="*", metavar="ADDRESS")
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    places = [None, *arguments.addresses]
    result = {place or "journal": round(seconds_per_trial(place, arguments.trials), 4) for place in places}
    print(json.dumps({"trials": arguments.trials, "seconds_per_trial": result}, indent=2))


if __name__ == "__main__":
    main()

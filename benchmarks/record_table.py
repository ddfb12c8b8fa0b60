"""Records the table that searches are simulated with: real trainings of CustomNet, every epoch of every configuration.

`nice python -m benchmarks.record_table` goes on where the table in `benchmarks/tables/` ends, so
it may be stopped at any time; configurations are a random sample of `SPACE`, and so is each beginning of the table.
Seconds are those of one CPU core (process time), so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fmnist_models.data import TrainingData, data_root, load_images, split_training
from fmnist_models.output import replaced_file, write_output
from fmnist_models.paths import expand_home
from fmnist_models.seeds import derive_seed
from fmnist_models.training import DivergedError, Training, TrainingPlan
from search.configuration.config import parse_config
from search.records.csv_text import csv_text
from search.study.suggestions import Suggester

TABLE = Path(__file__).parent / "tables" / "customnet.csv"
SPACE = {
    "model": "customnet",
    "lr": {"float": [1e-4, 3e-2], "log": True},
    "weight_decay": {"float": [1e-4, 1.0], "log": True},
    "dropout": {"float": [0.0, 0.8]},
    "label_smoothing": {"float": [0.0, 0.3]},
    "schedule": {"choice": ["constant", "cosine", "one-cycle"]},
}
NUM_EPOCHS = 8
_NUM_IMAGES = 1000
_VALIDATION_FRACTION = 0.4
_SEED = 7
_RESULTS = ("val_accuracy", "val_loss", "seconds")


def configurations(count: int) -> Iterator[dict[str, Any]]:
    """A random sample of the space: parameters as a study records them."""
    config = parse_config({"space": SPACE, "sampler": "random", "seed": _SEED}, where="table")
    suggester = Suggester(config, window=1)
    return (suggester.suggest(number).params for number in range(count))


def train(params: dict[str, Any], number: int, data: TrainingData) -> Iterator[dict[str, float]]:
    """What each epoch gives; fewer of them if the loss is no longer finite, as no table can be replayed with."""
    plan = TrainingPlan(
        network="customnet", hyperparameters=params, num_epochs=NUM_EPOCHS, seed=derive_seed(_SEED, number)
    )
    training = Training(plan, data, device=torch.device("cpu"))
    before_s = time.process_time()
    try:
        for epoch in training.epochs():
            now_s = time.process_time()
            values = (epoch.val_accuracy, epoch.val_loss, now_s - before_s)
            yield {name: float(f"{value:.5g}") for name, value in zip(_RESULTS, values, strict=True)}
            before_s = time.process_time()
    except DivergedError:
        return


def main() -> None:
    """Adds configurations to the table until it holds as many as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="configuration to begin with")
    parser.add_argument("--configurations", type=int, default=150, help="and the number to end before")
    parser.add_argument("--table", type=expand_home, default=TABLE)
    arguments = parser.parse_args()
    if replaced_file(arguments.table) is None:  # the table is read, and extended
        parser.error(f"--table {arguments.table}: valid is a file")
    torch.set_num_threads(1)
    images = load_images("fashion-mnist", "train", root=data_root(), size=_NUM_IMAGES)
    data = split_training(images, validation_fraction=_VALIDATION_FRACTION, seed=0)
    names = [name for name in SPACE if name != "model"]
    text = arguments.table.read_text(encoding="utf-8") if arguments.table.exists() else ""
    done = {int(row["configuration"]) for row in csv.DictReader(io.StringIO(text))}
    for number, params in enumerate(configurations(arguments.configurations)):
        if number < arguments.first or number in done:
            continue
        out = io.StringIO()
        writer = csv.DictWriter(out, ["configuration", *names, "epoch", *_RESULTS], lineterminator="\n")
        if not text:
            writer.writeheader()
        shown = {name: csv_text(value) if isinstance(value, str) else repr(value) for name, value in params.items()}
        results = list(train(params, number, data))
        if len(results) < NUM_EPOCHS:
            continue
        for epoch, result in enumerate(results, start=1):
            writer.writerow({"configuration": number, **shown, "epoch": epoch, **result})
        text += out.getvalue()
        write_output(arguments.table, text)


if __name__ == "__main__":
    main()

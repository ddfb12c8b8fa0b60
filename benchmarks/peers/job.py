"""What a contestant is to do, in a file, and what it has done so far, in another."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.configurations import VALIDATION_FRACTION
from search.records.epochs_file import parse_epochs

OURS = "ours"  # the experiment of that name in a job's folder
TRAIN_INDICES, VALIDATION_INDICES = "train.npy", "validation.npy"  # in a job's folder too


@dataclass(frozen=True, kw_only=True)
class Job:
    """One search over given configurations.

    ``num_epochs``: of each trial; 0: each trial reports one value at once and does no work. ``early_stopping``:
    asynchronous successive halving from the first epoch on, in threes. ``num_images``: the first so many of
    Fashion-MNIST's training images, ``validation_fraction`` of them to validate with.
    ``num_trials_at_once``: how many of them at a time. ``data_dir`` holds Fashion-MNIST, unpacked; ``folder`` takes
    what is written. ``precision``: what ours trains in; all others train in fp32. ``resources``: what each trial of
    ours holds, as its configuration says it.
    """

    configurations: list[dict[str, float]]
    num_epochs: int
    early_stopping: bool
    num_images: int
    num_trials_at_once: int
    data_dir: str
    folder: str
    validation_fraction: float = VALIDATION_FRACTION
    seed: int = 0
    reduction_factor: int = 3
    precision: str = "auto"
    resources: dict[str, float] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.folder, "job.json")

    @classmethod
    def read(cls, path: str | Path) -> Job:
        return cls(**json.loads(Path(path).read_text("utf-8")))

    def write(self) -> Path:
        """Makes the folder and puts the job there."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(dataclasses.asdict(self)), "utf-8")
        return self.path

    def report(self, number: int, epoch: int, val_accuracy: float) -> None:
        """Notes the result of an epoch; any process of a contestant may."""
        report = {"number": number, "epoch": epoch, "val_accuracy": val_accuracy, "time_s": time.time()}
        line = json.dumps(report) + "\n"
        descriptor = os.open(self._reports, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())  # one call, so that lines of several processes do not mix
        finally:
            os.close(descriptor)

    def reports(self) -> list[dict[str, Any]]:
        """Number, epoch and validation accuracy of each epoch so far, and, but for ours, when it came, in seconds
        since 1970; ours are in its experiment's tables."""
        lines = self._reports.read_text("utf-8").splitlines() if self._reports.exists() else []
        found = [json.loads(line) for line in lines]
        for table in sorted(Path(self.folder, OURS, "trials").glob("*/epochs.csv")):
            found += [
                {"number": int(table.parent.name), "epoch": epoch.epoch, "val_accuracy": epoch.val_accuracy}
                for epoch in parse_epochs(table.read_text("utf-8"))
            ]
        return found

    @property
    def _reports(self) -> Path:
        return Path(self.folder, "reports.jsonl")

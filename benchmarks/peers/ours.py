"""Ours: `fmnist search run`, as a person types it.

The given configurations come first by `--enqueue`. Beside what the peers do it saves each epoch's checkpoint, writes
its tables, and tests the best trial at its end, on 500 images. Precision is what it chooses itself by a probe, unless
the job says it.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.configurations import BATCH_SIZE, SPACE
from benchmarks.peers.job import OURS, Job


def search_config(job: Job) -> dict[str, Any]:
    """The search's configuration, as a file of a person's would say it."""
    return {
        "space": {"model": "customnet", "batch_size": BATCH_SIZE, **SPACE},
        "train_size": job.num_images,
        "test_size": 500,
        "validation_fraction": job.validation_fraction,
        "max_trials": len(job.configurations),
        "max_epochs": job.num_epochs,
        "pruner": "halving" if job.early_stopping else "none",
        "reduction_factor": job.reduction_factor,
        "max_concurrent_trials": job.num_trials_at_once,
        "seed": job.seed,
        "precision": job.precision,
        **job.resources,
    }


def main() -> None:
    job = Job.read(sys.argv[1])
    search, chosen = Path(job.folder, f"{OURS}.yaml"), Path(job.folder, "chosen.yaml")
    search.write_text(json.dumps(search_config(job)), "utf-8")  # JSON is YAML
    chosen.write_text(json.dumps(job.configurations), "utf-8")
    options = ["--enqueue", str(chosen), "--experiments-dir", job.folder, "--data-dir", job.data_dir]
    os.execv(sys.executable, [sys.executable, "-m", "search.cli", "search", "run", str(search), *options])


if __name__ == "__main__":
    main()

"""Peer (d): Ray Tune alone, written by an expert: a function trainable without Ray Train, in reused processes.

"Ray Tune FAQ" and `TuneConfig(reuse_actors=True)` (docs.ray.io/en/latest/tune/api/doc/ray.tune.TuneConfig.html): one
process per CPU trains one trial after another; `tune.with_parameters` puts the images once into the object store; the
loop is that of `expert.py`, one thread per trial. Early stopping by `ASHAScheduler`, configurations by `OptunaSearch`
with `points_to_evaluate` ("Running Tune experiments with Optuna", docs.ray.io/en/latest/tune/examples/
optuna_example.html).

In its favour: no checkpoints, no loggers, no dashboard, no progress table.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.configurations import SPACE
from benchmarks.peers.expert import Labelled, load_images, train
from benchmarks.peers.job import Job
from cluster.token import own_token

_ADDRESS = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # loopback; Linux's Ray replaces 127.0.0.1


def trainable(config: dict[str, Any], *, job_path: str, training: Labelled, validation: Labelled) -> None:
    job, number = Job.read(job_path), config["number"]
    for epoch, accuracy in enumerate(train(config, number, job, training=training, validation=validation), start=1):
        job.report(number, epoch, accuracy)
        tune.report({"val_accuracy": accuracy})


def param_space() -> dict[str, Any]:
    """The search's space; ``number`` tells a trial which fresh weights it takes."""
    space = {
        name: (tune.loguniform if dimension.get("log") else tune.uniform)(*dimension["float"])
        for name, dimension in SPACE.items()
    }
    return space | {"number": tune.randint(0, 10**6)}


def search(job: Job) -> None:
    """Runs the job on the connected Ray."""
    training, validation = load_images(job)
    shared = tune.with_parameters(trainable, job_path=str(job.path), training=training, validation=validation)
    asha = ASHAScheduler(max_t=job.num_epochs, grace_period=1, reduction_factor=job.reduction_factor)
    points = [{**configuration, "number": number} for number, configuration in enumerate(job.configurations)]
    tuner = tune.Tuner(
        tune.with_resources(shared, {"CPU": 1}),
        param_space=param_space(),
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=OptunaSearch(points_to_evaluate=points, seed=job.seed),
            scheduler=asha if job.early_stopping else None,
            num_samples=len(points),
            max_concurrent_trials=job.num_trials_at_once,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(name="tune", storage_path=job.folder, verbose=0),
    )
    errors = tuner.fit().errors
    if errors:
        raise errors[0]


def main() -> None:
    job = Job.read(sys.argv[1])
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with (
        tempfile.TemporaryDirectory(prefix="bench-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        own_token(Path(folder, "token")),
    ):
        ray.init(
            "local",
            num_cpus=job.num_trials_at_once,
            num_gpus=0,
            include_dashboard=False,
            _node_ip_address=_ADDRESS,
            _temp_dir=f"{folder}/ray",
        )
        try:
            search(job)
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()

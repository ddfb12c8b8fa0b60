"""Peer (a): Ray Tune over Ray Train, as Ray's user guide nests them.

"Hyperparameter Tuning with Ray Tune" (docs.ray.io/en/latest/train/user-guides/hyperparameter-optimization.html): a Tune
function, whose `TorchTrainer` has a worker and tells Tune by `TuneReportCallback`; the worker's loop is that of Ray's
Fashion-MNIST example (docs.ray.io/en/latest/train/examples/pytorch/torch_fashion_mnist_example.html).

In its favour: the Tune functions hold no CPU, as the guide advises for drivers, so that a trial runs on each CPU (with
its default of one CPU each, two CPUs would run one trial at a time, or wait for each other for ever); no checkpoints.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler

from benchmarks.peers.job import Job
from cluster.ports import free_ports
from cluster.token import own_token

_ADDRESS = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"  # loopback; Linux's Ray replaces 127.0.0.1
_DRIVER = {"node:__internal_head__": 0.001}  # a resource that each head node has


def train_fn_per_worker(train_loop_config: dict[str, Any]) -> None:
    job, number = Job.read(train_loop_config["job"]), train_loop_config["number"]
    if not job.num_epochs:
        job.report(number, 1, 0.5)
        ray.train.report({"val_accuracy": 0.5})
        return
    # Not above: each trial's fresh process would load them for no work, too.
    from benchmarks.peers import plain
    from benchmarks.peers.model import build_model

    configuration = job.configurations[number]
    train_loader, validation_loader = map(ray.train.torch.prepare_data_loader, plain.loaders(job))
    model = ray.train.torch.prepare_model(build_model(configuration, number, job))
    optimizer = plain.build_optimizer(configuration, model)
    for epoch in range(1, job.num_epochs + 1):
        plain.train_one_epoch(model, train_loader, optimizer)
        accuracy = plain.validate(model, validation_loader)
        job.report(number, epoch, accuracy)
        ray.train.report({"val_accuracy": accuracy})


def train_driver_fn(config: dict[str, Any]) -> None:
    trainer = ray.train.torch.TorchTrainer(
        train_fn_per_worker,
        train_loop_config=config["train_loop_config"],
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={ray.tune.get_context().get_trial_id()}",
            storage_path=config["storage_path"],
            callbacks=[TuneReportCallback()],
        ),
    )
    trainer.fit()


def search(job: Job) -> None:
    """Runs the job, which has been written, on the connected Ray."""
    asha = ASHAScheduler(max_t=max(1, job.num_epochs), grace_period=1, reduction_factor=job.reduction_factor)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(train_driver_fn, _DRIVER),
        param_space={
            "train_loop_config": {
                "job": str(job.path),
                "number": ray.tune.grid_search(list(range(len(job.configurations)))),
            },
            "storage_path": f"{job.folder}/train",
        },
        tune_config=ray.tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            scheduler=asha if job.early_stopping else None,
            max_concurrent_trials=job.num_trials_at_once,
        ),
        run_config=ray.tune.RunConfig(name="tune", storage_path=job.folder),
    )
    errors = tuner.fit().errors
    if errors:
        raise errors[0]


@contextlib.contextmanager
def documented_ray(*, num_cpus: int) -> Iterator[None]:
    """A Ray as `ray.init()` starts it, with its dashboard: through that, what is left of a trial that was stopped early
    asks whether it may free the trial's CPU, and without it the search would hang. The address is in the environment
    for the same reason: on a machine with several Rays it would not know which one to ask."""
    port = str(free_ports(1)[0])
    ours = {"RAY_GCS_SERVER_PORT": port, "RAY_ADDRESS": f"{_ADDRESS}:{port}", "RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ |= ours
    with (
        tempfile.TemporaryDirectory(prefix="bench-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        own_token(Path(folder, "token")),
    ):
        try:
            ray.init("local", num_cpus=num_cpus, num_gpus=0, _node_ip_address=_ADDRESS, _temp_dir=f"{folder}/ray")
            yield
        finally:
            ray.shutdown()
            for name, value in before.items():
                del os.environ[name]
                if value is not None:
                    os.environ[name] = value


def main() -> None:
    job = Job.read(sys.argv[1])
    with documented_ray(num_cpus=job.num_trials_at_once):
        search(job)


if __name__ == "__main__":
    main()

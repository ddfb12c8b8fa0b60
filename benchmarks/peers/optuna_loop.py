"""Peer (b): Optuna's `study.optimize` in one process, with all its threads.

As in Optuna's own Fashion-MNIST example (github.com/optuna/optuna-examples, pytorch/pytorch_simple.py); given
configurations by `enqueue_trial` ("Specify Hyperparameters Manually", optuna.readthedocs.io/en/stable/tutorial/
20_recipes/008_specify_params.html).
"""

from __future__ import annotations

import sys

import optuna
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner

from benchmarks.configurations import SPACE
from benchmarks.peers.job import Job
from benchmarks.peers.plain import train


def objective(trial: optuna.Trial, job: Job) -> float:
    configuration = {
        name: trial.suggest_float(name, *dimension["float"], log=dimension.get("log", False))
        for name, dimension in SPACE.items()
    }
    accuracy = 0.0
    for epoch, accuracy in enumerate(train(configuration, trial.number, job), start=1):
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def build_pruner(job: Job) -> BasePruner:
    if not job.early_stopping:
        return NopPruner()
    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=job.reduction_factor)


def main() -> None:
    job = Job.read(sys.argv[1])
    study = optuna.create_study(direction="maximize", pruner=build_pruner(job))
    for configuration in job.configurations:
        study.enqueue_trial(configuration)
    study.optimize(lambda trial: objective(trial, job), n_trials=len(job.configurations))


if __name__ == "__main__":
    main()

"""Peer (b2): the same script in several processes, which share a study in a journal.

"Easy Parallelization" (optuna.readthedocs.io/en/stable/tutorial/10_key_features/004_distributed.html) and "(File-based)
Journal Storage" (…/tutorial/20_recipes/011_journal_storage.html).

In its favour: the processes share the CPUs' threads evenly, as PyTorch advises ("Multiprocessing best practices",
docs.pytorch.org/docs/stable/notes/multiprocessing.html); with as many threads each as there are CPUs, which is the
default, they are several times slower. None trains more than the given configurations.
"""

from __future__ import annotations

import os
import subprocess
import sys

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.peers.job import Job
from benchmarks.peers.optuna_loop import build_pruner, objective

_WORKER = "worker"


def open_study(job: Job) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(f"{job.folder}/journal.log"))
    return optuna.create_study(
        study_name="peer", storage=storage, direction="maximize", pruner=build_pruner(job), load_if_exists=True
    )


def work(job: Job) -> None:
    """What each process does."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // job.num_trials_at_once))

    def next_objective(trial: optuna.Trial) -> float:
        if trial.number >= len(job.configurations):
            trial.study.stop()
            raise optuna.TrialPruned
        return objective(trial, job)

    open_study(job).optimize(next_objective)


def main() -> None:
    job = Job.read(sys.argv[1])
    if _WORKER in sys.argv:
        work(job)
        return
    study = open_study(job)
    for configuration in job.configurations:
        study.enqueue_trial(configuration)
    command = [sys.executable, "-m", "benchmarks.peers.optuna_processes", str(job.path), _WORKER]
    processes = [subprocess.Popen(command) for _ in range(job.num_trials_at_once)]
    try:
        statuses = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(statuses):
        sys.exit(f"the processes ended with {statuses}")


if __name__ == "__main__":
    main()

"""CustomNet trials per hour on one GPU, or one CPU core: of a search with 1, 4, 8 and 16 of them there at once, and of
as many fused into one network (`benchmarks/fused.py`).

`python -m benchmarks.trials_per_device [--device cuda|cpu]`. All train the same trials, in the arithmetic that is the
fastest here with one and with as many fused, and take turns, in the opposite order each time. A search's time goes from
its first trial's start to its last one's end, and includes the checkpoints that it saves; what is fused, after a step
that does not count, saves nothing, and cannot prune one trial alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.configurations import BATCH_SIZE, draw
from benchmarks.fused import FusedTraining
from benchmarks.images_per_second import choose_precision, seconds_of_trials
from benchmarks.measured_run import run
from benchmarks.peers.job import Job
from benchmarks.results import is_standard, keep, print_table, show, summarise
from benchmarks.unpacked import unpack_images
from cluster import heap
from fmnist_models.data import TrainingData, data_root, load_images, split_training
from fmnist_models.probe import candidates
from fmnist_models.seeds import derive_seed
from fmnist_models.training import TrainingPlan
from search.running.slots import local_resources

_SPAWN = multiprocessing.get_context("spawn")
_SEARCH, _FUSED = "search", "fused"
_PROBED_STEPS = 3


def trials_per_hour(who: str, at_once: int, job: Job, *, device: str) -> float:
    """Of ``at_once`` trials at a time, each with its share of the device."""
    if who == _SEARCH:
        run("benchmarks.peers.ours", job)
        seconds = seconds_of_trials(job)
    else:
        with heap.inherited_by_children(), ProcessPoolExecutor(1, mp_context=_SPAWN) as process:
            seconds = process.submit(seconds_fused, job, at_once, device).result()
    return len(job.configurations) / seconds * 3600


def resources(at_once: int, device: str) -> dict[str, float]:
    """What a trial of a search holds, so that so many are on the device at once."""
    if device == "cpu":
        return {"cpus_per_trial": 1 / at_once}
    return {"gpus_per_trial": 1 / at_once, "cpus_per_trial": min(1.0, local_resources().cpus / at_once)}


def seconds_fused(job: Job, at_once: int, device_name: str) -> float:
    """Of the job's trials, so many at a time, in this process."""
    torch.set_num_threads(1)
    device = torch.device(device_name)
    images = load_images("fashion-mnist", "train", root=data_root(), size=job.num_images)
    data = split_training(images, validation_fraction=job.validation_fraction, seed=job.seed)
    plans = make_plans(job)
    groups = [plans[start : start + at_once] for start in range(0, len(plans), at_once)]
    precision = _fastest(groups[0], data, device=device)
    start_s = time.perf_counter()
    for group in groups:
        for epoch in FusedTraining(group, data, device=device, precision=precision).epochs():
            epoch.val_accuracy.tolist()  # as who decides on trials would read it, when the device is done
    return time.perf_counter() - start_s


def make_plans(job: Job) -> list[TrainingPlan]:
    """The job's trials, as our search trains them."""
    return [
        TrainingPlan(
            network="customnet",
            hyperparameters={**configuration, "batch_size": BATCH_SIZE},
            num_epochs=job.num_epochs,
            seed=derive_seed(job.seed, number),
        )
        for number, configuration in enumerate(job.configurations)
    ]


def _fastest(plans: Sequence[TrainingPlan], data: TrainingData, *, device: torch.device) -> str:
    """The arithmetic in which one epoch of a few batches takes least."""
    few = replace(data, train=data.train.first(_PROBED_STEPS * BATCH_SIZE), validation=data.validation.first(2))
    seconds = {}
    for precision in candidates(device):
        epochs = FusedTraining(
            [replace(plan, num_epochs=2) for plan in plans], few, device=device, precision=precision
        ).epochs()
        next(epochs).val_accuracy.tolist()
        start_s = time.perf_counter()
        next(epochs).val_accuracy.tolist()
        seconds[precision] = time.perf_counter() - start_s
    return min(seconds, key=lambda precision: seconds[precision])


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--trials", type=int, default=64, help="several for each process, whose start counts")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def main() -> None:
    """Keeps and prints medians, and how many times as many trials an hour as a search of one at a time makes."""
    parser = build_parser()
    arguments = parser.parse_args()
    if arguments.device == "cpu" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # and of all processes that it starts
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="fmnist-bench-") as name:
        job = Job(
            configurations=draw(arguments.trials, seed=0),
            num_epochs=arguments.epochs,
            early_stopping=False,
            num_images=arguments.images,
            num_trials_at_once=1,
            data_dir=str(unpack_images(Path(name))),
            folder=name,
            resources=resources(1, arguments.device),
        )
        precision, notes = choose_precision(job)
        contestants = [(who, at_once) for at_once in arguments.at_once for who in (_SEARCH, _FUSED)]
        for repeat in range(arguments.repeats):
            for who, at_once in contestants if repeat % 2 == 0 else contestants[::-1]:
                own = replace(
                    job,
                    precision=precision,
                    num_trials_at_once=at_once,
                    resources=resources(at_once, arguments.device),
                    folder=str(Path(name, f"{who}-{at_once}-{repeat}")),
                )
                rate = trials_per_hour(who, at_once, own, device=arguments.device)
                found.setdefault(f"{who}, {at_once} at once", []).append(rate)
                print(f"{who} {at_once} {repeat}: {rate:.0f} trials an hour", flush=True)
    summaries = {figure: summarise(rates) for figure, rates in found.items()}
    first = summaries[f"{_SEARCH}, {arguments.at_once[0]} at once"]["median"]
    times = {figure: round(summary["median"] / first, 2) for figure, summary in summaries.items()}
    result = {
        "settings": vars(arguments),
        "gpu": torch.cuda.get_device_name() if arguments.device == "cuda" else None,
        "precision": precision,
        "precision_notes": notes,
        "trials_per_hour": summaries,
        "times_the_first": times,
    }
    keep("trials_per_device", result, is_standard=is_standard(parser, arguments))
    rows = [(figure, show(summary), f"{times[figure]:.2f}") for figure, summary in summaries.items()]
    print_table([("trials an hour", "median (mean ± deviation, n)", "times the first"), *rows])


if __name__ == "__main__":
    main()

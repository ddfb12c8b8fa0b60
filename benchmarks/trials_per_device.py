"""CustomNet trials per hour on one GPU, or one CPU core: of a search with 1, 4, 8 and 16 of them there at once, and of
as many fused into one network (`benchmarks/fused.py`).

`python -m benchmarks.trials_per_device [--device cuda|cpu]`. All train the same trials and take turns, in the opposite
order each time; in which arithmetic is probed before, with one trial and with as many fused. `whole`: from the first
trial's start, that of its process included, to the last one's end. `after the first`: from when as many have ended as
there are at once. A search saves checkpoints and can prune each trial; what is fused saves nothing and ends together.
On a CPU a trial alone has faster blocks than a fused one has (`fmnist_models/networks/conv_block.py`); on a GPU the
processes of a search take turns, unless NVIDIA's MPS lets them in at once.

What is measured so far is in `benchmarks/results/` after each run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks.configurations import BATCH_SIZE, draw
from benchmarks.fused import FusedTraining
from benchmarks.images_per_second import choose_precision, ends_of_trials
from benchmarks.measured_run import run
from benchmarks.peers.job import Job
from benchmarks.results import is_standard, keep, print_table, show, summarise
from benchmarks.unpacked import unpack_images
from cluster import heap
from fmnist_models.data import TrainingData, data_root, load_images, split_training
from fmnist_models.probe import candidates, choose
from fmnist_models.seeds import derive_seed
from fmnist_models.training import TrainingPlan
from search.running.slots import local_resources

_SPAWN = multiprocessing.get_context("spawn")
_SEARCH, _FUSED = "search", "fused"
_PROBED_STEPS, _PROBED_EPOCHS = 3, 4

_T = TypeVar("_T")


def ends(who: str, *, at_once: int, job: Job, device_name: str) -> list[float]:
    """When the trials ended, in order, in seconds from the first one's start."""
    if who == _SEARCH:
        run("benchmarks.peers.ours", job)
        return ends_of_trials(job)
    start_s = time.monotonic()  # a clock that all processes share
    found = _in_a_process(train_fused, job, at_once=at_once, device_name=device_name, precision=job.precision)
    return [end_s - start_s for end_s in found]


def rates(ends_s: Sequence[float], *, at_once: int) -> dict[str, float]:
    """Trials per hour of trials that ended then."""
    after = len(ends_s) - at_once
    return {
        "whole": len(ends_s) / ends_s[-1] * 3600,
        "after the first": after / (ends_s[-1] - ends_s[at_once - 1]) * 3600,
    }


def resources(*, at_once: int, device_name: str) -> dict[str, float]:
    """What a trial of a search holds, so that so many are on the device at once."""
    if device_name == "cpu":
        return {"cpus_per_trial": 1 / at_once}
    return {"gpus_per_trial": 1 / at_once, "cpus_per_trial": min(1.0, local_resources().cpus / at_once)}


def train_fused(job: Job, *, at_once: int, device_name: str, precision: str) -> list[float]:
    """Trains the job's trials, so many at a time, and says when each ended, by ``time.monotonic``."""
    torch.set_num_threads(1)
    data, plans = _load(job), make_plans(job)
    ends_s = []
    for start in range(0, len(plans), at_once):
        group = plans[start : start + at_once]
        for epoch in FusedTraining(group, data, device=torch.device(device_name), precision=precision).epochs():
            epoch.val_accuracy.tolist()  # as who decides about trials reads it, when the device is done
        ends_s += [time.monotonic()] * len(group)
    return ends_s


def choose_fused_precision(job: Job, *, at_once: int, device_name: str) -> str:
    """The arithmetic in which so many train the fastest, by the shortest of some epochs of a few steps."""
    torch.set_num_threads(1)
    data, device = _load(job), torch.device(device_name)
    few = replace(data, train=data.train.first(_PROBED_STEPS * BATCH_SIZE), validation=data.validation.first(2))
    plans = [replace(plan, num_epochs=_PROBED_EPOCHS) for plan in make_plans(job)[:at_once]]
    seconds = {}
    for precision in candidates(device):
        epochs = FusedTraining(plans, few, device=device, precision=precision).epochs()
        next(epochs).val_accuracy.tolist()
        times = []
        for _ in range(_PROBED_EPOCHS - 1):
            start_s = time.perf_counter()
            next(epochs).val_accuracy.tolist()
            times.append(time.perf_counter() - start_s)
        seconds[precision] = min(times)
    return choose(seconds)


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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--trials", type=int, default=64, help="more than at once")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def main() -> None:
    """Keeps and prints medians, and how many times the first contestant's they are."""
    parser = build_parser()
    arguments = parser.parse_args()
    if not 1 <= min(arguments.at_once) <= max(arguments.at_once) < arguments.trials:
        parser.error(f"--at-once {arguments.at_once}: valid are 1 to {arguments.trials - 1}, fewer than --trials")
    _take_one(arguments.device)
    with tempfile.TemporaryDirectory(prefix="fmnist-bench-") as name:
        job = Job(
            configurations=draw(arguments.trials, seed=0),
            num_epochs=arguments.epochs,
            early_stopping=False,
            num_images=arguments.images,
            num_trials_at_once=1,
            data_dir=str(unpack_images(Path(name))),
            folder=name,
            resources=resources(at_once=1, device_name=arguments.device),
        )
        alone, notes = _in_a_process(choose_precision, job)
        precisions = {
            (who, at_once): alone
            if who == _SEARCH
            else _in_a_process(choose_fused_precision, job, at_once=at_once, device_name=arguments.device)
            for at_once in arguments.at_once
            for who in (_SEARCH, _FUSED)
        }
        about = {
            "settings": vars(arguments),
            "gpu": _in_a_process(torch.cuda.get_device_name) if arguments.device == "cuda" else None,
            "precisions": {_title(*contestant): precision for contestant, precision in precisions.items()},
            "precision_notes": notes,
        }
        found: dict[str, dict[str, list[float]]] = {}
        for repeat in range(arguments.repeats):
            for who, at_once in precisions if repeat % 2 == 0 else reversed(precisions):
                own = replace(
                    job,
                    precision=precisions[who, at_once],
                    num_trials_at_once=at_once,
                    resources=resources(at_once=at_once, device_name=arguments.device),
                    folder=str(Path(name, f"{who}-{at_once}-{repeat}")),
                )
                ends_s = ends(who, at_once=at_once, job=own, device_name=arguments.device)
                for part, rate in rates(ends_s, at_once=at_once).items():
                    found.setdefault(part, {}).setdefault(_title(who, at_once), []).append(rate)
                    print(f"{_title(who, at_once)}, {repeat}, {part}: {rate:.0f} trials an hour", flush=True)
                keep("trials_per_device", {**about, **_summarise(found)}, is_standard=False)
    result = _summarise(found)
    keep("trials_per_device", {**about, **result}, is_standard=is_standard(parser, arguments))
    rows = [
        (f"{title}, {part}", show(summary), f"{result['times_the_first'][part][title]:.2f}")
        for part, summaries in result["trials_per_hour"].items()
        for title, summary in summaries.items()
    ]
    print_table([("trials an hour", "median (mean ± deviation, n)", "times the first"), *rows])


def _take_one(device_name: str) -> None:
    """Leaves this process, and those that it starts, one GPU or one CPU."""
    if device_name == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    elif hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _in_a_process(function: Callable[..., _T], *values: Any, **named: Any) -> _T:
    """In one of its own, which gives its memory on the GPU back, with the memory settings of a search's workers."""
    with heap.inherited_by_children(), ProcessPoolExecutor(1, mp_context=_SPAWN) as process:
        return process.submit(function, *values, **named).result()


def _load(job: Job) -> TrainingData:
    images = load_images("fashion-mnist", "train", root=data_root(), size=job.num_images)
    return split_training(images, validation_fraction=job.validation_fraction, seed=job.seed)


def _title(who: str, at_once: int) -> str:
    return f"{who}, {at_once} at once"


def _summarise(found: dict[str, dict[str, list[float]]]) -> dict[str, Any]:
    """By part and contestant: trials per hour, and how many times the first contestant's these are."""
    summaries = {part: {title: summarise(r) for title, r in by_title.items()} for part, by_title in found.items()}
    times = {
        part: {
            title: round(each["median"] / next(iter(by_title.values()))["median"], 2)
            for title, each in by_title.items()
        }
        for part, by_title in summaries.items()
    }
    return {"trials_per_hour": summaries, "times_the_first": times}


if __name__ == "__main__":
    main()

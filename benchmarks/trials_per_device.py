"""CustomNet trials per hour on one GPU, or one CPU core: of a search with 1, 4, 8 and 16 of them there at once, and of
as many fused into one network (`benchmarks/fused.py`).

`python -m benchmarks.trials_per_device [--device cuda|cpu]`. All train the same trials and take turns, in the opposite
order each time, in the arithmetic that a probe finds fastest for one trial, or for as many fused. Hours begin when as
many trials have ended as there are at once, so that none holds the start of a process; there should be many more.
A search saves checkpoints and can prune each trial; what is fused saves nothing and ends together. On a CPU a trial
alone has faster blocks than a fused one (`fmnist_models/networks/conv_block.py`); on a GPU the processes of a search
take turns, unless NVIDIA's MPS lets them in at once.

What is measured so far is in `benchmarks/results/` after each run.
"""

from __future__ import annotations

import argparse
import math
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
from benchmarks.images_per_second import choose_precision, ends_of_trials, load_data, make_plans
from benchmarks.measured_run import run
from benchmarks.peers.job import Job
from benchmarks.results import is_standard, keep, print_table, show, summarise
from benchmarks.unpacked import unpack_images
from cluster import heap
from fmnist_models.probe import candidates, choose
from search.running.slots import local_resources

_SPAWN = multiprocessing.get_context("spawn")
_SEARCH, _FUSED = "search", "fused"
_PROBED_STEPS, _PROBED_EPOCHS = 3, 4

_T = TypeVar("_T")


def trials_per_hour(who: str, *, at_once: int, job: Job, device_name: str) -> float:
    """Of the job's trials, so many of them at a time."""
    if who == _SEARCH:
        run("benchmarks.peers.ours", job)
        return rate(ends_of_trials(job), at_once=at_once)
    return rate(_in_a_process(train_fused, job, at_once=at_once, device_name=device_name), at_once=at_once)


def rate(ends_s: Sequence[float], *, at_once: int) -> float:
    """Trials per hour after the first so many, of trials that ended then."""
    return (len(ends_s) - at_once) / (ends_s[-1] - ends_s[at_once - 1]) * 3600


def resources(*, at_once: int, device_name: str) -> dict[str, float]:
    """What a trial of a search holds, so that so many are on the device at once."""
    share = math.floor(1e4 / at_once) / 1e4  # Ray counts in ten-thousandths, and rounds
    if device_name == "cpu":
        return {"cpus_per_trial": share}
    return {"gpus_per_trial": share, "cpus_per_trial": min(1.0, local_resources().cpus * share)}


def train_fused(job: Job, *, at_once: int, device_name: str) -> list[float]:
    """Trains the job's trials, so many at a time, and says when each ended, by ``time.perf_counter``."""
    torch.set_num_threads(1)
    data, plans = load_data(job), make_plans(job)
    ends_s = []
    for start in range(0, len(plans), at_once):
        group = plans[start : start + at_once]
        for epoch in FusedTraining(group, data, device=torch.device(device_name)).epochs():
            epoch.val_accuracy.tolist()  # waits for the device, as a pruner does
        ends_s += [time.perf_counter()] * len(group)
    return ends_s


def choose_fused_precision(job: Job, *, at_once: int, device_name: str) -> str:
    """The arithmetic in which so many train the fastest, by the shortest of some epochs of a few steps."""
    torch.set_num_threads(1)
    data, device = load_data(job), torch.device(device_name)
    few = replace(data, train=data.train.first(_PROBED_STEPS * BATCH_SIZE), validation=data.validation.first(2))
    plans = make_plans(replace(job, num_epochs=_PROBED_EPOCHS))[:at_once]
    seconds = {}
    for precision in candidates(device):
        in_this = [replace(plan, precision=precision) for plan in plans]
        epochs = FusedTraining(in_this, few, device=device).epochs()
        next(epochs).val_accuracy.tolist()
        times = []
        for _ in range(_PROBED_EPOCHS - 1):
            start_s = time.perf_counter()
            next(epochs).val_accuracy.tolist()
            times.append(time.perf_counter() - start_s)
        seconds[precision] = min(times)
    return choose(seconds)


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
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats}: valid is 1 or more")
    _take_one(arguments.device)
    with tempfile.TemporaryDirectory(prefix="fmnist-bench-") as name:
        result = measure(arguments, folder=Path(name), is_standard=is_standard(parser, arguments))
    rows = [
        (title, show(summary), f"{result['times_the_first'][title]:.2f}")
        for title, summary in result["trials_per_hour"].items()
    ]
    print_table([("trials an hour", "median (mean ± deviation, n)", "times the first"), *rows])


def measure(arguments: argparse.Namespace, *, folder: Path, is_standard: bool) -> dict[str, Any]:
    """Measures each contestant in turn, and keeps what there is after each run."""
    device_name = arguments.device
    job = Job(
        configurations=draw(arguments.trials, seed=0),
        num_epochs=arguments.epochs,
        early_stopping=False,
        num_images=arguments.images,
        num_trials_at_once=1,
        data_dir=str(unpack_images(folder)),
        folder=str(folder),
        resources=resources(at_once=1, device_name=device_name),
    )
    alone, notes = _in_a_process(choose_precision, job)
    precisions = {
        (who, at_once): alone
        if who == _SEARCH
        else _in_a_process(choose_fused_precision, job, at_once=at_once, device_name=device_name)
        for at_once in arguments.at_once
        for who in (_SEARCH, _FUSED)
    }
    about = {
        "settings": vars(arguments),
        "gpu": _in_a_process(torch.cuda.get_device_name) if device_name == "cuda" else None,
        "precisions": {_title(*contestant): precision for contestant, precision in precisions.items()},
        "precision_notes": notes,
    }
    rates: dict[str, list[float]] = {}
    for repeat in range(arguments.repeats):
        for who, at_once in precisions if repeat % 2 == 0 else reversed(precisions):
            own = replace(
                job,
                precision=precisions[who, at_once],
                num_trials_at_once=at_once,
                resources=resources(at_once=at_once, device_name=device_name),
                folder=str(folder / f"{who}-{at_once}-{repeat}"),
            )
            found = trials_per_hour(who, at_once=at_once, job=own, device_name=device_name)
            rates.setdefault(_title(who, at_once), []).append(found)
            print(f"{_title(who, at_once)}, {repeat}: {found:.0f} trials an hour", flush=True)
            summaries = {title: summarise(values) for title, values in rates.items()}
            first = next(iter(summaries.values()))["median"]
            times = {title: round(summary["median"] / first, 2) for title, summary in summaries.items()}
            result = {**about, "trials_per_hour": summaries, "times_the_first": times}
            is_done = all(len(values) == arguments.repeats for values in rates.values())
            keep(f"trials_per_device_{device_name}", result, is_standard=is_standard and is_done)
    return result


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


def _title(who: str, at_once: int) -> str:
    return f"{who}, {at_once} at once"


if __name__ == "__main__":
    main()

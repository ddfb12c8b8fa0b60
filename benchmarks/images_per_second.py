"""Training images per second of CustomNet: of bare loops without a search, of a whole search, and of the processor.

`python -m benchmarks.images_per_second [one-core] [all-cores]`. `one-core`: our bare loop, with the memory settings of
a search's workers, beside the plain fp32 loop with a `DataLoader` (`benchmarks/peers/plain.py`) and an expert's loop in
our precision (`benchmarks/peers/expert.py`), each on one thread, and the share of the processor's arithmetic that each
uses, by large matrix products of its precision; its seconds are those of the CPU, so that other work on the machine
counts little. `all-cores`: bare loops on all cores at
once beside a search of the same trials; their ratio is the search's orchestration efficiency, from its first trial's
start to its last one's end, and of the whole command. Everything takes turns, in the opposite order each time, and ours
is trained in the same arithmetic everywhere: what the search's probe chooses, once, before all else (so that no
search's time holds a probe).
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import queue
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from benchmarks.configurations import BATCH_SIZE, draw
from benchmarks.measured_run import run
from benchmarks.peers import expert, plain
from benchmarks.peers.job import OURS, Job
from benchmarks.peers.model import build_model
from benchmarks.peers.ours import search_config
from benchmarks.results import keep, print_table, show, summarise
from benchmarks.split import write_split
from benchmarks.unpacked import unpack_images
from cluster import heap
from fmnist_models.data import TrainingData, data_root, load_images, split_training
from fmnist_models.seeds import derive_seed
from fmnist_models.training import Training, TrainingPlan
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.records.record import read_study
from search.running.arithmetic import decide_precision
from search.running.slots import local_resources

FLOP_PER_IMAGE = 44.6e6  # CustomNet forwards (15.0e6) and backwards, which needs no gradient of the images
_SPAWN = multiprocessing.get_context("spawn")
_CPU = torch.device("cpu")
_MATRIX = 2048
_MATRIX_S = 2.0
_LOOK_S = 5.0
_START_S = 600.0  # at most, for all processes to have warmed up
BARS = {"one core: ours over plain": 2.5, "one core: ours over expert": 1.0, "all cores: search over bare loops": 0.95}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How many images a loop has trained with, and from when to when by its clock."""

    num_images: int
    start_s: float
    end_s: float


def ours(
    numbers: list[int], job: Job, *, clock: Callable[[], float], ready: Callable[[], Any] | None = None
) -> Trained:
    """Trains trials one after the other, after a warm-up and once ``ready`` returns."""
    torch.set_num_threads(1)
    data, plans = load_data(job), make_plans(job)

    def train(plan: TrainingPlan) -> None:
        list(Training(plan, data, device=_CPU).epochs())

    train(replace(plans[numbers[0]], num_epochs=1))
    if ready is not None:
        ready()
    start_s = clock()
    for number in numbers:
        train(plans[number])
    num_images = len(numbers) * job.num_epochs * len(data.train)
    return Trained(num_images=num_images, start_s=start_s, end_s=clock())


def load_data(job: Job) -> TrainingData:
    """The job's images, as our search splits them."""
    images = load_images("fashion-mnist", "train", root=data_root(), size=job.num_images)
    return split_training(images, validation_fraction=job.validation_fraction, seed=job.seed)


def make_plans(job: Job) -> list[TrainingPlan]:
    """The job's trials, as our search trains them."""
    return [
        TrainingPlan(
            network="customnet",
            hyperparameters={**configuration, "batch_size": BATCH_SIZE},
            num_epochs=job.num_epochs,
            seed=derive_seed(job.seed, number),
            precision=job.precision,
        )
        for number, configuration in enumerate(job.configurations)
    ]


def _ours_on_one_core(job: Job) -> float:
    return images_per_second([ours(list(range(len(job.configurations))), job, clock=time.process_time)])


def dataloader(job: Job) -> float:
    """The plain loop, the same trials."""
    torch.set_num_threads(1)
    train_loader, validation_loader = plain.loaders(job)

    def train(number: int, num_epochs: int) -> None:
        model = build_model(job.configurations[number], number, job)
        optimizer = plain.build_optimizer(job.configurations[number], model)
        for _ in range(num_epochs):
            plain.train_one_epoch(model, train_loader, optimizer)
            plain.validate(model, validation_loader)

    train(0, 1)
    start_s = time.process_time()
    for number in range(len(job.configurations)):
        train(number, job.num_epochs)
    trained = len(job.configurations) * job.num_epochs * len(train_loader.dataset)
    return trained / (time.process_time() - start_s)


def expert_loop(job: Job) -> float:
    """An expert's loop, the same trials in the precision of ours."""
    training, validation = expert.load_images(job)
    precision = "bf16" if _is_bf16(job) else "fp32"

    def train(number: int, one: Job) -> None:
        configuration = job.configurations[number]
        list(expert.train(configuration, number, one, training=training, validation=validation, precision=precision))

    train(0, replace(job, num_epochs=1))
    start_s = time.process_time()
    for number in range(len(job.configurations)):
        train(number, job)
    return len(job.configurations) * job.num_epochs * len(training.labels) / (time.process_time() - start_s)


def _is_bf16(job: Job) -> bool:
    return job.precision.startswith("bf16")


def flop_per_second(dtype: torch.dtype) -> float:
    """What one thread reaches in products of large matrices."""
    torch.set_num_threads(1)
    a, b = (torch.randn(_MATRIX, _MATRIX).to(dtype) for _ in range(2))
    times = []
    until_s = time.process_time() + _MATRIX_S
    while time.process_time() < until_s or len(times) < 3:
        start_s = time.process_time()
        torch.mm(a, b)
        times.append(time.process_time() - start_s)
    return 2 * _MATRIX**3 / min(times)


def one_core(job: Job, *, order: int) -> dict[str, float]:
    """Each in a process of its own, in the opposite order each time."""
    loops = {"expert": expert_loop, "ours": _ours_on_one_core, "plain": dataloader}
    rates = {}
    for name in sorted(loops, reverse=order % 2 == 1):
        variables = heap.inherited_by_children() if name == "ours" else contextlib.nullcontext()
        with variables, ProcessPoolExecutor(1, mp_context=_SPAWN) as process:
            rates[name] = process.submit(loops[name], job).result()
    peaks = {"plain": flop_per_second(torch.float32)}
    peaks["ours"] = peaks["expert"] = flop_per_second(torch.bfloat16) if _is_bf16(job) else peaks["plain"]
    found = {f"one core: ours over {name}": rates["ours"] / rates[name] for name in ("plain", "expert")}
    for name, rate in rates.items():
        found[f"one core: {name}, images per second"] = rate
        found[f"one core: {name}, matrix products, GFLOP per second"] = peaks[name] / 1e9
        found[f"one core: {name}, share of the arithmetic limit"] = rate * FLOP_PER_IMAGE / peaks[name]
    return found


def all_cores(job: Job, *, order: int) -> dict[str, float]:
    """Bare loops on all cores and a search, the one or the other first."""
    if order % 2 == 0:
        bare = bare_loops(job)
        steady, whole = search(job)
    else:
        steady, whole = search(job)
        bare = bare_loops(job)
    return {
        "all cores: bare loops, images per second": bare,
        "all cores: search, images per second": steady,
        "all cores: search over bare loops": steady / bare,
        "all cores: whole command over bare loops": whole / bare,
    }


def bare_loops(job: Job) -> float:
    """Images per second of as many processes as trials run at once, which share the trials: of all images, from the
    common start to the end of the last process, as the search's are."""
    barrier, measured = _SPAWN.Barrier(job.num_trials_at_once, timeout=_START_S), _SPAWN.Queue()
    shares = [list(range(len(job.configurations)))[n :: job.num_trials_at_once] for n in range(job.num_trials_at_once)]
    processes = [_SPAWN.Process(target=_bare_loop, args=(share, job, barrier, measured)) for share in shares]
    with heap.inherited_by_children():  # as a search's workers have them
        for process in processes:
            process.start()
    found: list[Trained] = []
    while len(found) < len(processes):
        try:
            found.append(measured.get(timeout=_LOOK_S))
        except queue.Empty:
            if any(process.exitcode for process in processes):
                raise RuntimeError("a bare loop failed") from None
    for process in processes:
        process.join()
    return images_per_second(found)


def images_per_second(loops: Sequence[Trained]) -> float:
    """Of loops that began together, until the last one's end."""
    took_s = max(loop.end_s for loop in loops) - min(loop.start_s for loop in loops)
    return sum(loop.num_images for loop in loops) / took_s


def _bare_loop(numbers: list[int], job: Job, barrier: Barrier, measured: Any) -> None:
    measured.put(ours(numbers, job, clock=time.monotonic, ready=barrier.wait))  # a clock that all processes share


def choose_precision(job: Job) -> tuple[str, list[str]]:
    """What our search would train in here, by its probe, and what that measured."""
    notes: list[str] = []
    num_train = round(job.num_images * (1 - job.validation_fraction))
    precision = decide_precision(parse_config(search_config(job), where="benchmark"), notes, num_train=num_train)
    assert isinstance(precision, str)  # of one network
    return precision, notes


def search(job: Job) -> tuple[float, float]:
    """Images per second of our search of the same trials: from the first trial's start to the last one's end, and of
    the whole command."""
    done = run("benchmarks.peers.ours", job)
    trained = done.num_epochs * job.num_images * (1 - job.validation_fraction)
    return trained / ends_of_trials(job)[-1], trained / done.seconds


def ends_of_trials(job: Job) -> list[float]:
    """When the trials of our search, which is done, ended, in order, in seconds from the first one's start."""
    trials = read_study(Experiment(Path(job.folder, OURS))).get_trials(deepcopy=False)
    begun = min(trial.datetime_start for trial in trials if trial.datetime_start)
    ended = sorted(trial.datetime_complete for trial in trials if trial.datetime_complete)
    return [(each - begun).total_seconds() for each in ended]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="one-core, all-cores, or both")
    parser.add_argument("--trials", type=int, default=4, help="of one core")
    parser.add_argument("--trials-per-core", type=int, default=8, help="of all cores")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def main() -> None:
    """Prints medians."""
    parser = build_parser()
    arguments = parser.parse_args()
    asked = arguments.what or list(_PARTS)
    if not set(asked) <= set(_PARTS):
        parser.error(f"{' '.join(asked)}: valid are {' and '.join(_PARTS)}")
    with tempfile.TemporaryDirectory(prefix="fmnist-bench-") as name:
        images = unpack_images(Path(name))
        for what in asked:
            measure(what, arguments, images=images, folder=Path(name, what))


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What is measured in each repeat, and the arguments that decide it."""

    measure: Callable[..., dict[str, float]]
    settings: tuple[str, ...]


_PARTS = {
    "one-core": _Part(measure=one_core, settings=("trials", "epochs", "images", "repeats")),
    "all-cores": _Part(measure=all_cores, settings=("trials_per_core", "epochs", "images", "repeats")),
}


def file_name(what: str) -> str:
    """What a part's figures are kept as."""
    return f"images_{what.replace('-', '_')}"


def measure(what: str, arguments: argparse.Namespace, *, images: Path, folder: Path) -> None:
    """Measures, keeps and prints a part."""
    part, cpus = _PARTS[what], local_resources().cpus
    at_once = cpus if what == "all-cores" else 1
    job = Job(
        configurations=draw(arguments.trials_per_core * cpus if what == "all-cores" else arguments.trials, seed=0),
        num_epochs=arguments.epochs,
        early_stopping=False,
        num_images=arguments.images,
        num_trials_at_once=at_once,
        data_dir=str(images),
        folder=str(folder),
    )
    precision, notes = choose_precision(job)
    found: dict[str, list[float]] = {}
    for repeat in range(arguments.repeats):
        own = replace(job, precision=precision, folder=str(folder / str(repeat)))
        write_split(own)
        for figure, value in part.measure(own, order=repeat).items():
            found.setdefault(figure, []).append(value)
    summaries = {figure: summarise(values) for figure, values in found.items()}
    settings = {name: getattr(arguments, name) for name in part.settings}
    is_standard = all(value == build_parser().get_default(name) for name, value in settings.items())
    chosen = {"precision": precision, "precision_notes": notes}
    keep(file_name(what), {"settings": settings | chosen, "figures": summaries}, is_standard=is_standard)
    print(f"ours in {precision} everywhere")
    rows = [(figure, show(summary), f"{BARS.get(figure, '')}") for figure, summary in sorted(summaries.items())]
    print_table([("figure", "median (mean ± deviation, n)", "bar"), *rows])


if __name__ == "__main__":
    main()

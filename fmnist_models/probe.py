"""How fast a network trains in each arithmetic here, found out by a few steps of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from fmnist_models.data import LabelledImages, Normalisation, TrainingData
from fmnist_models.precision import resolve_precision
from fmnist_models.training import Training, TrainingPlan

_SIDE = 28
_FEW = 16  # images a step of a network that is slow: enough to tell, and seconds less
_GROWTH = 4
_ROUNDS = 8
_MIN_ROUNDS = 2
_STEPS_OF_A_PAIR = 2 * (1 + _MIN_ROUNDS)  # at least; the first ones do not count
_PAIR_S = 0.5
_CLEARLY = 0.95  # of the time of what is usual here
_HOPELESS = 1.25  # times what is usual here, and not worth another step


def candidates(device: torch.device) -> tuple[str, ...]:
    """What a network may be trained in on the device; what is usual there (``resolve_precision``) comes first."""
    usual = resolve_precision("auto", device)
    fp32 = ("fp32", "fp32-channels-last")
    return ("bf16", "bf16-contiguous", *fp32) if usual == "bf16" else fp32


def seconds_per_step(
    plan: TrainingPlan,
    precisions: Sequence[str],
    *,
    device: torch.device,
    num_threads: int,
    batch_size: int,
    seconds: float,
) -> dict[str, float]:
    """Precision → the shortest of some steps of ``batch_size`` images in it, in seconds, of one thread on a CPU in CPU
    seconds of that thread; first steps do not count.

    Each takes turns with the first one, so that other work on the machine slows both and not one; such a pair takes
    half a second, or as long as three steps of each, or until it is clear that the first one is faster. All of it
    takes about ``seconds``: a step has fewer images, but not fewer than 16, where ``batch_size`` images would take
    longer. Two models are in memory at a time.
    """
    if plan.hyperparameters.get("input_size", _SIDE) > _SIDE:
        batch_size = min(batch_size, _FEW)
    # So small a rate that no loss becomes infinite; an epoch of one batch is a step.
    settings = {**plan.hyperparameters, "lr": 1e-7}
    one_step = replace(plan, hyperparameters=settings, num_epochs=_ROUNDS + 1)
    found = dict.fromkeys(precisions, float("inf"))
    usual, *others = precisions
    pair_s = seconds / len(others)
    clock = time.thread_time if device.type == "cpu" and num_threads == 1 else time.perf_counter
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch.set_num_threads(num_threads)
            first = replace(one_step, precision=usual)
            batch_size = _affordable(first, batch_size, device=device, step_s=pair_s / _STEPS_OF_A_PAIR)
            for other in others:
                steps = {
                    name: _steps(replace(one_step, precision=name), batch_size, device=device)
                    for name in (usual, other)
                }
                _time_in_turns(steps, found, clock=clock, seconds=min(_PAIR_S, pair_s))
        finally:
            torch.set_num_threads(threads_before)
            if device.type == "cuda":
                torch.cuda.empty_cache()  # trials share the GPU, and not with this
    return found


def _steps(plan: TrainingPlan, batch_size: int, *, device: torch.device) -> Iterator[object]:
    """Steps of ``batch_size`` random images."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, _SIDE, _SIDE), dtype=np.uint8)
    part = LabelledImages(images, np.arange(batch_size) % 10)
    data = TrainingData(part, part.first(2), Normalisation(0.3, 0.35))
    settings = {**plan.hyperparameters, "batch_size": batch_size}
    return Training(replace(plan, hyperparameters=settings), data, device=device).epochs()


def _affordable(plan: TrainingPlan, batch_size: int, *, device: torch.device, step_s: float) -> int:
    """How many of ``batch_size`` images a step of about ``step_s`` has. Tried with more and more images, as a GPU takes
    as long for a few images as for many."""
    size = min(_FEW, batch_size)
    while size < batch_size:
        steps = _steps(plan, size, device=device)
        next(steps)
        start_s = time.perf_counter()
        next(steps)
        took_s = time.perf_counter() - start_s
        if took_s * batch_size <= step_s * size:
            return batch_size
        if _GROWTH * took_s > step_s:
            return max(_FEW, min(batch_size, int(size * step_s / took_s)))
        size = min(batch_size, _GROWTH * size)
    return batch_size


def _time_in_turns(
    steps: Mapping[str, Iterator[object]], found: dict[str, float], *, clock: Callable[[], float], seconds: float
) -> None:
    """Puts into ``found`` what is shorter than what is there."""
    for step in steps.values():
        next(step)
    usual, other = steps
    here = dict.fromkeys(steps, float("inf"))
    start_s = time.perf_counter()
    for number in range(_ROUNDS):
        is_told = here[other] > _HOPELESS * here[usual] or time.perf_counter() > start_s + seconds
        if number >= _MIN_ROUNDS and is_told:
            break
        for precision, step in steps.items():
            before_s = clock()
            next(step)  # which ends with numbers on the CPU, so a GPU has done its work too
            here[precision] = min(here[precision], clock() - before_s)
    for precision, time_s in here.items():
        found[precision] = min(found[precision], time_s)


def choose(seconds: Mapping[str, float]) -> str:
    """The fastest, unless it is hardly faster than the first one, which is what is usual."""
    usual, fastest = next(iter(seconds)), min(seconds, key=lambda precision: seconds[precision])
    return fastest if seconds[fastest] < _CLEARLY * seconds[usual] else usual


def describe_choice(seconds: Mapping[str, float]) -> str:
    """What ``choose`` gives, and why."""
    usual, chosen = next(iter(seconds)), choose(seconds)
    if chosen != usual:
        return f"{chosen}, {seconds[usual] / seconds[chosen]:.2g} times as fast as the usual choice, {usual}"
    close = [precision for precision, time_s in seconds.items() if time_s < seconds[usual]]
    if not close:
        return f"{usual}, the usual choice and the fastest"
    return f"{usual}, the usual choice; {', '.join(close)} within {100 * (1 - _CLEARLY):.0f} %"

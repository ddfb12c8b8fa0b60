"""Which arithmetic the networks of a search are trained in, where the configuration leaves it open."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from fmnist_models.networks import Network
from fmnist_models.precision import resolve_precision
from fmnist_models.probe import candidates, choose, seconds_per_step
from fmnist_models.training import TrainingPlan
from search.configuration.config import SearchConfig
from search.configuration.space import MODEL

_AUTO = "auto"


def decide_precision(config: SearchConfig, notes: list[str]) -> str | dict[str, str]:
    """What ``auto`` is here, so that it stays so on whatever machine the search is continued; network → precision if
    not the same for all. Adds to ``notes`` what was measured.

    Each network is timed for a moment with what lies in the middle of the space. A repeatable search takes
    what the processor or GPU has instructions for, as a clock may not decide what it finds. What trials have a GPU for
    that this machine lacks is decided there.
    """
    if config.gpus_per_trial and not torch.cuda.is_available():
        return _AUTO
    device = torch.device("cuda" if config.gpus_per_trial else "cpu")
    if config.deterministic:
        return resolve_precision(_AUTO, device)
    try:
        found = {network.name: _probe(network, config, device, notes) for network in config.space.networks}
    except RuntimeError as error:  # a GPU that others fill, say
        precision = resolve_precision(_AUTO, device)
        notes.append(f"precision: {precision}, untimed, because of {str(error).splitlines()[0][:200]}")
        return precision
    one, *others = set(found.values())
    return found if others else one


def _probe(network: Network, config: SearchConfig, device: torch.device, notes: list[str]) -> str:
    hyperparameters = config.space.suggest(_Middle(network.name))  # type: ignore[arg-type]
    batch_size = max(2, hyperparameters["batch_size"] // config.workers_per_trial)
    plan = TrainingPlan(
        network=hyperparameters.pop(MODEL), hyperparameters=hyperparameters, num_epochs=1, seed=config.seed
    )
    seconds = seconds_per_step(
        plan,
        candidates(device),
        device=device,
        num_threads=max(1, int(config.cpus / config.workers_per_trial)),
        batch_size=batch_size,
    )
    measured = ", ".join(f"{precision} {1e3 * time_s:.3g}" for precision, time_s in seconds.items())
    notes.append(f"precision: {network.name} in {choose(seconds)} (ms a step: {measured})")
    return choose(seconds)


@dataclass(frozen=True)
class _Middle:
    """An Optuna trial of one network whose every value is in the middle of what it may be; of two options, the second,
    which is for a stage that it trains."""

    network: str

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False, **_: Any) -> float:
        return math.sqrt(low * high) if log else (low + high) / 2

    def suggest_int(self, name: str, low: int, high: int, **_: Any) -> int:
        return (low + high) // 2

    def suggest_categorical(self, name: str, options: tuple[Any, ...]) -> Any:
        return self.network if name == MODEL else options[len(options) // 2]

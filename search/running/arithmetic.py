"""Which arithmetic the networks of a search are trained in, where the configuration leaves it open."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch

from fmnist_models.devices import device_name, processor_name
from fmnist_models.networks import Network
from fmnist_models.precision import resolve_precision
from fmnist_models.probe import candidates, choose, describe_choice, seconds_per_step
from fmnist_models.probe_cache import timed_once
from fmnist_models.training import TrainingPlan
from search.configuration.config import SearchConfig
from search.configuration.space import MODEL

_AUTO = "auto"
_SECONDS = 3.0  # to time all networks of a search, about


def decide_precision(config: SearchConfig, notes: list[str], *, num_train: int) -> str | dict[str, str]:
    """What ``auto`` is here, so that it stays so on whatever machine the search is continued; network → precision if
    not the same for all. Adds to ``notes`` what was chosen, and why. ``num_train``: images that a trial trains on.

    Each network is timed for a moment with what lies in the middle of the space, once on a machine: the same search
    chooses the same again. A repeatable search takes what the processor or GPU has instructions for, as a clock may not
    decide what it finds. What trials have a GPU for that this machine lacks is decided there.
    """
    if config.gpus_per_trial and not torch.cuda.is_available():
        return _AUTO
    device = torch.device("cuda" if config.gpus_per_trial else "cpu")
    if config.deterministic:
        return resolve_precision(_AUTO, device)
    try:
        found = {network.name: _probe(network, config, device, notes, num_train) for network in config.space.networks}
    except RuntimeError as error:  # a GPU that others fill, say
        precision = resolve_precision(_AUTO, device)
        notes.append(f"precision: {precision}, untimed, because of {str(error).splitlines()[0][:200]}")
        return precision
    one, *others = set(found.values())
    return found if others else one


def _probe(network: Network, config: SearchConfig, device: torch.device, notes: list[str], num_train: int) -> str:
    hyperparameters = config.space.suggest(_Middle(network.name))  # type: ignore[arg-type]
    batch_size = max(2, min(hyperparameters["batch_size"], num_train) // config.workers_per_trial)
    plan = TrainingPlan(
        network=hyperparameters.pop(MODEL), hyperparameters=hyperparameters, num_epochs=1, seed=config.seed
    )
    num_threads = max(1, int(config.cpus / config.workers_per_trial))
    precisions = candidates(device)

    def measure() -> dict[str, float]:
        return seconds_per_step(
            plan,
            precisions,
            device=device,
            num_threads=num_threads,
            batch_size=batch_size,
            seconds=_SECONDS / len(config.space.networks),
        )

    key = {
        "machine": processor_name() if device.type == "cpu" else device_name(device),
        "torch": torch.__version__,
        "network": network.name,
        "hyperparameters": dataclasses.asdict(network.split(hyperparameters)[0]),
        "batch_size": batch_size,
        "num_threads": num_threads,
        "precisions": list(precisions),
    }
    seconds, was_kept = timed_once(key, measure)
    earlier = " (timed in an earlier run)" if was_kept else ""
    notes.append(f"precision: {network.name} in {describe_choice(seconds)}{earlier}")
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

"""Seconds of a ResNet-18 trial of which only the last stages train, with the features of the others kept and without.

Both in one process with the memory settings of a search's workers, one after the other. The trials start from one
file's weights, as those of a search over stages to unfreeze do, in the arithmetic that a search's probe chooses;
`first_s` is the trial that fills the cache.
`python -m benchmarks.frozen_prefix`.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.models import resnet18

from benchmarks.results import is_standard, keep, summarise
from cluster import heap
from fmnist_models.data import TrainingData, data_root, load_images, split_training
from fmnist_models.feature_cache import FeatureCache
from fmnist_models.probe import candidates, choose, seconds_per_step
from fmnist_models.training import Training, TrainingPlan


def make_plan(unfreeze: tuple[str, ...]) -> TrainingPlan:
    hyperparameters = {"unfreeze": unfreeze, "stem_init": "sum"}
    return TrainingPlan(network="resnet18", hyperparameters=hyperparameters, num_epochs=1, seed=0)


def choose_precision() -> str:
    """What a search would train the network in here, by its probe."""
    device = torch.device("cpu")
    plan = make_plan(("layer4", "fc"))
    return choose(seconds_per_step(plan, candidates(device), device=device, num_threads=1, batch_size=64))


def seconds(
    unfreeze: tuple[str, ...],
    data: TrainingData,
    *,
    pretrained: Mapping[str, Tensor],
    num_epochs: int,
    precision: str,
    cache: FeatureCache | None,
) -> float:
    plan = replace(make_plan(unfreeze), num_epochs=num_epochs, precision=precision)
    start_s = time.perf_counter()
    list(Training(plan, data, device=torch.device("cpu"), pretrained=pretrained, cache=cache).epochs())
    return time.perf_counter() - start_s


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """By what trains: seconds, and how many times faster a trial is whose features other trials have computed, of each
    repeat."""
    torch.set_num_threads(1)
    images = load_images("fashion-mnist", "train", root=data_root(), size=arguments.images)
    data = split_training(images, validation_fraction=0.1, seed=0)
    torch.manual_seed(0)
    pretrained = {name: tensor for name, tensor in resnet18().state_dict().items() if not name.startswith("fc.")}
    precision = choose_precision()
    result: dict[str, Any] = {"precision": precision}
    with tempfile.TemporaryDirectory() as folder:
        for unfreeze in (("fc",), ("layer4", "fc")):
            cache = FeatureCache(Path(folder), max_bytes=2 * 10**9)
            train = functools.partial(
                seconds, unfreeze, data, pretrained=pretrained, num_epochs=arguments.epochs, precision=precision
            )
            first = train(cache=cache)
            with_them, without = [], []
            for _ in range(arguments.repeats):
                with_them.append(train(cache=cache))
                without.append(train(cache=None))
            result["+".join(unfreeze)] = {
                "first_s": round(first, 2),
                "with_features_s": summarise(with_them),
                "without_s": summarise(without),
                "times_faster": summarise([b / a for a, b in zip(with_them, without, strict=True)]),
            }
    return result


def main() -> None:
    """Prints what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with heap.inherited_by_children(), ProcessPoolExecutor(1, mp_context=spawn) as process:
        result = process.submit(measure, arguments).result()
    keep("frozen_prefix", {"settings": vars(arguments), **result}, is_standard=is_standard(parser, arguments))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

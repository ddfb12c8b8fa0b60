"""What a search needs before anything starts: images, pretrained weights, and a configuration without `auto`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fmnist_models.data import TrainingData, load_images, prepare_fashion_mnist, split_training
from fmnist_models.errors import DataError
from fmnist_models.weights import imagenet_available, load_pretrained
from search.config import SearchConfig
from search.space import Choice, Fixed, Space

_WEIGHTS = "weights"
_AUTO = "auto"
_AUTO_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Prepared:
    """A configuration in which nothing is left to decide, what it names, and what a person should know about it."""

    config: SearchConfig
    data: TrainingData
    pretrained: Mapping[str, dict[str, Tensor]]
    notes: tuple[str, ...]


def prepare(config: SearchConfig, *, data_root: Path) -> Prepared:
    """Loads what the configuration names and decides what it leaves open.

    Raises:
        DataError: images are damaged, missing or too few.
        WeightsError: pretrained weights are missing or of another network.
    """
    notes: list[str] = []
    if config.dataset == _AUTO:
        config = _decide_dataset(config, data_root, notes)
    if _AUTO in _weights_of(config.space):
        config = config.model_copy(update={"space": _decide_weights(config.space, notes)})
    train = load_images(config.dataset, "train", root=data_root, size=config.train_size)
    pretrained = {name: load_pretrained(name) for name in _weights_of(config.space)}
    return Prepared(
        config,
        split_training(train, validation_fraction=config.validation_fraction, seed=config.seed),
        {name: state for name, state in pretrained.items() if state is not None},
        tuple(notes),
    )


def _decide_dataset(config: SearchConfig, data_root: Path, notes: list[str]) -> SearchConfig:
    try:
        prepare_fashion_mnist(data_root, timeout_s=_AUTO_TIMEOUT_S)
    except DataError as error:
        notes.append(f"NOT FASHION-MNIST: training on SYNTHETIC garments drawn in code, because {error}")
        return config.model_copy(update={"dataset": "synthetic"})
    return config.model_copy(update={"dataset": "fashion-mnist"})


def _decide_weights(space: Space, notes: list[str]) -> Space:
    """`auto` becomes `imagenet` if that can be had, else `none`, and with it goes what only pretrained weights need."""
    found = imagenet_available()
    notes.append(
        "weights: auto is imagenet"
        if found
        else "weights: auto is none (ImageNet's are not cached and not downloadable)"
    )
    decided = "imagenet" if found else "none"
    old = space.dimensions[_WEIGHTS]
    options = dict.fromkeys(decided if value == _AUTO else str(value) for value in old.values())
    dimensions: dict[str, Any] = dict(space.dimensions)
    dimensions[_WEIGHTS] = Choice(tuple(options)) if len(options) > 1 else Fixed(decided)
    if dimensions[_WEIGHTS] == Fixed("none"):
        dimensions.pop("stem_init", None)
    return dataclasses.replace(space, dimensions=dimensions)


def _weights_of(space: Space) -> tuple[str, ...]:
    return tuple(str(value) for value in space.dimensions[_WEIGHTS].values()) if _WEIGHTS in space.dimensions else ()

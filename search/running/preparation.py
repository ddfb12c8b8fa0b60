"""What a search needs before anything starts: images, pretrained weights, and a configuration without `auto`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fmnist_models.data import TrainingData, load_images, prepare_fashion_mnist, split_training
from fmnist_models.errors import DataError
from fmnist_models.folds import FoldedImages, check_folds
from fmnist_models.paths import expand_home
from fmnist_models.weights import imagenet_available, load_pretrained
from search.configuration.config import Dataset, SearchConfig
from search.configuration.dimensions import Choice, Fixed
from search.configuration.space import Space
from search.running.arithmetic import decide_precision
from search.study.wilcoxon import FEWEST_FOLDS

_WEIGHTS = "weights"
_NAMED = ("auto", "imagenet", "none")  # all others are paths
_AUTO = "auto"
_AUTO_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Prepared:
    """A configuration in which nothing is left to decide, what it names, and what a person should know about it."""

    config: SearchConfig
    data: TrainingData | FoldedImages
    pretrained: Mapping[str, dict[str, Tensor]]
    notes: tuple[str, ...]

    @property
    def num_images(self) -> tuple[int, int]:
        """How many images a training trains on and validates on; in folds, which differ by an image, about."""
        return _count_images(self.data)


def prepare(
    config: SearchConfig,
    *,
    data_root: Path,
    before: SearchConfig | None = None,
    decide: Callable[..., str | dict[str, str]] = decide_precision,
) -> Prepared:
    """Loads what the configuration names and decides what it leaves open.

    ``before``: the configuration of the experiment that is to be continued, whose decisions stand. ``decide``: which
    precision ``auto`` is, as ``decide_precision``.

    Raises:
        DataError: images are damaged, missing or too few.
        WeightsError: pretrained weights are missing or of another network.
    """
    notes: list[str] = []
    if config.dataset == _AUTO:
        decided = before.dataset if before else _decide_dataset(data_root, notes)
        config = config.model_copy(update={"dataset": decided})
    if _AUTO in _weights_of(config.space):
        found = "imagenet" in _weights_of(before.space) if before else _decide_weights(notes)
        config = config.model_copy(update={"space": _without_auto(config.space, found=found)})
    config = config.model_copy(update={"space": with_full_paths(config.space)})
    data = load_training_data(config, data_root=data_root)
    if config.precision == _AUTO:
        precision = before.precision if before else decide(config, notes, num_train=_count_images(data)[0])
        config = config.model_copy(update={"precision": precision})
    if config.folds is not None and config.folds <= FEWEST_FOLDS and config.pruner != "none":
        notes.append(
            f"objective: with {config.folds} folds trials are pruned in the first one alone; the test between folds "
            f"needs {FEWEST_FOLDS} of them to be sure, so that it takes {FEWEST_FOLDS + 1} or more to save one"
        )
    pretrained = {name: load_pretrained(name) for name in _weights_of(config.space)}
    return Prepared(
        config,
        data,
        {name: state for name, state in pretrained.items() if state is not None},
        tuple(notes),
    )


def _count_images(data: TrainingData | FoldedImages) -> tuple[int, int]:
    if isinstance(data, FoldedImages):
        return len(data.images) - data.num_validation, data.num_validation
    return len(data.train), len(data.validation)


def load_training_data(config: SearchConfig, *, data_root: Path) -> TrainingData | FoldedImages:
    """The configuration's training and validation images, or those that are both by turns.

    Raises:
        DataError: images are damaged, missing or too few.
    """
    images = load_images(config.dataset, "train", root=data_root, size=config.train_size)
    if config.folds is not None:
        check_folds(images, folds=config.folds)
        return FoldedImages(images, folds=config.folds, seed=config.seed)
    return split_training(images, validation_fraction=config.validation_fraction, seed=config.seed)


def _decide_dataset(data_root: Path, notes: list[str]) -> Dataset:
    try:
        prepare_fashion_mnist(data_root, timeout_s=_AUTO_TIMEOUT_S)
    except DataError as error:
        notes.append(f"NOT FASHION-MNIST: training on SYNTHETIC garments drawn in code, because {error}")
        return "synthetic"
    return "fashion-mnist"


def _decide_weights(notes: list[str]) -> bool:
    found = imagenet_available()
    missing = "weights: auto is none (ImageNet's are not cached and not downloadable)"
    notes.append("weights: auto is imagenet" if found else missing)
    return found


def _without_auto(space: Space, *, found: bool) -> Space:
    """`auto` becomes `imagenet` if found, else `none`, and with it goes what only pretrained weights need."""
    if not found and set(_weights_of(space)) <= {_AUTO, "none"}:
        kept = {name: dimension for name, dimension in space.dimensions.items() if name != "stem_init"}
        return dataclasses.replace(space, dimensions={**kept, _WEIGHTS: Fixed("none")})
    return _map_weights(space, lambda value: ("imagenet" if found else "none") if value == _AUTO else value)


def weights_files(space: Space) -> tuple[str, ...]:
    """The paths among the weights that trials may start from."""
    return tuple(value for value in _weights_of(space) if value not in _NAMED)


def with_full_paths(space: Space) -> Space:
    """A path means the same file from wherever the experiment is looked at again."""
    return _map_weights(space, lambda value: value if value in _NAMED else str(expand_home(value).absolute()))


def _map_weights(space: Space, change: Callable[[str], str]) -> Space:
    options = tuple(dict.fromkeys(change(value) for value in _weights_of(space)))
    if not options:
        return space
    dimension = Choice(options) if isinstance(space.dimensions[_WEIGHTS], Choice) else Fixed(options[0])
    return dataclasses.replace(space, dimensions={**space.dimensions, _WEIGHTS: dimension})


def _weights_of(space: Space) -> tuple[str, ...]:
    return tuple(str(value) for value in space.dimensions[_WEIGHTS].values()) if _WEIGHTS in space.dimensions else ()

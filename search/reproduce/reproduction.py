"""A published table reproduced: what is not yet trained is trained, then all is compared and saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmnist_models.data import load_images
from fmnist_models.errors import WeightsError
from fmnist_models.paths import expand_home
from fmnist_models.training import DivergedError
from fmnist_models.weights import load_pretrained
from search.errors import ConfigError, ExperimentError
from search.records.experiment import Experiment
from search.reproduce.comparison import compare
from search.reproduce.cost import LIMIT_S, Cost, check_costs, measure_seconds
from search.reproduce.document import Document, save_document
from search.reproduce.findings import find
from search.reproduce.protocol import Protocol
from search.reproduce.published import PublishedModel, PublishedTable
from search.reproduce.runs import RunFiles, RunResult, Subject, read_result, run
from search.reproduce.searched import read_searched

_WEIGHTS = "weights"
_IMAGENET = "imagenet"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be reproduced. ``networks``: of the table, all if none is named; ``weights``: what stands for the
    paper's ImageNet weights, which are the default; ``insist``: however long it takes; ``beside``: experiments whose
    results are shown too."""

    table: PublishedTable
    num_seeds: int = 3
    scale: float = 1.0
    networks: tuple[str, ...] = ()
    weights: str = _IMAGENET
    folder: Path
    data_root: Path
    insist: bool = False
    beside: tuple[Experiment, ...] = ()
    limit_s: float = LIMIT_S

    def __post_init__(self) -> None:
        if self.num_seeds < 1:
            raise ConfigError(f"--seeds must be at least 1, but got {self.num_seeds}")


def reproduce(order: Order, *, tell: Callable[[str], None]) -> tuple[Document, tuple[Path, ...]]:
    """Trains what is not yet in ``order.folder``, compares and saves; ``tell`` hears how it goes.

    Raises:
        ConfigError: no such network in the table, or a number out of range.
        DataError, WeightsError: images or pretrained weights are missing.
        ExperimentError: it would take too long, a training diverged, or the folder holds or can hold no such results.
    """
    protocol = order.table.protocol.scaled(order.scale)
    models = order.table.choose(order.networks)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = load_images("fashion-mnist", "train", root=order.data_root, size=protocol.train_size)
    test = load_images("fashion-mnist", "test", root=order.data_root, size=protocol.test_size)
    deviations = [] if order.scale == 1 else [f"scale {order.scale:g}"]
    seeds, substitutes = tuple(range(order.num_seeds)), {}
    searched = tuple(read_searched(experiment) for experiment in order.beside)
    subjects: dict[str, tuple[Subject, Mapping[str, Tensor] | None]] = {}
    for model in models:
        subjects[model.network] = _subject(model, order, protocol)
        used = subjects[model.network][0].weights
        if _WEIGHTS in model.hyperparameters and used != _IMAGENET:
            substitutes[model.network] = f"{model.title} from {used} in place of ImageNet's weights"
    finished = {
        (model.network, seed): read_result(subjects[model.network][0], _files(order, model, seed))
        for model in models
        for seed in seeds
    }
    costs = []
    for model in models:
        missing = sum(finished[model.network, seed] is None for seed in seeds)
        if missing:
            subject, pretrained = subjects[model.network]
            seconds = measure_seconds(subject, train, pretrained=pretrained, device=device)
            costs.append(Cost(model.title, missing, missing * seconds))
    for cost in costs:
        tell(str(cost))
    if not order.insist:
        check_costs(costs, limit_s=order.limit_s)
    comparisons = []
    for model in models:
        subject, pretrained = subjects[model.network]
        results: list[RunResult] = []
        for seed in seeds:
            known = finished[model.network, seed]
            if known is not None:
                tell(f"{model.title}, seed {seed}: finished before")
            else:
                known = _train(
                    model, subject, seed, pretrained, order, train=train, test=test, device=device, tell=tell
                )
            results.append(known)
        comparisons.append(compare(model, results))
    # The findings are about the published images, whatever share of them is trained on here.
    labels = load_images("fashion-mnist", "test", root=order.data_root, size=order.table.protocol.test_size).labels
    document = Document(
        table=order.table,
        protocol=protocol,
        seeds=seeds,
        deviations=tuple(deviations),
        substitutes=substitutes,
        findings=tuple(find(order.table, labels)),
        models=tuple(comparisons),
        searched=searched,
    )
    try:
        return document, save_document(document, order.folder)
    except OSError as error:
        raise ExperimentError(f"the comparison cannot be saved in {order.folder}: {error.strerror}") from error


def _train(
    model: PublishedModel,
    subject: Subject,
    seed: int,
    pretrained: Mapping[str, Tensor] | None,
    order: Order,
    *,
    tell: Callable[[str], None],
    **parts: Any,
) -> RunResult:
    def heard(epoch: Any) -> None:
        tell(
            f"{model.title}, seed {seed}: epoch {epoch.epoch} of up to {subject.protocol.num_epochs}, training "
            f"accuracy {epoch.train_accuracy:.4f}, {epoch.epoch_s:.1f} s"
        )

    try:
        result = run(subject, seed, pretrained=pretrained, files=_files(order, model, seed), tell=heard, **parts)
    except DivergedError as error:
        raise ExperimentError(f"{model.title}, seed {seed}: {error}") from error
    tell(f"{model.title}, seed {seed}: test accuracy {result.numbers['accuracy']:.4f}")
    return result


def _files(order: Order, model: PublishedModel, seed: int) -> RunFiles:
    return RunFiles(order.folder / model.network / f"seed-{seed}")


def _subject(model: PublishedModel, order: Order, protocol: Protocol) -> tuple[Subject, Mapping[str, Tensor] | None]:
    values = dict(model.hyperparameters)
    pretrained, label = None, "none"
    if _WEIGHTS in values:
        values[_WEIGHTS] = order.weights
        try:
            pretrained = load_pretrained(order.weights)
        except WeightsError as error:
            raise WeightsError(
                f"{model.title}: {error}; name others with --weights, or leave it out with --model"
            ) from error
        label = order.weights
        if order.weights not in (_IMAGENET, "none"):
            path = expand_home(order.weights)
            label = f"{path.name} (SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
    return Subject(network=model.network, hyperparameters=values, protocol=protocol, weights=label), pretrained

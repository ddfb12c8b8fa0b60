"""The page's part about networks, for each of those there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from epochs import make_epoch
from made_experiment import make_experiment

from fmnist_models.data import CLASS_NAMES, Normalisation
from fmnist_models.networks import NETWORKS, build_network
from fmnist_models.saved_model import ModelConfig, save_model
from search.configuration.config import parse_config
from search.records.epochs_file import format_epochs
from search.report.images import Images
from search.report.items import Missing, Picture
from search.report.material import read_material
from search.report.network_pictures import picture_network
from search.report.training import chart_training
from search.report.wording import NETWORK_TITLES

_IMAGES, _LABELS = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8), np.arange(10)
IMAGES = Images(CLASS_NAMES, _IMAGES, _LABELS, _IMAGES, _LABELS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_pictures_or_a_reason(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    values = {"input_size": 28} if name == "alexnet11" else {}
    config = ModelConfig(
        network=name,
        hyperparameters=values,
        normalisation=Normalisation(0.3, 0.3),
        class_names=CLASS_NAMES,
        dataset="synthetic",
    )
    save_model(tmp_path, build_network(name, values), config, metadata={})
    filters, maps = picture_network(tmp_path, IMAGES, command="fmnist evaluate x")
    if name == "lstm":
        assert isinstance(filters, Missing)
        assert isinstance(maps, Missing)
        assert filters.reason == maps.reason == "LSTM: this network has no convolution."
        return
    assert isinstance(filters, Picture)
    assert isinstance(maps, Picture)
    assert maps.note.startswith(f"{NETWORKS[name].title} and test image 4, a Coat")
    assert maps.note.endswith("left out: c1.0.") == (name == "lenet5")
    assert ("each of 2 convolutions" in maps.alt) == (name == "lenet5")


def test_the_maps_are_those_of_the_image_where_its_mirror_image_is_judged_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, drawn = build_network("customnet", {}), []
    for flip_averaging in (False, True):
        config = ModelConfig(
            network="customnet",
            hyperparameters={"flip_averaging": flip_averaging},
            normalisation=Normalisation(0.3, 0.3),
            class_names=CLASS_NAMES,
            dataset="synthetic",
        )
        save_model(tmp_path, network, config, metadata={})
        drawn.append(picture_network(tmp_path, IMAGES, command="fmnist evaluate x"))
    assert drawn[0] == drawn[1]


def test_a_network_is_called_by_its_title() -> None:
    assert {network.name: network.title for network in NETWORKS.values()} == NETWORK_TITLES


@pytest.mark.parametrize(
    ("name", "figure"), [("customnet", "Figure 9 of"), ("resnet18", "Figure 10 of"), ("lenet5", ""), ("resnet34", "")]
)
def test_only_the_papers_networks_have_figures_in_it(name: str, figure: str, tmp_path: Path) -> None:
    raw = {"dataset": "synthetic", "space": {"model": name, "lr": {"float": [0.1, 0.2]}}, "max_trials": 1}
    experiment = make_experiment(tmp_path / "mine", parse_config({**raw, "max_epochs": 2}, where="test"), [[0.1, 0.2]])
    experiment.trial(0).path.mkdir(parents=True, exist_ok=True)
    epochs = [make_epoch(1, 0.1), make_epoch(2, 0.2)]
    experiment.trial(0).epochs.write_text(format_epochs(epochs, dataset="synthetic"))
    [charts] = chart_training(read_material(experiment))
    assert not isinstance(charts, Missing)
    assert charts[0].title.startswith(f"{NETWORKS[name].title}, trial 0")
    assert ("Figure" in charts[0].note) == bool(figure)
    assert charts[0].note.startswith(figure or "No search here")

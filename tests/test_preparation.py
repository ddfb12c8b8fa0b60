"""What is decided before a search starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fmnist_models import data
from fmnist_models.data import data_root
from search.configuration.config import SearchConfig, parse_config
from search.configuration.dimensions import Choice, Fixed
from search.running import preparation
from search.running.preparation import prepare

SMALL = {"dataset": "synthetic", "train_size": 200}


def config(**changes: Any) -> SearchConfig:
    return parse_config({**SMALL, "space": {"model": "customnet"}, **changes}, where="test")


@pytest.fixture
def _closed_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-weights"))


def test_only_training_images_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = []

    def load(dataset: str, part: data.Part, **options: Any) -> data.LabelledImages:
        parts.append(part)
        return data.load_images(dataset, part, **options)

    monkeypatch.setattr(preparation, "load_images", load)
    prepared = prepare(config(), data_root=Path("unused"))
    assert parts == ["train"]
    assert len(prepared.data.train) + len(prepared.data.validation) == 200


@pytest.mark.usefixtures("_closed_network")
def test_auto_without_a_network_is_synthetic_and_none_and_says_so(tmp_path: Path) -> None:
    space = {"model": "resnet18", "weights": "auto", "stem_init": {"choice": ["random", "sum"]}}
    prepared = prepare(config(dataset="auto", space=space), data_root=tmp_path / "no-data")
    assert prepared.config.dataset == "synthetic"
    assert prepared.config.space.dimensions == {"model": Fixed("resnet18"), "weights": Fixed("none")}
    assert "SYNTHETIC" in prepared.notes[0]
    assert "weights: auto is none" in prepared.notes[1]


@pytest.mark.usefixtures("_closed_network")
def test_a_continued_experiment_keeps_what_auto_was_decided_to_be(tmp_path: Path) -> None:
    before = config(dataset="synthetic", space={"model": "resnet18", "weights": "none"})
    now = config(dataset="auto", space={"model": "resnet18", "weights": "auto"})
    assert prepare(now, data_root=data_root(), before=before).config == before


def test_a_weights_path_means_the_same_file_from_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weights = data_root() / "pretrained" / "resnet18-cifar10.pth"
    if not weights.is_file():
        pytest.skip("no pretrained/resnet18-cifar10.pth beside the images")
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(weights)
    space = {"model": "resnet18", "weights": {"choice": ["none", relative]}}
    prepared = prepare(config(space=space), data_root=data_root())
    found = prepared.config.space.dimensions["weights"]
    assert isinstance(found, Choice)
    assert [Path(str(option)).is_absolute() for option in found.options] == [False, True]
    assert list(prepared.pretrained) == [found.options[1]]

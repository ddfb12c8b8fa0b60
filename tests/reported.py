"""An experiment with everything that a report shows, and what a report's page holds; for tests."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from epochs import make_epoch
from made_experiment import FAILED, make_experiment

from fmnist_models.checkpoint import save_weights
from fmnist_models.data import load_images, split_training
from fmnist_models.networks import build_network
from search.configuration.config import SearchConfig, parse_config
from search.records.epochs_file import format_epochs
from search.records.experiment import Experiment
from search.records.record import best_trial, read_study
from search.workflows.evaluation import evaluate_and_save

CONFIG = {
    "dataset": "synthetic",
    "train_size": 200,
    "test_size": 150,
    "space": {
        "model": {"choice": ["customnet", "resnet18"]},
        "lr": {"float": [1e-4, 1e-1], "log": True},
        "dropout": {"float": [0.0, 0.5], "step": 0.1},
        "unfreeze": {"subset": ["layer4"]},
    },
    "max_trials": 14,
    "max_epochs": 9,
    "min_epochs": 1,
}
_RISING = (0.0, 0.1, 0.15, 0.18, 0.2, 0.21, 0.22, 0.22, 0.21)


def make_reported(path: Path, **changes: Any) -> Experiment:
    """A search at its end with a tested best trial; its models are untrained, which changes nothing for a page."""
    config = parse_config({**CONFIG, **changes}, where="test")
    levels = [0.5, 0.3, 0.55, FAILED, 0.2, 0.6, 0.35, 0.62, 0.4, 0.64, 0.66, 0.3, 0.68, 0.7]
    curves = [level and [level + step for step in _RISING] for level in levels]
    experiment = make_experiment(path, config, curves)
    trials = read_study(experiment).get_trials(deepcopy=False)
    for trial in trials:
        epochs = [make_epoch(epoch, value) for epoch, value in trial.intermediate_values.items()]
        if epochs:
            experiment.trial(trial.number).path.mkdir(exist_ok=True)
            experiment.trial(trial.number).epochs.write_text(format_epochs(epochs, dataset="synthetic"))
    test_best(experiment, config)
    return experiment


def test_best(experiment: Experiment, config: SearchConfig) -> None:
    """Gives the best trial a model and tests it."""
    best = best_trial(read_study(experiment).get_trials(deepcopy=False), config.metric)
    assert best is not None
    torch.manual_seed(0)
    model = build_network(str(best.params["model"]), {})
    experiment.trial(best.number).path.mkdir(exist_ok=True)
    save_weights(experiment.trial(best.number).best, model.state_dict())
    root = Path("unused")
    data = split_training(load_images("synthetic", "train", root=root, size=100), validation_fraction=0.2, seed=0)
    evaluate_and_save(experiment, config, None, data_root=root, data=data)


test_best.__test__ = False  # type: ignore[attr-defined]


def add_trials(experiment: Experiment, trials: Sequence[dict[str, Any]]) -> None:
    """Complete trials as the journal has them, unless they say otherwise."""
    began, ended = "2025-01-01T00:00:00.000000+00:00", "2025-01-01T00:01:00.000000+00:00"
    base = {"op_code": 4, "worker_id": "w", "study_id": 0, "datetime_start": began, "datetime_complete": ended}
    base |= {"state": 1, "value": 0.5, "values": None, "params": {}, "distributions": {}}
    with experiment.journal.open("a") as file:
        file.writelines(json.dumps({**base, **trial}) + "\n" for trial in trials)


def options(*values: Any) -> str:
    return json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": list(values)}})


class Page(HTMLParser):
    """A page as a browser reads it: its elements, its text by element, and its packed data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.texts: list[str] = []
        self._script: str | None = None
        self._is_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_style = tag == "style"
        if tag == "script":
            self._script = dict(attrs).get("id") or "program"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] += data
        elif data.strip() and not self._is_style:
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    @property
    def data(self) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(self.scripts["data"])))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read_page(path: Path) -> Page:
    assert os.path.getsize(path) < 6_000_000
    return Page(path.read_text(encoding="utf-8"))

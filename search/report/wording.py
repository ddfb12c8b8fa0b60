"""Values and names of an experiment as a page shows them: short, printable, and obeyed by nobody."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from fmnist_models.errors import printable

MAX_TEXT = 80
NETWORK_TITLES = {
    "customnet": "CustomNet",
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "lenet5": "LeNet-5",
    "alexnet11": "AlexNet-11",
    "lstm": "LSTM",
}
"""Those of `fmnist_models.networks`, which would import torch."""
_DATASETS = {"fashion-mnist": "Fashion-MNIST", "synthetic": "SYNTHETIC garments drawn in code"}


def text(value: object, *, limit: int = MAX_TEXT) -> str:
    """A value on one line of at most ``limit`` characters; for templates, which escape it."""
    shown = f"{value:.6g}" if isinstance(value, float) else printable(str(value)[: limit + 1]).replace("\n", r"\n")
    return shown if len(shown) <= limit else f"{shown[: limit - 1]}…"


def label(value: object, *, limit: int = 28) -> str:
    """A value as text inside a Plotly figure, which reads some HTML."""
    return html.escape(text(value, limit=limit), quote=False)


def number(value: float) -> float:
    """The number with six significant digits, which is all that a chart can show."""
    return float(f"{value:.6g}")


def network(name: object) -> str:
    """A network's title."""
    return NETWORK_TITLES.get(str(name), text(name))


def dataset(name: object) -> str:
    """A data set's title."""
    return _DATASETS.get(str(name), text(name))


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def count(number: int, noun: str) -> str:
    """``1 trial``, ``1,200 trials``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def parameters(values: Mapping[str, Any]) -> str:
    """Hyperparameters on one line."""
    return ", ".join(
        f"{text(name, limit=40)}={f'{value:.3g}' if isinstance(value, float) else text(value, limit=40)}"
        for name, value in values.items()
    )

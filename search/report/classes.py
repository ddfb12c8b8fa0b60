"""Precision, recall and F1 of each class with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fmnist_models.metrics import wilson_interval
from search.report.items import Chart, Numbers
from search.report.wording import label, text

_NUM_SAMPLES = 2_000
_METRICS = (("precision", "--c1", "circle"), ("recall", "--c2", "square"), ("F1", "--c3", "diamond"))


@dataclass(frozen=True)
class Estimate:
    """A share, and the bounds of its 95 % interval; all 0…1."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class ClassEstimates:
    """What is known of one class from ``support`` images of it."""

    name: str
    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int


def estimate_classes(confusion: npt.NDArray[np.int64], names: Sequence[str], *, seed: int = 0) -> list[ClassEstimates]:
    """Wilson intervals of precision and recall, percentile bootstrap intervals of F1; 0 to 1 where nothing is known.

    ``confusion`` ``(C, C)``, rows: true classes. Drawing as many test images again, with replacement, is drawing the
    confusion matrix's cells with their shares, so the bootstrap needs no list of images.
    """
    hits, taken, there = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    shares = confusion.ravel() / confusion.sum()
    drawn = np.random.default_rng(seed).multinomial(int(confusion.sum()), shares, size=_NUM_SAMPLES)
    f1 = _f1(drawn.reshape(_NUM_SAMPLES, *confusion.shape))
    low, high = np.percentile(f1, [2.5, 97.5], axis=0)
    value = _f1(confusion)
    return [
        ClassEstimates(
            name=name,
            precision=_wilson(int(hits[i]), int(taken[i])),
            recall=_wilson(int(hits[i]), int(there[i])),
            f1=Estimate(float(value[i]), float(low[i]), float(high[i])),
            support=int(there[i]),
        )
        for i, name in enumerate(names)
    ]


def chart_classes(estimates: Sequence[ClassEstimates]) -> Chart:
    """Three points with whiskers a class, and the table of them."""
    traces: list[dict[str, Any]] = []
    for offset, (metric, colour, symbol) in zip((-0.22, 0.0, 0.22), _METRICS, strict=True):
        values = [_of(one, metric) for one in estimates if one.support]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": metric,
                "x": [round(one.value, 4) for one in values],
                "y": [i + offset for i, one in enumerate(estimates) if one.support],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(one.high - one.value, 4) for one in values],
                    "arrayminus": [round(one.value - one.low, 4) for one in values],
                    "color": colour,
                    "thickness": 1.5,
                    "width": 3,
                },
                "marker": {"symbol": symbol, "color": colour, "size": 8},
                "text": [f"{label(one.name)}: {metric} {_shown(_of(one, metric))}" for one in estimates if one.support],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    worst = min((one for one in estimates if one.support), key=lambda one: one.f1.value)
    return Chart(
        key="classes",
        title="Precision, recall and F1 of each class",
        description=(
            f"Each with its 95 % interval. The lowest F1 is that of {text(worst.name)}: {_shown(worst.f1)}. "
            "All numbers are in the table below the chart."
        ),
        traces=traces,
        layout={
            "xaxis": {"title": {"text": "share, with 95 % interval"}, "zeroline": False},
            "yaxis": {
                "tickvals": list(range(len(estimates))),
                "ticktext": [label(one.name) for one in estimates],
                "range": [len(estimates) - 0.5, -0.5],
                "zeroline": False,
                "showgrid": False,
            },
            "hovermode": "closest",
        },
        height_px=140 + 38 * len(estimates),
        numbers=Numbers(
            caption="Precision, recall and F1 of each class, with 95 % intervals",
            header=("class", "precision", "recall", "F1", "images"),
            rows=[
                (
                    text(one.name),
                    *(_shown(_of(one, metric)) if one.support else "-" for metric, _, _ in _METRICS),
                    f"{one.support:,}",
                )
                for one in estimates
            ],
            folded=False,
        ),
        note=(
            f"Precision and recall: Wilson intervals. F1: percentiles of {_NUM_SAMPLES:,} bootstrap samples of the "
            "test images (seed 0)."
        ),
    )


def _of(one: ClassEstimates, metric: str) -> Estimate:
    return {"precision": one.precision, "recall": one.recall, "F1": one.f1}[metric]


def _shown(one: Estimate) -> str:
    return f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})"


def _f1(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of matrices ``(…, C, C)``, each class's F1 ``(…, C)``: 2 hits / (images of it + images taken for it)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.asarray(2 * hits / np.maximum(confusion.sum(axis=-1) + confusion.sum(axis=-2), 1), dtype=np.float64)


def _wilson(successes: int, trials: int) -> Estimate:
    return Estimate(successes / trials, *wilson_interval(successes, trials)) if trials else Estimate(0.0, 0.0, 1.0)

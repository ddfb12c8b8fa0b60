"""Calibration: how often the model is right when it says that it is this sure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search.records.predictions import Predictions
from search.report.items import Chart, Numbers
from search.report.wording import number

_NUM_BINS = 10


@dataclass(frozen=True)
class Bin:
    """Images with a confidence in ``low`` … ``high``: how many, their mean confidence and the share that was right."""

    low: float
    high: float
    num_images: int
    confidence: float
    accuracy: float


def bin_predictions(predictions: Predictions) -> list[Bin]:
    """Ten bins of equal width, without the empty ones."""
    confidence = predictions.confidence.astype(np.float64)
    is_right = predictions.predicted == predictions.labels
    places = np.clip(np.ceil(confidence * _NUM_BINS).astype(int) - 1, 0, _NUM_BINS - 1)
    bins = []
    for place in range(_NUM_BINS):
        mine = places == place
        if mine.any():
            shares = float(confidence[mine].mean()), float(is_right[mine].mean())
            bins.append(Bin(place / _NUM_BINS, (place + 1) / _NUM_BINS, int(mine.sum()), *shares))
    return bins


def expected_error(bins: list[Bin]) -> float:
    """The expected calibration error, 0…1 (Naeini et al. 2015; Guo et al. 2017): the bins' mean gap by images."""
    return sum(one.num_images * abs(one.accuracy - one.confidence) for one in bins) / sum(b.num_images for b in bins)


def chart_calibration(predictions: Predictions, *, temperature: float | None) -> Chart:
    """A reliability diagram with the number of images in each bin; ``temperature``: that of the probabilities."""
    bins = bin_predictions(predictions)
    error = expected_error(bins)
    over = sum(one.num_images * (one.confidence - one.accuracy) for one in bins) > 0
    shown = [
        f"confidence {one.low:.1f} to {one.high:.1f}: {one.accuracy:.1%} of {one.num_images:,} right, "
        f"mean confidence {one.confidence:.1%}"
        for one in bins
    ]
    middles = [number((one.low + one.high) / 2) for one in bins]
    line = {"color": "--ink", "dash": "dash", "width": 1.5}
    return Chart(
        key="calibration",
        title="Calibration",
        description=(
            f"Share of right answers by confidence. The expected calibration error is {error:.1%}; on the whole the "
            f"model is {'more' if over else 'less'} sure than it is right."
        ),
        traces=[
            {"type": "bar", "name": "right", "x": middles, "y": [number(one.accuracy) for one in bins]}
            | {"width": 0.09, "marker": {"color": "--c1"}, "text": shown, "hovertemplate": "%{text}<extra></extra>"}
            | {"textposition": "none"},
            {"type": "scatter", "mode": "lines", "name": "perfect", "x": [0, 1], "y": [0, 1], "line": line}
            | {"hoverinfo": "skip"},
            {"type": "scatter", "mode": "markers", "name": "mean confidence and share right"}
            | {"x": [number(one.confidence) for one in bins], "y": [number(one.accuracy) for one in bins]}
            | {"marker": {"symbol": "diamond", "size": 9, "color": "--c2", "line": {"color": "--card", "width": 1}}}
            | {"text": shown, "hovertemplate": "%{text}<extra></extra>"},
        ],
        layout={
            "xaxis": {"title": {"text": "confidence"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "share that was right"}, "range": [0, 1.02]},
            "hovermode": "closest",
        },
        numbers=Numbers(
            caption="Reliability diagram",
            header=("confidence", "images", "mean confidence", "right"),
            rows=[
                (f"{b.low:.1f} to {b.high:.1f}", f"{b.num_images:,}", f"{b.confidence:.1%}", f"{b.accuracy:.1%}")
                for b in bins
            ],
        ),
        note=f"Confidence: the probability of the predicted class. The error (ECE) is over {_NUM_BINS} equal bins. "
        + (
            "Probabilities are not calibrated."
            if temperature is None or temperature == 1
            else f"Probabilities are calibrated by temperature {temperature:.2f}, fitted on validation images."
        ),
    )

"""Calibration of a classifier by temperature scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

_LOWEST, _HIGHEST = 0.1, 10.0


@torch.inference_mode()
def fit_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature T, 0.1…10, for which ``softmax(scores / T)`` has the lowest negative log-likelihood (Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017, section 4.2).

    Labels are smoothed by 1 / (N + 2) (Platt, "Probabilistic Outputs for Support Vector Machines", 1999, section 2.2):
    otherwise images that are all classified correctly would have no lowest value, and any confidence would pass.

    Args:
        scores: ``(N, C)`` float32 before softmax, of N ≥ 1 images that the network was not trained on.
        labels: ``(N,)`` int64.
    """
    from scipy.optimize import minimize_scalar  # takes a while to load, which no trial shall wait for

    smoothing = 1 / (len(labels) + 2)

    def loss(log_temperature: float) -> float:
        scaled = scores / math.exp(log_temperature)
        return float(functional.cross_entropy(scaled, labels, label_smoothing=smoothing))

    found = minimize_scalar(loss, bounds=(math.log(_LOWEST), math.log(_HIGHEST)), method="bounded")
    return math.exp(float(found.x))

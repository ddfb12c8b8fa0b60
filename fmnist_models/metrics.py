"""What a classifier's predictions are worth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

_Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


@dataclass(frozen=True)
class ClassScores:
    """Precision, recall and F1 (0…1) of one class or of an average over classes; ``support`` = true images."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """How well predicted labels match the true ones.

    ``accuracy_low`` and ``accuracy_high`` bound the 95 % Wilson interval. ``confusion[i][j]`` counts the images of
    class ``i`` that were taken for ``j``. A class that was never predicted has precision 0. ``macro`` is the mean over
    the classes that have images, and its name says so where some have none, whose precision, recall and F1 are 0.
    """

    accuracy: float
    accuracy_low: float
    accuracy_high: float
    num_images: int
    classes: tuple[ClassScores, ...]
    macro: ClassScores
    weighted: ClassScores
    confusion: tuple[tuple[int, ...], ...]


def score(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, class_names: Sequence[str]) -> Scores:
    """Scores of ``predicted`` against ``labels``, both ``(N,)`` int64 in 0…len(class_names)-1, N ≥ 1."""
    indices = list(range(len(class_names)))
    per_class = precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0.0)
    correct = int((labels == predicted).sum())
    low, high = wilson_interval(correct, len(labels))
    return Scores(
        accuracy=correct / len(labels),
        accuracy_low=low,
        accuracy_high=high,
        num_images=len(labels),
        classes=tuple(
            ClassScores(name, float(p), float(r), float(f), int(s))
            for name, p, r, f, s in zip(class_names, *per_class, strict=True)
        ),
        macro=_macro_average(labels, predicted, num_classes=len(class_names)),
        weighted=_average("weighted", labels, predicted, indices),
        confusion=tuple(
            tuple(int(count) for count in row) for row in confusion_matrix(labels, predicted, labels=indices)
        ),
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a proportion (Wilson, "Probable Inference", JASA 22, 1927, p. 209).

    Raises:
        ValueError: unless ``0 <= successes <= trials`` and ``trials >= 1``.
    """
    if not (trials >= 1 and 0 <= successes <= trials):
        raise ValueError(f"0 <= successes <= trials and trials >= 1 must hold, but got {successes=}, {trials=}")
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # Exact at the ends, where rounding would leave the share itself outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def thresholded_micro(
    labels: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32], *, threshold: float = 0.5
) -> tuple[float, float]:
    """Precision and recall over all images and classes together, as Keras' ``Precision`` and ``Recall`` count them for
    one-hot labels: a class is predicted where its probability is above ``threshold``, so an image may have none.

    Args:
        labels: ``(N,)`` int64. probabilities: ``(N, C)`` float32. threshold: 0…1.
    """
    predicted = probabilities > threshold
    correct = int(predicted[np.arange(len(labels)), labels].sum())
    return correct / max(int(predicted.sum()), 1), correct / len(labels)


def _macro_average(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], *, num_classes: int) -> ClassScores:
    there = np.unique(labels).tolist()
    average = _average("macro", labels, predicted, there)
    if len(there) == num_classes:
        return average
    name = f"{average.name} of the {len(there)} classes with images"
    return dataclasses.replace(average, name=name)


def _average(
    kind: str, labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], indices: list[int]
) -> ClassScores:
    p, r, f, _ = precision_recall_fscore_support(labels, predicted, labels=indices, average=kind, zero_division=0.0)
    return ClassScores(f"{kind} average", float(p), float(r), float(f), len(labels))

"""What the paper's own numbers say about its Table I."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search.reproduce.published import PRINTED_PRECISION, PRINTED_RECALL, Number, PublishedModel, PublishedTable

_ROUNDING = 0.0051  # of a number that is printed with two digits


def precision_and_recall(confusion: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """By class, from counts whose rows are true and whose columns are predicted classes, ``(C,)`` each."""
    counts = np.asarray(confusion, dtype=np.float64)
    return counts.diagonal() / counts.sum(axis=0), counts.diagonal() / counts.sum(axis=1)


def corrected(model: PublishedModel) -> dict[str, tuple[Number, ...]]:
    """Precision and recall by class with the paper's columns exchanged; none where none are printed."""
    if PRINTED_PRECISION not in model.classes:
        return {}
    return {"precision": model.classes[PRINTED_RECALL], "recall": model.classes[PRINTED_PRECISION]}


def corrected_numbers(model: PublishedModel) -> dict[str, Number]:
    """The model's numbers, the accuracy with all the digits that a published confusion matrix has of it."""
    if model.confusion is None:
        return dict(model.numbers)
    counts, printed = np.asarray(model.confusion), model.numbers["accuracy"]
    exact = float(np.trace(counts) / counts.sum())
    return {**model.numbers, "accuracy": Number(exact, f"Figure 11; printed as {printed.value:.0%} in {printed.where}")}


def agreeing(printed: Sequence[Number], computed: npt.NDArray[np.float64]) -> int:
    """How many printed numbers are the computed ones, rounded."""
    return sum(abs(number.value - value) < _ROUNDING for number, value in zip(printed, computed, strict=True))


def implied_predictions(
    precision: Sequence[Number], recall: Sequence[Number], supports: npt.NDArray[np.int64]
) -> float:
    """How many images must have been predicted in all for these to be precision and recall: one each, if they are."""
    found = np.array([number.value for number in recall]) * supports
    return float((found / np.array([number.value for number in precision])).sum())


def find(table: PublishedTable, labels: npt.NDArray[np.int64]) -> list[str]:
    """The findings in words; ``labels`` ``(N,)`` int64 are those of the test images that the table was made with."""
    found: list[str] = []
    supports = np.bincount(labels, minlength=10)
    for model in table.models:
        if not corrected(model):
            continue
        printed_precision, printed_recall = model.classes[PRINTED_PRECISION], model.classes[PRINTED_RECALL]
        if model.confusion is not None:
            precision, recall = precision_and_recall(model.confusion)
            sums = np.asarray(model.confusion).sum(axis=1)
            same = "are exactly" if np.array_equal(sums, supports) else "are NOT"
            found.append(
                f"Table I's columns are swapped. The row sums of Figure 11 ({', '.join(map(str, sums))}) {same} the "
                f"true label counts of the first {len(labels):,} test images, so its rows are true classes. From it, "
                f"{agreeing(printed_recall, precision)} of 10 precisions are what Table I prints as Recall and "
                f"{agreeing(printed_precision, recall)} of 10 recalls what it prints as Precision; as printed, "
                f"{agreeing(printed_precision, precision)} and {agreeing(printed_recall, recall)} agree."
            )
            correct, total = int(np.trace(model.confusion)), int(sums.sum())
            found.append(
                f"Figure 11 has {correct} of {total:,} images right, {correct / total:.1%}; the text prints it as "
                f"{model.numbers['accuracy'].value:.0%}."
            )
        else:
            as_printed = implied_predictions(printed_precision, printed_recall, supports)
            exchanged = implied_predictions(printed_recall, printed_precision, supports)
            found.append(
                f"{model.title} has no confusion matrix in the paper, but the label counts show the same: with the "
                f"columns exchanged its numbers imply {exchanged:.0f} predictions for {len(labels):,} images, as "
                f"printed {as_printed:.0f}."
            )
    return found

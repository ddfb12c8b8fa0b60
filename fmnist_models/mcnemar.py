"""Whether two classifiers that saw the same test images differ in more than luck."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_MIN_FOR_CHI_SQUARE = 25  # discordant images; the usual bound, below which chi-square is too rough an approximation


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """McNemar's test. ``only_first`` and ``only_second``: images that one classifier got right and the other wrong.

    ``p_value``: how often two equally good classifiers would differ at least as much; two-sided. ``method``: ``exact
    binomial`` or ``chi-square with continuity correction``.
    """

    only_first: int
    only_second: int
    p_value: float
    method: str


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> McNemar:
    """Tests two classifiers by which of the same images each got right, ``(N,)`` bool, N ≥ 1.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12, 1947, p. 153; the continuity correction is that of Edwards, Psychometrika 13, 1948, p. 185.

    Raises:
        ValueError: the two are not of the same images.
    """
    if first.shape != second.shape or not len(first):
        raise ValueError(f"two results for the same images are needed, but got {first.shape} and {second.shape}")
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    if b + c < _MIN_FOR_CHI_SQUARE:
        p_value, method = _exact(b, c), "exact binomial"
    else:
        p_value, method = _chi_square(b, c), "chi-square with continuity correction"
    return McNemar(only_first=b, only_second=c, p_value=p_value, method=method)


def _exact(b: int, c: int) -> float:
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / (1 << (b + c)))


def _chi_square(b: int, c: int) -> float:
    statistic = max(0, abs(b - c) - 1) ** 2 / (b + c)
    return math.erfc(math.sqrt(statistic / 2))  # the upper tail of chi-square with one degree of freedom

"""Pruning between folds: a trial that the signed-rank test takes for worse than the best one goes no further."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from fmnist_models.epoch import DIRECTIONS

_P_THRESHOLD = 0.1
_MIN_FOLDS = 2
SMALLEST_UNIT = 1e-9  # of a loss; what differs by less is equal but for rounding
FEWEST_FOLDS = 4
"""With fewer no p is below the threshold: of four differences of one sign it is 0.0625, of three 0.125."""


def is_worse(scores: Sequence[float], best: Sequence[float], *, metric: str, unit: float = SMALLEST_UNIT) -> bool:
    """Whether a trial with these scores, of its first folds, ends: as Optuna's ``WilcoxonPruner`` has it, with its
    defaults (``p_threshold`` 0.1, ``n_startup_steps`` 2).

    ``best``: the scores of the best complete trial in the same folds and all further ones. ``unit``: what differences
    are counted in: one image (1 / validation images per fold) of accuracies, so that two differences of as many images
    are a tie whatever floating point makes of them. The one-sided Wilcoxon signed-rank test of the differences
    (Wilcoxon 1945, "Individual Comparisons by Ranking Methods"; Benavoli, Corani and Mangili 2016, "Should We Really
    Use Post-Hoc Tests Based on Mean-Ranks?"); never of a trial whose mean so far is at least as good as that of the
    best one over all its folds. It takes ``FEWEST_FOLDS``.
    """
    if len(scores) < _MIN_FOLDS:
        return False
    mean, best_mean = sum(scores) / len(scores), sum(best) / len(best)
    is_more_better = DIRECTIONS[metric] == "maximize"
    is_as_good = math.isclose(mean, best_mean, rel_tol=SMALLEST_UNIT)
    if is_as_good or (mean > best_mean if is_more_better else mean < best_mean):
        return False
    gains = [score - other if is_more_better else other - score for score, other in zip(scores, best, strict=False)]
    return p_value([round(gain / unit) for gain in gains]) < _P_THRESHOLD


def p_value(differences: Sequence[float]) -> float:
    """How probable it is that the positive differences rank as low as they do, if each sign was an even chance.

    Exact, with mean ranks for ties, and zeros counting half for either sign (SciPy's ``zsplit``). SciPy's own takes
    seconds for some 12 differences with ties, going through all signs, and approximates more than 13 of them.
    """
    sizes = [abs(difference) for difference in differences]
    ranks = [2 * sum(a < b for a in sizes) + sizes.count(b) + 1 for b in sizes]  # twice the rank, which is then whole
    counts = Counter({0: 1})  # of choices of signs by the sum of the ranks with a plus
    for rank, difference in zip(ranks, differences, strict=True):
        if difference != 0:
            counts.update({total + rank: count for total, count in list(counts.items())})
    observed = sum(rank for rank, difference in zip(ranks, differences, strict=True) if difference > 0)
    return sum(count for total, count in counts.items() if total <= observed) / counts.total()

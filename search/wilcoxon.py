"""Pruning between folds: a trial that the signed-rank test takes for worse than the best one goes no further."""

from __future__ import annotations

from collections.abc import Sequence

from fmnist_models.epoch import DIRECTIONS

_P_THRESHOLD = 0.1
_MIN_FOLDS = 2


def is_worse(scores: Sequence[float], best: Sequence[float], *, metric: str) -> bool:
    """Whether a trial with these scores, of its first folds, ends: as Optuna's ``WilcoxonPruner`` has it, with its
    defaults (``p_threshold`` 0.1, ``n_startup_steps`` 2).

    ``best``: the scores of the best complete trial in the same folds and all further ones. The one-sided Wilcoxon
    signed-rank test of their differences, with zeros split between both signs (Wilcoxon 1945, "Individual Comparisons
    by Ranking Methods"; Pratt 1959 on zeros); never of a trial whose mean so far is at least as good as that of the
    best one over all its folds. Four folds are the fewest that can have p below 0.1: 0.0625, if it is worse in all.
    """
    if len(scores) < _MIN_FOLDS:
        return False
    mean, best_mean = sum(scores) / len(scores), sum(best) / len(best)
    is_more_better = DIRECTIONS[metric] == "maximize"
    if mean >= best_mean if is_more_better else mean <= best_mean:
        return False
    import numpy as np  # with SciPy, a second that only such searches are to take
    from scipy.stats import wilcoxon

    differences = np.array(scores) - np.array(best[: len(scores)])
    alternative = "less" if is_more_better else "greater"
    return bool(wilcoxon(differences, alternative=alternative, zero_method="zsplit").pvalue < _P_THRESHOLD)

"""Functional analysis of variance by random forests: how much of the values' variance single parameters explain.

Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014. Each forest
also sees a shuffled copy of every parameter, as in Kursa and Rudnicki, "Feature Selection with the Boruta Package",
2010: what a shuffled copy explains, it explains by luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sklearn.tree._tree import Tree

_NUM_FORESTS = 40
_NUM_TREES = 8  # of each forest
_INTERVAL = (0.025, 0.975)
_LUCK = 0.95  # of the shuffled copies explain less

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A parameter's share of the variance that all single parameters explain, 0…1.

    ``low`` and ``high``: the 95 % interval over resampled trials. ``shuffled``: the 95th percentile of the share when
    the parameter's values are shuffled over the trials.
    """

    share: float
    low: float
    high: float
    shuffled: float

    @property
    def is_noise(self) -> bool:
        """Whether shuffled values explain as much."""
        return self.share <= self.shuffled


def explain(points: Floats, values: Floats, *, seed: int) -> list[Share]:
    """The share of each column of ``points`` ``(N, D)``, 0…1 and evenly drawn, in the variance of ``values`` ``(N,)``.

    Each of the forests has a bootstrap sample of the N trials of its own, and copies that were shuffled for it.

    Raises:
        ValueError: the values are not finite, or too much alike for a forest.
    """
    import sklearn

    generator, ties = np.random.default_rng(seed), np.random.RandomState(seed)
    standard = _standardise(values)
    with sklearn.config_context(skip_parameter_validation=True):  # which takes longer than to grow a small tree
        rounds = [_explain_once(points, standard, generator, ties) for _ in range(_NUM_FORESTS)]
    usable = [one for one in rounds if one is not None]
    if not usable:
        raise ValueError("the values are too much alike")
    shares = np.array(usable)
    real, shuffled = np.split(shares, 2, axis=1)
    low, high = np.quantile(real, _INTERVAL, axis=0)
    luck = np.quantile(shuffled, _LUCK, axis=0)
    columns = zip(real.mean(axis=0), low, high, luck, strict=True)
    return [Share(share=float(s), low=float(lo), high=float(hi), shuffled=float(lu)) for s, lo, hi, lu in columns]


def _standardise(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite")
    scaled = values / (np.abs(values).max() or 1.0)  # first, as squares of the largest floats are infinite
    centred = scaled - scaled.mean()
    return np.asarray(centred / (np.abs(centred).max() or 1.0))


def _explain_once(
    points: Floats, values: Floats, generator: np.random.Generator, ties: np.random.RandomState
) -> Floats | None:
    """The shares ``(2 D,)`` of the parameters and of their shuffled copies; ``None`` if no tree found any. ``ties``:
    what trees choose by between equally good splits."""
    copies = [generator.permutation(column) for column in points.T]
    both = np.column_stack([points, *copies]).astype(np.float32)  # as trees have it
    sample = generator.integers(len(values), size=len(values))
    trees = [_grow(both, values, generator.choice(sample, size=len(sample)), ties) for _ in range(_NUM_TREES)]
    explained = np.mean([_explained(tree) for tree in trees], axis=0)
    total = explained[: points.shape[1]].sum()
    return explained / total if total > 0 else None


def _grow(points: npt.NDArray[np.float32], values: Floats, rows: Any, ties: np.random.RandomState) -> Tree:
    """A tree of a random forest: on a bootstrap sample, with all columns to choose from at each split."""
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(random_state=ties)
    return tree.fit(points[rows], values[rows], check_input=False).tree_


def _explained(tree: Tree) -> Floats:
    """The share of the tree's variance over the unit cube that each single column explains."""
    low, high, values = _leaves(tree)
    sizes = high - low
    volumes = sizes.prod(axis=1)
    deviations = values - (values * volumes).sum()
    variance = (deviations**2 * volumes).sum()
    explained = np.zeros(tree.n_features)
    if variance > 0:
        for column in np.unique(tree.feature[tree.feature >= 0]):
            weighted = deviations * volumes / sizes[:, column]
            explained[column] = _variance_along(low[:, column], high[:, column], weighted) / variance
    return explained


def _leaves(tree: Tree) -> tuple[Floats, Floats, Floats]:
    """The leaves' lower and upper bounds ``(L, D)`` and values ``(L,)``."""
    left, right, column, threshold = tree.children_left, tree.children_right, tree.feature, tree.threshold
    low, high = np.zeros((tree.node_count, tree.n_features)), np.ones((tree.node_count, tree.n_features))
    level = np.array([0])
    while len(parents := level[left[level] >= 0]):
        for children in (left[parents], right[parents]):
            low[children], high[children] = low[parents], high[parents]
        high[left[parents], column[parents]] = threshold[parents]
        low[right[parents], column[parents]] = threshold[parents]
        level = np.concatenate((left[parents], right[parents]))
    is_leaf = left < 0
    return low[is_leaf], high[is_leaf], tree.value[is_leaf, 0, 0]


def _variance_along(low: Floats, high: Floats, heights: Floats) -> float:
    """The mean square over 0…1 of the sum of steps that are each ``heights`` high from ``low`` to ``high``."""
    edges = np.unique(low)  # 0 among them; every leaf ends at 1 or where another one begins
    changes = np.zeros(len(edges) + 1)
    np.add.at(changes, np.searchsorted(edges, low), heights)
    np.subtract.at(changes, np.searchsorted(edges, high), heights)
    curve = np.cumsum(changes)[:-1]
    return float((curve**2 * np.diff(edges, append=1.0)).sum())


def place_evenly(values: Sequence[Any], distribution: Any) -> Floats:
    """Where the values lie on the scale that they are drawn evenly from, 0…1; each option and each step has an equal
    part of it.

    Raises:
        ValueError: a value is none of the distribution's options.
    """
    inside = np.array([distribution.to_internal_repr(value) for value in values], dtype=np.float64)
    options = getattr(distribution, "choices", None)
    if options is not None:
        return (inside + 0.5) / len(options)
    low, high, margin = float(distribution.low), float(distribution.high), (distribution.step or 0.0) / 2
    if distribution.log:
        inside, low, high, margin = np.log(inside), float(np.log(low)), float(np.log(high)), 0.0
    low, high = low / 2 - margin / 2, high / 2 + margin / 2  # halves: the largest floats' difference is infinite
    return np.clip((inside / 2 - low) / (high - low), 0.0, 1.0)

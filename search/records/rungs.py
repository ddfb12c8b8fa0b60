"""Rungs: the epochs after which successive halving compares trials."""

from __future__ import annotations


def list_rungs(min_epochs: int, max_epochs: int, reduction_factor: int) -> list[int]:
    """``min_epochs * reduction_factor ** n`` in ascending order, each before ``max_epochs``, and all but the first in
    the first half of them: one at 27 of 30 epochs would save next to nothing, and leave a search few complete trials
    to choose from."""
    rungs = [min_epochs] if min_epochs < max_epochs else []
    while rungs and 2 * rungs[-1] * reduction_factor <= max_epochs:
        rungs.append(rungs[-1] * reduction_factor)
    return rungs

"""A finished trial of one space as the same trial of another, so that a sampler of that one learns from it."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from search.configuration.parameters import is_same, to_parameters
from search.configuration.space import Space
from search.records.fold_values import progress_of


def is_usable(trial: FrozenTrial) -> bool:
    """Whether the trial has ended, complete or pruned, with something to learn from."""
    measured = {
        TrialState.COMPLETE: trial.values or [],
        TrialState.PRUNED: list(trial.intermediate_values.values()),
    }.get(trial.state, [])
    return bool(measured) and all(isinstance(value, float) and math.isfinite(value) for value in measured)


def read_hyperparameters(trial: FrozenTrial, space: Space) -> dict[str, Any]:
    """All the hyperparameters of a trial that was drawn from ``space``.

    Raises:
        ValueError: it was drawn from another space.
    """
    return _ask(space, trial.params)[1]


def translate(
    trial: FrozenTrial, hyperparameters: Mapping[str, Any], space: Space, *, metric: str
) -> FrozenTrial | None:
    """The trial as one of ``space`` that has the same hyperparameters; ``None`` if there is no such. Of one that was
    pruned it keeps what it was worth, in ``metric``, after its epochs."""
    params: dict[str, Any] = {}
    for name in (name for name in hyperparameters if name in space.dimensions):
        with contextlib.suppress(ValueError):  # missing, which matters only if the trial asks for it
            params |= to_parameters(space.dimensions[name], name, hyperparameters[name])
    try:
        asked, again = _ask(space, params)
    except ValueError:
        return None
    if not all(is_same(value, again.get(name)) for name, value in hyperparameters.items()):
        return None
    return _finish(asked, trial.value if trial.state == TrialState.COMPLETE else progress_of(trial, metric))


def restore(params: Mapping[str, Any], measured: float | Mapping[int, float], space: Space) -> FrozenTrial:
    """The trial of ``space`` with these parameters: complete with a value, or pruned with the values of its epochs.

    Raises:
        ValueError: a parameter is missing, is one too many, or not exactly a value of its dimension.
    """
    asked, _ = _ask(space, params)
    unasked = [name for name in params if name not in asked.params]
    if unasked:
        raise ValueError(f"{unasked[0]} is not a parameter of its trial")
    return _finish(asked, measured)


def _finish(asked: FixedTrial, measured: float | Mapping[int, float] | None) -> FrozenTrial:
    if isinstance(measured, Mapping):
        state, value, epochs = TrialState.PRUNED, None, dict(measured)
    else:
        state, value, epochs = TrialState.COMPLETE, measured, {}
    return create_trial(
        state=state, params=asked.params, distributions=asked.distributions, value=value, intermediate_values=epochs
    )


def _ask(space: Space, params: Mapping[str, Any]) -> tuple[FixedTrial, dict[str, Any]]:
    """A trial with these parameters, asked for all that ``space`` asks of it, and the hyperparameters it then has.

    Raises:
        ValueError: a parameter is missing, or not exactly a value of its dimension.
    """
    trial = FixedTrial(dict(params))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # all that Optuna says of a value outside its range
        try:
            values = space.suggest(trial)
        except UserWarning as warning:
            raise ValueError(str(warning)) from warning
    for name, distribution in trial.distributions.items():
        exact = distribution.to_external_repr(distribution.to_internal_repr(params[name]))
        if type(exact) is not type(params[name]):
            raise ValueError(f"{name} is {params[name]!r}, not {exact!r}")
    return trial, values

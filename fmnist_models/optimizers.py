"""torch's optimisers for processes that compile nothing."""

from __future__ import annotations

import inspect
from typing import TypeVar

import torch
from torch.optim import SGD, AdamW, Optimizer

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")

_Optimizer = TypeVar("_Optimizer", bound=Optimizer)


def _eager(optimizer: type[_Optimizer]) -> type[_Optimizer]:
    """The same without what torch has around its methods for ``torch.compile``, which loads the compiler, two seconds
    of a trial's process, as soon as an optimiser is made."""
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in _METHODS}
    methods["step"] = torch.no_grad()(methods["step"])
    return type(f"Eager{optimizer.__name__}", (optimizer,), methods)


EagerSGD, EagerAdamW = _eager(SGD), _eager(AdamW)

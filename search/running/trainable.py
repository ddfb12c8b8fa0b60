"""What a trial runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import nn

from fmnist_models.epoch import Epoch


class Trainable(Protocol):
    """A training by epochs; ``fmnist_models.training.Training`` is the real one."""

    history: list[Epoch]

    @property
    def model(self) -> nn.Module: ...

    def epochs(self) -> Iterator[Epoch]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...

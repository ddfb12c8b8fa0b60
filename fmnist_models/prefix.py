"""The frozen prefix of a network: its first stages, as long as what they make of an image is a function of it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from fmnist_models.networks import Network


class Chain(nn.Module):
    """Some consecutive steps of ``model``, with all of its parameters."""

    def __init__(self, model: nn.Module, steps: Sequence[Callable[[Tensor], Tensor]]) -> None:
        super().__init__()
        self.model = model
        self._steps = tuple(steps)

    def forward(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = step(x)
        return x


def frozen_prefix(network: Network, model: nn.Module) -> tuple[str, ...]:
    """The first stages of ``model`` that neither train nor drop anything, in order; not the last stage."""
    if network.stages is None:
        return ()
    prefix = []
    for stage, modules in network.stages(model).items():
        parts = [part for module in modules for part in module.modules()]
        trains = any(parameter.requires_grad for module in modules for parameter in module.parameters())
        if trains or any(isinstance(part, nn.Dropout) and part.p > 0 for part in parts):
            break
        prefix.append(stage)
    return tuple(prefix)


def rest_after_prefix(network: Network, model: nn.Module) -> Chain:
    """What comes in ``model`` after its frozen prefix."""
    return split_at(network, model, frozen_prefix(network, model))[1]


def split_at(network: Network, model: nn.Module, prefix: Sequence[str]) -> tuple[Chain, Chain]:
    """``model`` as two chains, the stages of ``prefix`` and the others; one after the other they are ``model``."""
    assert network.steps is not None
    steps = network.steps(model)
    before = [step for stage, step in steps.items() if stage in prefix]
    after = [step for stage, step in steps.items() if stage not in prefix]
    return Chain(model, before), Chain(model, after)

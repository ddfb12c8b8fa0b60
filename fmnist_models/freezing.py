"""Freezing: which stages of a network train, and that a frozen stage really stays as it is."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fmnist_models.networks import Network


def trained_stages(network: Network, unfreeze: Iterable[str]) -> tuple[str, ...]:
    """The stages that train, in the network's order: those of ``unfreeze`` and the classifier.

    Raises:
        ValueError: the network has no such stage.
    """
    chosen = set(unfreeze)
    unknown = sorted(chosen - set(network.stage_names))
    if unknown:
        valid = ", ".join(network.stage_names) or f"none, {network.title} has no stages"
        raise ValueError(f"{network.title} has no stage {unknown[0]!r}; valid: {valid}")
    return tuple(stage for stage in network.stage_names if stage in chosen or stage == network.stage_names[-1])


def freeze_stages(network: Network, model: nn.Module, *, unfreeze: Iterable[str]) -> None:
    """Stops gradients to every stage of ``model`` that is not in ``unfreeze``; the classifier always trains.

    Raises:
        ValueError: the network has no such stage.
    """
    assert network.stages is not None
    trained = trained_stages(network, unfreeze)
    for stage, modules in network.stages(model).items():
        for module in modules:
            module.requires_grad_(stage in trained)


def train_mode(model: nn.Module) -> None:
    """``model.train()``, except that a frozen BatchNorm stays in eval mode: its statistics do not move."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()


def frozen_names(model: nn.Module) -> frozenset[str]:
    """What of ``model.state_dict()`` stays as it is, whatever is trained: weights without gradients, and the statistics
    of BatchNorms whose weights have none."""
    names: set[str] = set()
    for path, module in model.named_modules():
        weights = dict(module.named_parameters(path, recurse=False))
        if weights and not any(weight.requires_grad for weight in weights.values()):
            names |= {*weights, *dict(module.named_buffers(path, recurse=False))}
    return frozenset(names)

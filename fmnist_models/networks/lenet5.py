"""LeNet-5 (LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE 86, 1998,
Figure 2), as in Baker, "Exploring image classification with Fashion-MNIST", 2021: tanh, average pooling, and every map
of C3 connected to all of S2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fmnist_models.hyperparameters import Hyperparameters, Interval, StageSubset, hyperparameter
from fmnist_models.networks.dropout import Dropout

STAGES = ("c1", "c3", "c5", "f6", "fc")


@dataclass(frozen=True, kw_only=True)
class LeNet5Hyperparameters(Hyperparameters):
    """``dropout``: probability of dropping an activation of F6; the original has none. ``unfreeze``: the stages that
    train; ``fc`` always does."""

    dropout: float = hyperparameter(0.0, Interval(0.0, 0.95))
    unfreeze: tuple[str, ...] = hyperparameter(STAGES, StageSubset(STAGES))


class LeNet5(nn.Module):
    """Grey 28x28 images to ten class scores, 61,706 parameters.

    Shapes: ``(B, 1, 28, 28)`` float, padded to ``(B, 1, 32, 32)`` → c1 ``(B, 6, 28, 28)``, pooled ``(B, 6, 14, 14)``
    → c3 ``(B, 16, 10, 10)``, pooled ``(B, 16, 5, 5)`` → c5 ``(B, 120, 1, 1)`` → f6 ``(B, 84)`` → fc ``(B, 10)`` scores
    before softmax.
    """

    def __init__(self, *, dropout: float) -> None:
        super().__init__()
        self.c1 = nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2))
        self.c3 = nn.Sequential(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2))
        self.c5 = nn.Sequential(nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten())
        self.f6 = nn.Sequential(nn.Linear(120, 84), nn.Tanh(), Dropout(dropout))
        self.fc = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.f6(self.c5(self.c3(self.c1(x)))))
        return scores


def build_lenet5(hyperparameters: Hyperparameters) -> LeNet5:
    """A LeNet-5 with fresh weights from torch's global random state."""
    assert isinstance(hyperparameters, LeNet5Hyperparameters)
    return LeNet5(dropout=hyperparameters.dropout)


def lenet5_stages(model: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """Stage → its modules, which together hold every parameter."""
    return {stage: (model.get_submodule(stage),) for stage in STAGES}


def lenet5_steps(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Stage → what it does."""
    return {stage: model.get_submodule(stage) for stage in STAGES}

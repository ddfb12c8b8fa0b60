"""AlexNet (Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 3.5
and Figure 2), with its eleven layers in one column, as in Baker, "Exploring image classification with Fashion-MNIST",
2021: no response normalisation, convolutions of 96, 256, 384, 384 and 256 filters, two layers of 4,096."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from fmnist_models.hyperparameters import Hyperparameters, Interval, StageSubset, hyperparameter
from fmnist_models.networks.dropout import Dropout
from fmnist_models.networks.enlarging import INPUT_SIZES, SMALL, enlarge

STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc")


@dataclass(frozen=True, kw_only=True)
class AlexNet11Hyperparameters(Hyperparameters):
    """What can be chosen about an AlexNet-11.

    ``dropout``: probability of dropping an activation of ``fc6`` or ``fc7``; 0.5 in the original. ``input_size``:
    pixels, 227 makes the images larger, 28 uses filters fit for them. ``unfreeze``: the stages that train; ``fc``
    always does.
    """

    dropout: float = hyperparameter(0.5, Interval(0.0, 0.95))
    input_size: int = hyperparameter(SMALL, INPUT_SIZES)
    unfreeze: tuple[str, ...] = hyperparameter(STAGES, StageSubset(STAGES))


class AlexNet11(nn.Module):
    """Grey images to ten class scores, 58,299,082 parameters with ``input_size`` 227, 29,583,562 with 28.

    Shapes with 227: ``(B, 1, 28, 28)`` float, made larger to ``(B, 1, 227, 227)`` → conv1 (11x11, stride 4)
    ``(B, 96, 55, 55)``, pooled (all 3x3, stride 2) ``(B, 96, 27, 27)`` → conv2 (5x5) ``(B, 256, 27, 27)``, pooled
    ``(B, 256, 13, 13)`` → conv3, conv4 (3x3) ``(B, 384, 13, 13)`` → conv5 (3x3) ``(B, 256, 13, 13)``, pooled
    ``(B, 256, 6, 6)`` → fc6, fc7 ``(B, 4096)`` → fc ``(B, 10)`` scores before softmax.

    With 28: conv1 (3x3) ``(B, 96, 28, 28)``, pooled (2x2) ``(B, 96, 14, 14)`` → conv2 (3x3) ``(B, 256, 14, 14)``,
    pooled (2x2) ``(B, 256, 7, 7)`` → conv3, conv4 ``(B, 384, 7, 7)`` → conv5 ``(B, 256, 7, 7)``, pooled (3x3, stride 2)
    ``(B, 256, 3, 3)`` → the same three layers.
    """

    def __init__(self, *, dropout: float, input_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        is_small = input_size == SMALL
        first = nn.Conv2d(1, 96, 3, padding=1) if is_small else nn.Conv2d(1, 96, 11, stride=4)
        second = nn.Conv2d(96, 256, 3, padding=1) if is_small else nn.Conv2d(96, 256, 5, padding=2)
        early_pool = (2, 2) if is_small else (3, 2)
        side = 3 if is_small else 6
        self.conv1 = nn.Sequential(first, nn.MaxPool2d(*early_pool), nn.ReLU())
        self.conv2 = nn.Sequential(second, nn.MaxPool2d(*early_pool), nn.ReLU())
        self.conv3 = nn.Sequential(nn.Conv2d(256, 384, 3, padding=1), nn.ReLU())
        self.conv4 = nn.Sequential(nn.Conv2d(384, 384, 3, padding=1), nn.ReLU())
        self.conv5 = nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.MaxPool2d(3, 2), nn.ReLU(), nn.Flatten())
        self.fc6 = nn.Sequential(nn.Linear(256 * side * side, 4096), nn.ReLU(), Dropout(dropout))
        self.fc7 = nn.Sequential(nn.Linear(4096, 4096), nn.ReLU(), Dropout(dropout))
        self.fc = nn.Linear(4096, 10)
        for module in self.modules():
            # Without normalisation torch's own smaller weights would all but silence the last of eight layers.
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv2(self.conv1(enlarge(x, size=self.input_size)))
        features = self.conv5(self.conv4(self.conv3(features)))
        scores: Tensor = self.fc(self.fc7(self.fc6(features)))
        return scores


def build_alexnet11(hyperparameters: Hyperparameters) -> AlexNet11:
    """An AlexNet-11 with fresh weights from torch's global random state."""
    assert isinstance(hyperparameters, AlexNet11Hyperparameters)
    return AlexNet11(dropout=hyperparameters.dropout, input_size=hyperparameters.input_size)


def alexnet11_stages(model: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """Stage → its modules, which together hold every parameter."""
    return {stage: (model.get_submodule(stage),) for stage in STAGES}


def alexnet11_steps(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Stage → what it does."""
    assert isinstance(model, AlexNet11)

    def first(x: Tensor) -> Tensor:
        features: Tensor = model.conv1(enlarge(x, size=model.input_size))
        return features

    return {stage: first if stage == STAGES[0] else model.get_submodule(stage) for stage in STAGES}

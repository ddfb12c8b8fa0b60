"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", 2016) for grey 28x28 images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

from fmnist_models.hyperparameters import (
    Condition,
    Hyperparameters,
    Interval,
    Options,
    StageSubset,
    hyperparameter,
)

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")
_PRETRAINED = Condition("weights", "none", equals=False)


@dataclass(frozen=True, kw_only=True)
class ResNet18Hyperparameters(Hyperparameters):
    """What can be chosen about a ResNet-18.

    ``dropout``: probability, before ``fc``. ``unfreeze``: the stages that train; ``fc`` always does. ``weights``:
    ``imagenet``, ``none`` or the path of a torchvision-layout state dict. ``stem_init``: a fresh first layer as in
    the paper (``random``), or the pretrained RGB filters summed over their colours (``sum``).
    """

    dropout: float = hyperparameter(0.0, Interval(0.0, 0.95))
    weights: str = hyperparameter(
        "none", Options(("imagenet", "none"), open_ended=True, note=", or the path of a state dict")
    )
    stem_init: str = hyperparameter("random", Options(("random", "sum")), when=_PRETRAINED)
    unfreeze: tuple[str, ...] = hyperparameter(STAGES, StageSubset(STAGES))


class ResNet18(ResNet):  # type: ignore[misc]
    """torchvision's ResNet-18 with one input channel and ten outputs, 11,175,370 parameters.

    Shapes: ``(B, 1, 28, 28)`` float → stem ``(B, 64, 7, 7)`` → layer1 ``(B, 64, 7, 7)`` → layer2 ``(B, 128, 4, 4)``
    → layer3 ``(B, 256, 2, 2)`` → layer4 ``(B, 512, 1, 1)`` → ``(B, 10)`` scores before softmax.
    """

    def __init__(self, *, dropout: float) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=10)
        self.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        # Between pooling and `fc`; as part of the pooling so that the state dict keeps torchvision's names.
        self.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout))


def build_resnet18(hyperparameters: Hyperparameters) -> ResNet18:
    """A ResNet-18 with fresh weights from torch's global random state."""
    assert isinstance(hyperparameters, ResNet18Hyperparameters)
    return ResNet18(dropout=hyperparameters.dropout)


def resnet18_stages(model: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """Stage → its modules, which together hold every parameter."""
    assert isinstance(model, ResNet)
    return {
        "stem": (model.conv1, model.bn1),
        "layer1": (model.layer1,),
        "layer2": (model.layer2,),
        "layer3": (model.layer3,),
        "layer4": (model.layer4,),
        "fc": (model.fc,),
    }

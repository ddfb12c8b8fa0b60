"""ResNet-34 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1) for grey images; one of the
networks of Baker, "Exploring image classification with Fashion-MNIST", 2021, there on images of 227 pixels."""

from __future__ import annotations

from dataclasses import dataclass

from fmnist_models.hyperparameters import Hyperparameters, Interval, StageSubset, hyperparameter
from fmnist_models.networks.enlarging import INPUT_SIZES, SMALL
from fmnist_models.networks.residual import ON_SMALL_IMAGES, STAGES, STEMS, GreyResNet


@dataclass(frozen=True, kw_only=True)
class ResNet34Hyperparameters(Hyperparameters):
    """What can be chosen about a ResNet-34.

    ``dropout``: probability, before ``fc``. ``input_size``: pixels, 227 makes the images larger. ``stem``: the
    ``original`` first layer, or on 28 pixels a ``small`` one, which keeps them all. ``unfreeze``: the stages that
    train; ``fc`` always does.
    """

    dropout: float = hyperparameter(0.0, Interval(0.0, 0.95))
    input_size: int = hyperparameter(SMALL, INPUT_SIZES)
    stem: str = hyperparameter("original", STEMS, when=ON_SMALL_IMAGES)
    unfreeze: tuple[str, ...] = hyperparameter(STAGES, StageSubset(STAGES))


class ResNet34(GreyResNet):
    """Ten scores of grey images, 21,283,530 parameters (21,280,970 with a small stem); shapes: ``GreyResNet``."""

    def __init__(self, *, dropout: float, input_size: int, stem: str) -> None:
        super().__init__((3, 4, 6, 3), dropout=dropout, input_size=input_size, stem=stem)


def build_resnet34(hyperparameters: Hyperparameters) -> ResNet34:
    """A ResNet-34 with fresh weights from torch's global random state."""
    assert isinstance(hyperparameters, ResNet34Hyperparameters)
    return ResNet34(dropout=hyperparameters.dropout, input_size=hyperparameters.input_size, stem=hyperparameters.stem)

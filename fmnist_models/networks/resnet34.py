"""ResNet-34 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1) for grey images; one of the
networks of Baker, "Exploring image classification with Fashion-MNIST", 2021, there on images of 227 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmnist_models.hyperparameters import Hyperparameters, Interval, StageSubset, hyperparameter
from fmnist_models.networks.enlarging import INPUT_SIZES, SMALL
from fmnist_models.networks.residual import ON_SMALL_IMAGES, STAGES, STEMS

if TYPE_CHECKING:
    from fmnist_models.networks.grey_resnet import GreyResNet


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


def build_resnet34(hyperparameters: Hyperparameters) -> GreyResNet:
    """A ResNet-34 with fresh weights from torch's global random state: 21,283,530 parameters, 21,280,970 with a small
    stem. For 28 pixels behind the original stem only 10,142,410 of them are kept (see ``GreyResNet``)."""
    from fmnist_models.networks.grey_resnet import GreyResNet

    own = hyperparameters
    assert isinstance(own, ResNet34Hyperparameters)
    return GreyResNet((3, 4, 6, 3), dropout=own.dropout, input_size=own.input_size, stem=own.stem)

"""ResNet-18 (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Table 1) for grey images; adapted as
in Leopardi, "Fashion-MNIST Image Classification", section III."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmnist_models.hyperparameters import (
    Condition,
    Hyperparameters,
    Interval,
    Options,
    StageSubset,
    hyperparameter,
)
from fmnist_models.networks.enlarging import INPUT_SIZES, SMALL
from fmnist_models.networks.residual import ON_SMALL_IMAGES, STAGES, STEMS

if TYPE_CHECKING:
    from fmnist_models.networks.grey_resnet import GreyResNet

_PRETRAINED = Condition("weights", "none", equals=False, also=Condition("stem", "original"))


@dataclass(frozen=True, kw_only=True)
class ResNet18Hyperparameters(Hyperparameters):
    """What can be chosen about a ResNet-18.

    ``dropout``: probability, before ``fc``. ``input_size``: pixels, 227 makes the images larger. ``stem``: the
    ``original`` first layer, or on 28 pixels a ``small`` one, which keeps them all. ``unfreeze``: the stages that
    train; ``fc`` always does. ``weights``: ``imagenet``, ``none`` or the path of a torchvision-layout state dict.
    ``stem_init``: a fresh first layer as in the paper (``random``), or the pretrained RGB filters summed over their
    colours (``sum``); a small stem is always fresh.
    """

    dropout: float = hyperparameter(0.0, Interval(0.0, 0.95))
    input_size: int = hyperparameter(SMALL, INPUT_SIZES)
    stem: str = hyperparameter("original", STEMS, when=ON_SMALL_IMAGES)
    weights: str = hyperparameter(
        "none", Options(("imagenet", "none"), open_ended=True, note=", or the path of a state dict")
    )
    stem_init: str = hyperparameter(
        "random",
        Options(("random", "sum")),
        when=_PRETRAINED,
    )
    unfreeze: tuple[str, ...] = hyperparameter(STAGES, StageSubset(STAGES))


def build_resnet18(hyperparameters: Hyperparameters) -> GreyResNet:
    """A ResNet-18 with fresh weights from torch's global random state: 11,175,370 parameters, 11,172,810 with a small
    stem. For 28 pixels behind the original stem only 4,228,554 of them are kept (see ``GreyResNet``)."""
    from fmnist_models.networks.grey_resnet import GreyResNet

    own = hyperparameters
    assert isinstance(own, ResNet18Hyperparameters)
    return GreyResNet((2, 2, 2, 2), dropout=own.dropout, input_size=own.input_size, stem=own.stem)

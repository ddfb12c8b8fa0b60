"""What ResNet-18 and ResNet-34 have in common (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
Table 1), for grey images of 28 or 227 pixels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fmnist_models.hyperparameters import Condition, Options
from fmnist_models.networks.enlarging import SMALL, enlarge

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4", "fc")
STEMS = Options(("original", "small"))
ON_SMALL_IMAGES = Condition("input_size", SMALL)


def residual_stages(model: nn.Module) -> dict[str, tuple[nn.Module, ...]]:
    """Stage → its modules, which together hold every parameter."""
    from fmnist_models.networks.grey_resnet import GreyResNet

    assert isinstance(model, GreyResNet)
    return {
        "stem": (model.conv1, model.bn1),
        "layer1": (model.layer1,),
        "layer2": (model.layer2,),
        "layer3": (model.layer3,),
        "layer4": (model.layer4,),
        "fc": (model.fc,),
    }


def residual_steps(model: nn.Module) -> dict[str, Callable[[Tensor], Tensor]]:
    """Stage → what it does."""
    from fmnist_models.networks.grey_resnet import GreyResNet

    assert isinstance(model, GreyResNet)

    def stem(x: Tensor) -> Tensor:
        features: Tensor = model.maxpool(model.relu(model.bn1(model.conv1(enlarge(x, size=model.input_size)))))
        return features

    def fc(x: Tensor) -> Tensor:
        scores: Tensor = model.fc(model.avgpool(x).flatten(1))
        return scores

    layers = {"layer1": model.layer1, "layer2": model.layer2, "layer3": model.layer3, "layer4": model.layer4}
    return {"stem": stem, **layers, "fc": fc}

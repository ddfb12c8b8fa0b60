"""Every network by name. To add one: a file beside this one, and one line in ``NETWORKS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from fmnist_models.hyperparameters import Hyperparameters
from fmnist_models.networks import alexnet11, lenet5, lstm, residual
from fmnist_models.networks.customnet import CustomNetHyperparameters, build_customnet
from fmnist_models.networks.resnet18 import ResNet18Hyperparameters, build_resnet18
from fmnist_models.networks.resnet34 import ResNet34Hyperparameters, build_resnet34


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network that can be built, searched and, where it has ``stages``, frozen in parts.

    ``build`` makes a module from checked hyperparameters; ``stages`` maps a module to its named parts, in the order
    of the forward pass, the last one being ``fc``, the classifier that always trains. ``steps`` maps it to what each
    stage does, one after the other: together the forward pass.
    """

    name: str
    title: str
    build: Callable[[Hyperparameters], nn.Module]
    hyperparameters: type[Hyperparameters]
    stage_names: tuple[str, ...] = ()
    stages: Callable[[nn.Module], dict[str, tuple[nn.Module, ...]]] | None = None
    steps: Callable[[nn.Module], dict[str, Callable[[Tensor], Tensor]]] | None = None

    def split(self, values: Mapping[str, Any]) -> tuple[Hyperparameters, dict[str, Any]]:
        """This network's hyperparameters out of one flat set, and the rest of the set.

        Raises:
            ValueError: a value outside its domain.
        """
        own = self.hyperparameters.__dataclass_fields__
        mine = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in own}
        return self.hyperparameters(**mine), {name: v for name, v in values.items() if name not in own}


NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(name="customnet", title="CustomNet", build=build_customnet, hyperparameters=CustomNetHyperparameters),
        Network(
            name="resnet18",
            title="ResNet-18",
            build=build_resnet18,
            hyperparameters=ResNet18Hyperparameters,
            stage_names=residual.STAGES,
            stages=residual.residual_stages,
            steps=residual.residual_steps,
        ),
        Network(
            name="resnet34",
            title="ResNet-34",
            build=build_resnet34,
            hyperparameters=ResNet34Hyperparameters,
            stage_names=residual.STAGES,
            stages=residual.residual_stages,
            steps=residual.residual_steps,
        ),
        Network(
            name="lenet5",
            title="LeNet-5",
            build=lenet5.build_lenet5,
            hyperparameters=lenet5.LeNet5Hyperparameters,
            stage_names=lenet5.STAGES,
            stages=lenet5.lenet5_stages,
            steps=lenet5.lenet5_steps,
        ),
        Network(
            name="alexnet11",
            title="AlexNet-11",
            build=alexnet11.build_alexnet11,
            hyperparameters=alexnet11.AlexNet11Hyperparameters,
            stage_names=alexnet11.STAGES,
            stages=alexnet11.alexnet11_stages,
            steps=alexnet11.alexnet11_steps,
        ),
        Network(
            name="lstm",
            title="LSTM",
            build=lstm.build_lstm,
            hyperparameters=lstm.LstmHyperparameters,
            stage_names=lstm.STAGES,
            stages=lstm.lstm_stages,
            steps=lstm.lstm_steps,
        ),
    )
}


def get_network(name: str) -> Network:
    """The network of that name.

    Raises:
        ValueError: there is none; names those there are.
    """
    if name not in NETWORKS:
        raise ValueError(f"there is no network {name!r}; valid: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def build_network(name: str, values: Mapping[str, Any]) -> nn.Module:
    """The module of network ``name`` with its share of the hyperparameters ``values``, all of it trainable.

    Fresh weights come from torch's global random state.

    Raises:
        ValueError: unknown network, or a value outside its domain.
    """
    network = get_network(name)
    return network.build(network.split(values)[0])

import copy
from dataclasses import replace
from itertools import combinations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fmnist_models.data import TrainingData
from fmnist_models.freezing import freeze_stages, train_mode, trained_stages
from fmnist_models.networks import NETWORKS, build_network, get_network
from fmnist_models.networks.residual import STAGES
from fmnist_models.recipe import build_optimizer
from fmnist_models.training import Training, TrainingPlan

RESNET = get_network("resnet18")
SUBSETS = [subset for size in range(6) for subset in combinations(STAGES[:-1], size)]


@pytest.fixture(scope="module")
def few_images(synthetic_data: TrainingData) -> TrainingData:
    """64 to train on, 10 to validate."""
    return TrainingData(
        synthetic_data.train.first(64), synthetic_data.validation.first(10), synthetic_data.normalisation
    )


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_network("resnet18", {})


def stage_of(tensor: str) -> str:
    """The stage of a tensor by its name in torchvision's layout."""
    module = tensor.split(".")[0]
    return "stem" if module in ("conv1", "bn1") else module


def plan(unfreeze: tuple[str, ...]) -> TrainingPlan:
    hyperparameters = {"unfreeze": unfreeze, "lr": 0.01, "batch_size": 32}
    return TrainingPlan(network="resnet18", hyperparameters=hyperparameters, num_epochs=1, seed=0, precision="fp32")


@pytest.mark.parametrize(
    "unfreeze", [(), ("layer4",), ("stem", "layer3"), STAGES], ids=lambda stages: "+".join(stages) or "none"
)
def test_exactly_the_unfrozen_stages_and_the_classifier_change(
    unfreeze: tuple[str, ...], few_images: TrainingData
) -> None:
    training = Training(plan(unfreeze), few_images, device=torch.device("cpu"))
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    list(training.epochs())
    after = training.model.state_dict()
    # Weights and, for BatchNorm, running_mean, running_var and num_batches_tracked.
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed == {name for name in after if stage_of(name) in {*unfreeze, "fc"}}


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.stages])
@pytest.mark.parametrize("position", [None, 0, -2], ids=["none", "first", "last but fc"])
def test_in_every_network_only_the_unfrozen_stage_and_the_classifier_change(
    name: str, position: int | None, few_images: TrainingData
) -> None:
    network = NETWORKS[name]
    unfreeze = () if position is None else (network.stage_names[position],)
    hyperparameters = {"unfreeze": unfreeze, "lr": 0.001, "batch_size": 32, "dropout": 0.0}
    training_plan = TrainingPlan(network=name, hyperparameters=hyperparameters, num_epochs=1, seed=0, precision="fp32")
    images = TrainingData(few_images.train.first(32), few_images.validation, few_images.normalisation)
    training = Training(training_plan, images, device=torch.device("cpu"))
    named = {**dict(training.model.named_parameters()), **dict(training.model.named_buffers())}
    before = {key: tensor.detach().clone() for key, tensor in named.items()}
    list(training.epochs())
    assert network.stages is not None
    trained = {
        id(tensor)
        for stage, modules in network.stages(training.model).items()
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
        if stage in (*unfreeze, "fc")
    }
    assert {key for key, tensor in named.items() if not torch.equal(tensor, before[key])} == {
        key for key, tensor in named.items() if id(tensor) in trained
    }


def test_requires_grad_is_that_of_the_subset_for_every_subset(model: nn.Module) -> None:
    assert len(SUBSETS) == 32
    for unfreeze in SUBSETS:
        freeze_stages(RESNET, model, unfreeze=unfreeze)
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == (stage_of(name) in {*unfreeze, "fc"}), (unfreeze, name)


def test_train_mode_keeps_frozen_batch_norms_at_rest_for_every_subset(model: nn.Module) -> None:
    for unfreeze in SUBSETS:
        freeze_stages(RESNET, model, unfreeze=unfreeze)
        train_mode(model.eval())
        for name, module in model.named_modules():
            rests = isinstance(module, nn.BatchNorm2d) and stage_of(name) not in unfreeze
            assert module.training != rests, (unfreeze, name)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("unfreeze", [(), ("layer1", "layer4")])
def test_the_optimizer_holds_only_what_trains(optimizer: str, unfreeze: tuple[str, ...]) -> None:
    hyperparameters = {"unfreeze": unfreeze, "optimizer": optimizer}
    training_plan = TrainingPlan(network="resnet18", hyperparameters=hyperparameters, num_epochs=1, seed=0)
    model = training_plan.build(None)
    groups = build_optimizer(training_plan.recipe, model.parameters()).param_groups
    held = {id(parameter) for group in groups for parameter in group["params"]}
    assert held == {id(p) for name, p in model.named_parameters() if stage_of(name) in {*unfreeze, "fc"}}


def test_trained_stages_are_in_the_networks_order_with_the_classifier() -> None:
    assert trained_stages(RESNET, ["layer4", "stem"]) == ("stem", "layer4", "fc")
    assert trained_stages(RESNET, []) == trained_stages(RESNET, ["fc"]) == ("fc",)


def test_an_unknown_stage_is_refused_with_those_there_are(model: nn.Module) -> None:
    expected = "ResNet-18 has no stage 'layer5'; valid: stem, layer1, layer2, layer3, layer4, fc"
    with pytest.raises(ValueError, match=expected):
        freeze_stages(RESNET, model, unfreeze=["layer5"])
    with pytest.raises(ValueError, match="CustomNet has no stage 'layer1'; valid: none, CustomNet has no stages"):
        trained_stages(get_network("customnet"), ["layer1"])


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_is_frozen_is_in_no_checkpoint_and_there_again_afterwards(ema: float, few_images: TrainingData) -> None:
    long = replace(plan(("layer4",)), hyperparameters={"unfreeze": ("layer4",), "ema": ema}, num_epochs=2)
    device, weights = torch.device("cpu"), pretrained(seed=1)
    begun, whole = (Training(long, few_images, device=device, pretrained=weights) for _ in range(2))
    next(begun.epochs())
    state = begun.state_dict()
    for saved in (state["model"], *([state["average"]["network"]] if ema else [])):
        assert {stage_of(name) for name in saved} == {"layer4", "fc"}
    continued = Training(long, few_images, device=device, pretrained=weights)
    continued.load_state_dict(state)
    for training in (continued, whole):
        list(training.epochs())
    expected = whole.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in continued.model.state_dict().items())
    assert [(epoch.train_loss, epoch.val_loss) for epoch in continued.history] == [
        (epoch.train_loss, epoch.val_loss) for epoch in whole.history
    ]


def test_a_checkpoint_is_not_continued_on_other_frozen_weights(few_images: TrainingData) -> None:
    device = torch.device("cpu")
    begun, other = (
        Training(plan(("layer4",)), few_images, device=device, pretrained=pretrained(seed=seed)) for seed in (1, 2)
    )
    before = {name: tensor.clone() for name, tensor in other.model.state_dict().items()}
    with pytest.raises(ValueError, match="its frozen stages had other weights"):
        other.load_state_dict(begun.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in other.model.state_dict().items())


def test_a_checkpoint_is_not_continued_whose_optimiser_had_weights_of_other_shapes(few_images: TrainingData) -> None:
    """As those of a time when layer4's filters had weights that no image meets."""
    training = Training(plan(("layer4",)), few_images, device=torch.device("cpu"))
    next(training.epochs())
    state = copy.deepcopy(training.state_dict())
    about = state["optimizer"]["state"][0]
    about["exp_avg"] = torch.zeros(512, 256, 3, 3)
    with pytest.raises(ValueError, match="its optimiser had weights of other shapes"):
        Training(plan(("layer4",)), few_images, device=torch.device("cpu")).load_state_dict(state)


def pretrained(*, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state: dict[str, Tensor] = torchvision.models.resnet18(weights=None).state_dict()
    return state

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional

from fmnist_models.networks import NETWORKS, build_network, get_network
from fmnist_models.synthetic import draw_garments
from fmnist_models.training import TrainingPlan

EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    """32 garments ``(32, 1, 28, 28)`` float32 about 0, and their labels."""
    images, labels = draw_garments(32, seed=0)
    return (torch.from_numpy(images).unsqueeze(1).float() - 73) / 90, torch.from_numpy(labels)


def plan(name: str, *, seed: int = 0, **hyperparameters: Any) -> TrainingPlan:
    return TrainingPlan(network=name, hyperparameters=hyperparameters, num_epochs=1, seed=seed)


# What every network promises


@EVERY_NETWORK
def test_scores_are_ten_finite_numbers_an_image(name: str, batch: tuple[Tensor, Tensor]) -> None:
    model = build_network(name, {})
    assert model(batch[0][:2]).shape == (2, 10)
    assert model.eval()(batch[0][:1]).shape == (1, 10)
    scores = model(batch[0])
    assert scores.shape == (32, 10)
    assert scores.dtype == torch.float32
    assert torch.isfinite(functional.cross_entropy(scores, batch[1]))


@EVERY_NETWORK
def test_gradients_reach_all_that_trains(name: str, batch: tuple[Tensor, Tensor]) -> None:
    model = build_network(name, {})
    functional.cross_entropy(model(batch[0]), batch[1]).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad, parameter_name
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.any(), parameter_name


@EVERY_NETWORK
def test_one_batch_is_learned_by_heart(name: str, batch: tuple[Tensor, Tensor]) -> None:
    model = plan(name, dropout=0.0).build(None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def losses() -> Iterator[float]:
        for _ in range(60):
            loss = functional.cross_entropy(model(batch[0]), batch[1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    first = next(losses())
    assert first > 1
    assert any(loss < 0.1 for loss in losses())


@EVERY_NETWORK
def test_same_seed_gives_same_weights_and_another_others(name: str) -> None:
    first, again, other = (plan(name, seed=seed).build(None).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if first[key].dim() > 1)


@EVERY_NETWORK
def test_building_draws_from_no_other_randomness_than_the_seed(name: str) -> None:
    torch.manual_seed(1)
    first = plan(name).build(None).state_dict()
    torch.manual_seed(2)
    again = plan(name).build(None).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


@EVERY_NETWORK
@pytest.mark.parametrize("probability", [0.0, 0.3, 0.95])
def test_dropout_drops_as_many_activations_as_asked(
    name: str, probability: float, batch: tuple[Tensor, Tensor]
) -> None:
    model = build_network(name, {"dropout": probability})
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(dropouts) == 1
    sizes: list[int] = []
    handle = dropouts[0].register_forward_hook(lambda _module, _inputs, output: sizes.append(output.numel()))
    model(batch[0])
    handle.remove()
    assert sizes == [32 * model.fc.in_features]  # in the way of the scores, before the classifier
    torch.manual_seed(0)
    assert (dropouts[0](torch.ones(100_000)) == 0).float().mean() == pytest.approx(probability, abs=0.01)


@EVERY_NETWORK
def test_dropout_rests_when_predicting(name: str, batch: tuple[Tensor, Tensor]) -> None:
    model = build_network(name, {"dropout": 0.5})
    assert not torch.equal(model(batch[0]), model(batch[0]))
    model.eval()
    assert torch.equal(model(batch[0]), model(batch[0]))


@EVERY_NETWORK
@pytest.mark.parametrize(
    ("hyperparameter", "value"),
    [
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", "0.5"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("batch_size", 1),
        ("batch_size", 64.0),
        ("batch_size", True),
        ("flip", 1),
        ("shift", 15),
        ("erase", 1.01),
        ("optimizer", "adam"),
        ("schedule", ""),
    ],
)
def test_a_value_outside_its_domain_is_refused_by_name(name: str, hyperparameter: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{hyperparameter} must be .*{value!r}"):
        plan(name, **{hyperparameter: value})


@EVERY_NETWORK
def test_an_unknown_hyperparameter_is_refused_with_all_that_are_valid(name: str) -> None:
    with pytest.raises(ValueError, match="no hyperparameter 'droput'") as caught:
        plan(name, droput=0.5)
    for valid in ("lr", "schedule", *get_network(name).hyperparameters.__dataclass_fields__):
        assert valid in str(caught.value)


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="no network 'vgg'; valid: customnet, resnet18"):
        plan("vgg")


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.stages])
def test_stages_hold_every_parameter_exactly_once(name: str) -> None:
    network, model = get_network(name), build_network(name, {})
    assert network.stages is not None
    stages = network.stages(model)
    assert tuple(stages) == network.stage_names
    held = [id(p) for modules in stages.values() for module in modules for p in module.parameters()]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    scores = next(reversed(stages.values()))[-1]
    assert isinstance(scores, nn.Linear)
    assert scores.out_features == 10


# What each network is


@pytest.mark.parametrize(("name", "count"), [("customnet", 155_850), ("resnet18", 11_175_370)])
def test_number_of_parameters(name: str, count: int) -> None:
    assert sum(parameter.numel() for parameter in build_network(name, {}).parameters()) == count


def test_customnet_drops_half_by_default_and_resnet18_nothing() -> None:
    drops = {name: [m.p for m in build_network(name, {}).modules() if isinstance(m, nn.Dropout)] for name in NETWORKS}
    assert drops == {"customnet": [0.5], "resnet18": [0.0]}


def test_resnet18_is_torchvisions_but_for_its_first_layer() -> None:
    ours = build_network("resnet18", {}).state_dict()
    theirs = torchvision.models.resnet18(num_classes=10).state_dict()
    assert list(ours) == list(theirs)
    assert [key for key in ours if ours[key].shape != theirs[key].shape] == ["conv1.weight"]
    assert ours["conv1.weight"].shape == (64, 1, 7, 7)


def test_resnet18_answers_as_torchvisions_with_the_same_weights(batch: tuple[Tensor, Tensor]) -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    ours = build_network("resnet18", {"dropout": 0.5})
    ours.load_state_dict(theirs.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(batch[0]), theirs.eval()(batch[0]))


@pytest.mark.parametrize(
    ("hyperparameter", "value"),
    [
        ("unfreeze", ("layer5",)),
        ("unfreeze", ("layer4", "layer4")),
        ("unfreeze", "layer4"),
        ("unfreeze", [["layer4"]]),
        ("weights", ""),
        ("weights", None),
        ("stem_init", "mean"),
    ],
)
def test_resnet18_refuses_values_outside_their_domain_by_name(hyperparameter: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{hyperparameter} must be "):
        plan("resnet18", **{hyperparameter: value})

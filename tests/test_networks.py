import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torchvision
from one_pixel import as_kept, side_that_meets
from torch import Tensor, nn
from torch.nn import functional

from fmnist_models.data import TrainingData
from fmnist_models.networks import NETWORKS, build_network, get_network
from fmnist_models.networks.conv_block import ConvBlock
from fmnist_models.networks.customnet import CustomNet
from fmnist_models.networks.dropout import Dropout
from fmnist_models.networks.enlarging import enlarge
from fmnist_models.networks.flat_linear import flat_linear
from fmnist_models.networks.grey_block import GreyBlock
from fmnist_models.recipe import Recipe, build_optimizer
from fmnist_models.seeds import derive_seed
from fmnist_models.synthetic import draw_garments
from fmnist_models.training import Training, TrainingPlan

EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)
RESIDUAL = pytest.mark.parametrize("name", ["resnet18", "resnet34"])
NUM_DROPOUTS = dict.fromkeys(NETWORKS, 1) | {"alexnet11": 2}
LEARNING_RATES = {"alexnet11": 3e-4}  # without normalisation it bears no more


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
        # What is added before normalisation is taken out again: to rounding, or altogether.
        assert parameter.grad.any() or parameter_name in ("block1.0.bias", "block2.0.bias"), parameter_name


@EVERY_NETWORK
def test_one_batch_is_learned_by_heart(name: str, batch: tuple[Tensor, Tensor]) -> None:
    model = plan(name, dropout=0.0).build(None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATES.get(name, 2e-3))
    count = 4 if name == "alexnet11" else 16  # 30 million parameters take their time
    images, labels = batch[0][:count], batch[1][:count]

    def losses() -> Iterator[float]:
        for _ in range(150):
            loss = functional.cross_entropy(model(images), labels)
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.0, 0.3, 0.95])
def test_dropout_drops_as_many_activations_as_asked(
    name: str, probability: float, dtype: torch.dtype, batch: tuple[Tensor, Tensor]
) -> None:
    model = build_network(name, {"dropout": probability})
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(dropouts) == NUM_DROPOUTS[name]
    sizes: list[int] = []
    for dropout in dropouts:
        dropout.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.numel()))
    model(batch[0][:4])
    fc = model.get_submodule("fc")
    assert isinstance(fc, nn.Linear)
    assert sizes == [4 * fc.in_features] * len(dropouts)  # in the way of the scores, before the classifier
    torch.manual_seed(0)
    for dropout in dropouts:
        kept = dropout(torch.ones(100_000, dtype=dtype))
        assert (kept == 0).float().mean() == pytest.approx(probability, abs=0.01)
        scale = pytest.approx(1 / (1 - probability), rel=2 * torch.finfo(dtype).eps)
        assert kept[kept != 0].unique().tolist() == [scale]


def test_dropout_in_bf16_keeps_the_share_that_it_scales_by() -> None:
    torch.manual_seed(0)
    kept = Dropout(0.95)(torch.ones(4_000_000, dtype=torch.bfloat16)) != 0
    assert kept.float().mean() == pytest.approx(0.05, rel=0.01)


def test_dropped_activations_have_no_gradient_and_the_others_that_of_their_scale() -> None:
    activations = torch.ones(2, 3, 7, 7, requires_grad=True)
    kept = Dropout(0.4)(activations)
    kept.sum().backward()
    assert activations.grad is not None
    assert torch.equal(activations.grad, kept.detach())


@EVERY_NETWORK
def test_dropout_rests_when_predicting(name: str, batch: tuple[Tensor, Tensor]) -> None:
    model, images = build_network(name, {"dropout": 0.5}), batch[0][:4]
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


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
    with pytest.raises(
        ValueError, match="no network 'vgg'; valid: customnet, resnet18, resnet34, lenet5, alexnet11, lstm"
    ):
        plan("vgg")


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.stages])
def test_stages_hold_every_parameter_exactly_once(name: str) -> None:
    network, model = get_network(name), build_network(name, {})
    assert network.stages is not None
    stages = network.stages(model)
    assert tuple(stages) == network.stage_names
    held = [id(p) for modules in stages.values() for module in modules for p in module.parameters()]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert network.stage_names[-1] == "fc"  # as the tables of trials take it to be
    scores = stages["fc"][-1]
    assert isinstance(scores, nn.Linear)
    assert scores.out_features == 10


# What each network is


@pytest.mark.parametrize(
    ("name", "hyperparameters", "count"),
    [
        ("customnet", {}, 155_850),
        ("resnet18", {}, 11_175_370),
        ("resnet18", {"input_size": 227}, 11_175_370),
        ("resnet18", {"stem": "small"}, 11_172_810),
        ("resnet34", {}, 21_283_530),
        ("resnet34", {"input_size": 227}, 21_283_530),
        ("resnet34", {"stem": "small"}, 21_280_970),
        ("lenet5", {}, 61_706),
        ("alexnet11", {}, 29_583_562),
        ("alexnet11", {"input_size": 227}, 58_299_082),
        ("lstm", {}, 24_842),
    ],
)
def test_number_of_weights_in_the_state_dict(name: str, hyperparameters: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        model = build_network(name, hyperparameters)
    weights = model.state_dict()
    assert sum(weights[name].numel() for name, _ in model.named_parameters()) == count
    few = {"resnet18": 4_228_554, "resnet34": 10_142_410}
    trained = few[name] if name in few and not hyperparameters else count
    assert sum(parameter.numel() for parameter in model.parameters()) == trained


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_lie_in_memory_without_gaps(name: str) -> None:
    """Fused optimisers take a weight for as many numbers in a row as it has."""
    model = build_network(name, {})
    assert all(parameter.is_contiguous() for parameter in model.parameters())


def test_only_networks_whose_authors_dropped_activations_do_so_by_default() -> None:
    drops = {name: [m.p for m in build_network(name, {}).modules() if isinstance(m, nn.Dropout)] for name in NETWORKS}
    none = {name: [0.0] for name in ("resnet18", "resnet34", "lenet5", "lstm")}
    assert drops == {"customnet": [0.5], "alexnet11": [0.5, 0.5], **none}


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("customnet", ()),
        ("resnet18", ("stem", "layer1", "layer2", "layer3", "layer4", "fc")),
        ("resnet34", ("stem", "layer1", "layer2", "layer3", "layer4", "fc")),
        ("lenet5", ("c1", "c3", "c5", "f6", "fc")),
        ("alexnet11", ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc")),
        ("lstm", ("lstm", "fc")),
    ],
)
def test_stages_are_those_documented(name: str, stages: tuple[str, ...]) -> None:
    assert get_network(name).stage_names == stages


def shapes(name: str, hyperparameters: dict[str, Any], stages: tuple[str, ...]) -> list[tuple[int, ...]]:
    """What each of the modules gives for two images, without the images."""
    model, found = build_network(name, hyperparameters), list[tuple[int, ...]]()
    for stage in stages:
        model.get_submodule(stage).register_forward_hook(lambda _m, _i, output: found.append(tuple(output.shape[1:])))
    model.eval()(torch.zeros(2, 1, 28, 28))
    return found


@pytest.mark.parametrize(
    ("name", "hyperparameters", "modules", "expected"),
    [
        ("lenet5", {}, ("c1", "c3", "c5", "f6"), [(6, 14, 14), (16, 5, 5), (120,), (84,)]),
        (
            "alexnet11",
            {"input_size": 227},
            ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
            [(96, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13), (256 * 6 * 6,), (4096,), (4096,)],
        ),
        (
            "alexnet11",
            {"input_size": 28},
            ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"),
            [(96, 14, 14), (256, 7, 7), (384, 7, 7), (384, 7, 7), (256 * 3 * 3,), (4096,), (4096,)],
        ),
        ("lstm", {}, ("norm",), [(64,)]),
        *(
            (name, hyperparameters, ("maxpool", "layer1", "layer2", "layer3", "layer4"), expected)
            for name in ("resnet18", "resnet34")
            for hyperparameters, expected in [
                ({}, [(64, 7, 7), (64, 7, 7), (128, 4, 4), (256, 2, 2), (512, 1, 1)]),
                ({"stem": "small"}, [(64, 28, 28), (64, 28, 28), (128, 14, 14), (256, 7, 7), (512, 4, 4)]),
                ({"input_size": 227}, [(64, 57, 57), (64, 57, 57), (128, 29, 29), (256, 15, 15), (512, 8, 8)]),
            ]
        ),
    ],
)
def test_layers_give_the_documented_shapes(
    name: str, hyperparameters: dict[str, Any], modules: tuple[str, ...], expected: list[tuple[int, ...]]
) -> None:
    assert shapes(name, hyperparameters, modules) == expected


def test_a_small_stem_learns_one_batch_by_heart_too(batch: tuple[Tensor, Tensor]) -> None:
    model = plan("resnet18", stem="small").build(None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(10):
        loss = functional.cross_entropy(model(batch[0][:4]), batch[1][:4])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@RESIDUAL
def test_on_large_images_there_is_no_small_stem(name: str) -> None:
    first = build_network(name, {"stem": "small", "input_size": 227}).get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    assert first.kernel_size == (7, 7)


def test_resnet18_has_the_weights_that_it_always_had(batch: tuple[Tensor, Tensor]) -> None:
    """Of the seed, as saved before there were other stems and sizes."""
    model = plan("resnet18", seed=3).build(None)
    torch.manual_seed(derive_seed(3, 0))
    before = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], num_classes=10)
    before.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(before.conv1.weight, mode="fan_out", nonlinearity="relu")
    expected = before.state_dict()
    assert list(expected) == list(model.state_dict())
    assert all(torch.equal(tensor, as_kept(key, expected[key])) for key, tensor in model.state_dict().items())
    torch.testing.assert_close(model.eval()(batch[0]), before.eval()(batch[0]))


def test_an_enlarged_image_shows_the_same() -> None:
    images = torch.rand(3, 1, 28, 28)
    assert enlarge(images, size=28) is images
    large = enlarge(images, size=227)
    assert large.shape == (3, 1, 227, 227)
    assert torch.equal(enlarge(torch.full((1, 1, 28, 28), 0.25), size=227), torch.full((1, 1, 227, 227), 0.25))
    centres = functional.interpolate(large, size=28, mode="nearest-exact")
    assert (centres - images).abs().max() < 0.1


def test_the_lstm_reads_rows_from_top_to_bottom() -> None:
    model = build_network("lstm", {}).eval()
    image = torch.rand(1, 1, 28, 28)
    last = image.clone()
    last[..., -1, :] = 0
    first = image.clone()
    first[..., 0, :] = 0
    effect_of_last, effect_of_first = ((model(other) - model(image)).abs().max() for other in (last, first))
    assert effect_of_last > effect_of_first > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_lstm_trains_in_every_precision(precision: str, synthetic_data: TrainingData) -> None:
    few = TrainingData(
        synthetic_data.train.first(64), synthetic_data.validation.first(10), synthetic_data.normalisation
    )
    lstm = TrainingPlan(network="lstm", hyperparameters={}, num_epochs=1, seed=0, precision=precision)
    [epoch] = Training(lstm, few, device=torch.device("cpu")).epochs()
    assert 1 < epoch.train_loss < 4


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "alexnet11"])
@pytest.mark.parametrize("value", [227.0, 32, "28", True])
def test_only_two_sizes_of_images_are_valid(name: str, value: object) -> None:
    with pytest.raises(ValueError, match="input_size must be one of 28, 227"):
        plan(name, input_size=value)


def test_customnet_pools_before_relu_as_if_it_did_so_afterwards(batch: tuple[Tensor, Tensor]) -> None:
    model = build_network("customnet", {"dropout": 0.0})
    assert isinstance(model, CustomNet)
    model.block1, model.block2 = (nn.Sequential(*block) for block in (model.block1, model.block2))  # layer by layer
    published = copy.deepcopy(model)
    for block in (published.block1, published.block2):
        block[2], block[3] = block[3], block[2]
        assert [type(part) for part in block] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    losses = [functional.cross_entropy(network(batch[0]), batch[1]) for network in (model, published)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    gradients = [[parameter.grad for parameter in network.parameters()] for network in (model, published)]
    assert all(itertools.starmap(torch.equal, zip(*gradients, strict=True)))


@pytest.mark.parametrize(("count", "height", "width"), [(32, 28, 28), (1, 28, 28), (3, 6, 10), (5, 7, 9)])
@pytest.mark.parametrize("signs", [(0.5, 1.5), (-1.5, -0.5), (-1.0, 1.0)])
def test_a_grey_block_trains_as_its_layers_do(
    count: int, height: int, width: int, signs: tuple[float, float], batch: tuple[Tensor, Tensor]
) -> None:
    """Much of a garment's picture is black, so that many of the pooled are equal."""
    torch.manual_seed(1)
    images = batch[0][:count, :, 28 - height :, 28 - width :]
    assert_trains_as_its_layers_do(GreyBlock(8), images, signs=signs)


@pytest.mark.parametrize("signs", [(0.5, 1.5), (-1.0, 1.0)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_grey_block_is_as_exact_in_bf16_as_its_layers_are(
    signs: tuple[float, float], offset: float, batch: tuple[Tensor, Tensor]
) -> None:
    """Errors of other signs, and of the same size; also of a gradient most of which the normalisation takes away."""
    torch.manual_seed(1)
    block = GreyBlock(32)
    with torch.no_grad():
        block[1].weight.uniform_(*signs)
        block[1].bias.uniform_(-0.5, 0.5)
    layers, exact = nn.Sequential(*copy.deepcopy(block)), nn.Sequential(*copy.deepcopy(block)).double()
    wanted = torch.randn(len(batch[0]), 32, 14, 14) + offset
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [block(batch[0]), layers(batch[0])]
    assert [output.dtype for output in outputs] == [torch.bfloat16] * 2
    outputs.append(exact(batch[0].double()))
    for output in outputs:
        (output * wanted).sum().backward()
    found = {"output": outputs}
    for name in ("0.weight", "1.weight", "1.bias"):
        found[name] = [network.get_parameter(name).grad for network in (block, layers, exact)]
    rounding = 2**-9  # of a number to bf16
    for name, (mine, theirs, true) in found.items():
        assert (mine - true).norm() <= 2 * (theirs - true).norm() + rounding * true.norm(), name
    for name, value in exact.named_buffers():
        torch.testing.assert_close(block.state_dict()[name].double(), value.double(), rtol=1e-5, atol=1e-5, msg=name)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("count", "height", "width"), [(16, 14, 14), (1, 4, 4), (5, 7, 9)])
@pytest.mark.parametrize("signs", [(0.5, 1.5), (-1.5, -0.5), (-1.0, 1.0)])
def test_a_conv_block_trains_as_its_layers_do(
    count: int, height: int, width: int, signs: tuple[float, float], layout: torch.memory_format
) -> None:
    torch.manual_seed(1)
    images = torch.randn(count, 3, height, width).to(memory_format=layout).requires_grad_()
    assert_trains_as_its_layers_do(ConvBlock(3, 8).to(memory_format=layout), images, signs=signs)


@pytest.mark.parametrize("kind", ["grey", "conv"])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_channel_with_a_weight_of_exactly_0_has_the_gradients_of_the_layers(kind: str, zero: float) -> None:
    torch.manual_seed(1)
    block = GreyBlock(8) if kind == "grey" else ConvBlock(1, 8)
    images, wanted = torch.randn(5, 1, 14, 14), torch.randn(5, 8, 7, 7)
    with torch.no_grad():
        block.train()[1].weight.uniform_(-1.0, 1.0)[:3] = zero
        block[1].bias.uniform_(0.1, 0.5)
    layers = nn.Sequential(*copy.deepcopy(block)).double()
    (block(images) * wanted).sum().backward()
    (layers(images.double()) * wanted).sum().backward()
    for name in ("0.weight", "1.weight", "1.bias"):
        mine, theirs = block.get_parameter(name).grad, layers.get_parameter(name).grad
        torch.testing.assert_close(mine.double(), theirs, rtol=1e-4, atol=1e-4, msg=name)
    assert layers[1].weight.grad[:3].abs().min() > 0.1


def assert_trains_as_its_layers_do(block: ConvBlock, images: Tensor, *, signs: tuple[float, float]) -> None:
    norm = block[1]
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.uniform_(*signs)
        norm.bias.uniform_(-0.5, 0.5)
    layers = nn.Sequential(*copy.deepcopy(block)).double()
    exact = images.detach().double().requires_grad_(images.requires_grad)
    wanted = torch.randn(len(images), 8, images.shape[2] // 2, images.shape[3] // 2)
    for _ in range(2):  # running statistics that have moved twice
        outputs = [block(images), layers(exact)]
        torch.testing.assert_close(outputs[0].double(), outputs[1], rtol=1e-5, atol=1e-5)
        for output in outputs:
            (output * wanted).sum().backward()
    for name, theirs in layers.named_buffers():
        torch.testing.assert_close(block.state_dict()[name].double(), theirs.double(), rtol=1e-5, atol=1e-5, msg=name)
    if images.requires_grad:
        torch.testing.assert_close(images.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in layers.named_parameters()}
    for name, parameter in block.named_parameters():
        # Of the convolution's bias the layers have nothing left but rounding.
        largest = gradients["0.weight" if name == "0.bias" else name].abs().max().item()
        assert parameter.grad is not None
        assert (parameter.grad - gradients[name]).abs().max().item() <= 1e-5 * largest, name
        assert parameter.grad.any() == (name != "0.bias")
    layers.load_state_dict(block.state_dict())
    assert torch.equal(block.eval()(images), layers.float().eval()(images))


@pytest.mark.parametrize("block", [GreyBlock(8), ConvBlock(1, 8)], ids=["grey", "conv"])
def test_a_block_whose_normalisation_is_at_rest_leaves_its_statistics_alone(
    block: ConvBlock, batch: tuple[Tensor, Tensor]
) -> None:
    block.train()[1].eval()
    before = copy.deepcopy(block.state_dict())
    found = block(batch[0])
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert torch.equal(found, block.eval()(batch[0]))


@pytest.mark.parametrize("block", [GreyBlock(8), ConvBlock(1, 8)], ids=["grey", "conv"])
def test_a_block_refuses_gradients_of_gradients(block: ConvBlock, batch: tuple[Tensor, Tensor]) -> None:
    weight = block.train()[0].weight
    (gradient,) = torch.autograd.grad(block(batch[0]).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_fully_connected_layer_has_its_answers_in_either_layout(layout: torch.memory_format) -> None:
    layer = nn.Linear(3 * 4 * 5, 10)
    features = torch.randn(7, 3, 4, 5).to(memory_format=layout).requires_grad_()
    wanted = torch.randn(7, 10)
    tensors = (features, layer.weight, layer.bias)
    found = []
    for scores in (flat_linear(features, layer), layer(features.flatten(1))):
        found.append((scores, *torch.autograd.grad((scores * wanted).sum(), tensors)))
    assert found[0][1].stride() == features.stride()
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


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


def layer4s(**hyperparameters: Any) -> tuple[nn.Module, nn.Module]:
    """Ours and torchvision's with the same weights."""
    ours = build_network("resnet18", hyperparameters).get_submodule("layer4")
    theirs = torchvision.models.resnet18().layer4
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def test_layer4_of_one_pixel_has_the_answers_and_gradients_of_convolutions() -> None:
    ours, theirs = (layer.double() for layer in layer4s())
    answers = [
        layer(images) for images in [torch.randn(32, 256, 2, 2, dtype=torch.float64)] for layer in (ours, theirs)
    ]
    assert answers[0].shape == (32, 512, 1, 1)
    torch.testing.assert_close(*answers)
    for answer in answers:
        answer.square().sum().backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        gradient = other.grad
        if gradient.shape[2:] == (3, 3):
            end = 1 + side_that_meets(name)
            gradient = gradient[:, :, 1:end, 1:end].flatten(1)
            assert torch.count_nonzero(other.grad) == torch.count_nonzero(gradient)  # nothing is lost
        torch.testing.assert_close(mine.grad, gradient)


def test_layer4_of_one_pixel_has_them_in_channels_last_and_bf16_too() -> None:
    ours, theirs = (layer.to(memory_format=torch.channels_last) for layer in layer4s())
    images = torch.randn(32, 256, 2, 2).to(memory_format=torch.channels_last)
    torch.testing.assert_close(ours(images), theirs(images))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(images), theirs(images), rtol=0.1, atol=0.1)


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Networks are built so; ``double()`` would put their weights elsewhere in memory."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_an_optimiser_does_with_layer4_of_one_pixel_what_it_does_with_convolutions(optimizer: str) -> None:
    layers = layer4s()
    images = torch.randn(32, 256, 2, 2)
    for layer in layers:
        steps = build_optimizer(Recipe(optimizer=optimizer, lr=0.1, weight_decay=0.1), layer.parameters())
        for _ in range(2):
            steps.zero_grad()
            layer(images).square().mean().backward()
            steps.step()
    ours, theirs = (layer.state_dict() for layer in layers)
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, as_kept(f"layer4.{name}", theirs[name]), msg=name)


def test_filters_that_make_one_pixel_have_no_weights_but_those_that_meet_an_image() -> None:
    counts = [sum(p.numel() for p in layer.parameters()) for layer in layer4s()]
    assert counts[1] - counts[0] == 5 * 256 * 512 + 3 * 8 * 512 * 512


@pytest.mark.parametrize("shape", [(512, 1024), (512, 512, 5, 5)])
def test_layer4_of_one_pixel_refuses_filters_of_other_shapes(shape: tuple[int, ...]) -> None:
    layer4 = build_network("resnet18", {}).get_submodule("layer4")
    with pytest.raises(RuntimeError, match=r"size mismatch for 1\.conv2\.weight"):
        layer4.load_state_dict(layer4.state_dict() | {"1.conv2.weight": torch.zeros(shape)})


@pytest.mark.parametrize("hyperparameters", [{"stem": "small"}, {"input_size": 227}], ids=str)
def test_layer4_of_more_pixels_is_torchvisions(hyperparameters: dict[str, Any]) -> None:
    ours, theirs = layer4s(**hyperparameters)
    images = torch.randn(2, 256, 7, 7)
    assert torch.equal(ours(images), theirs(images))
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]


def test_weights_that_no_image_meets_are_zeros_in_the_state_dict_and_dropped_from_others() -> None:
    theirs = torchvision.models.resnet18(num_classes=10).state_dict()
    theirs["conv1.weight"] = theirs["conv1.weight"][:, :1]
    ours = build_network("resnet18", {})
    ours.load_state_dict(theirs)
    assert all(torch.equal(tensor, as_kept(name, theirs[name])) for name, tensor in ours.state_dict().items())


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
        ("stem", "tiny"),
    ],
)
def test_resnet18_refuses_values_outside_their_domain_by_name(hyperparameter: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{hyperparameter} must be "):
        plan("resnet18", **{hyperparameter: value})

"""Features of frozen stages: the same training, sooner."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fmnist_models import feature_cache
from fmnist_models.data import TrainingData
from fmnist_models.feature_cache import FeatureCache, feature_key
from fmnist_models.freezing import freeze_stages, train_mode
from fmnist_models.networks import NETWORKS, Network
from fmnist_models.prefix import frozen_prefix, split_at
from fmnist_models.training import Training, TrainingPlan

STAGED = [network for network in NETWORKS.values() if network.stages is not None]


def build(network: Network, **own: Any) -> nn.Module:
    torch.manual_seed(0)
    return network.build(network.hyperparameters(**own))


@pytest.mark.parametrize("network", STAGED, ids=lambda network: network.name)
def test_the_steps_of_a_network_are_its_forward_pass_wherever_it_is_split(network: Network) -> None:
    model = build(network).eval()
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        for count in range(len(network.stage_names)):
            stem, rest = split_at(network, model, network.stage_names[:count])
            torch.testing.assert_close(rest(stem(images)), model(images))


@pytest.mark.parametrize("network", STAGED, ids=lambda network: network.name)
def test_the_prefix_ends_where_something_trains_or_drops(network: Network) -> None:
    for count, stage in enumerate(network.stage_names):
        model = build(network, dropout=0.0)
        freeze_stages(network, model, unfreeze=[stage])
        assert frozen_prefix(network, model) == network.stage_names[:count]
    model = build(network, dropout=0.5)
    freeze_stages(network, model, unfreeze=[])
    prefix = frozen_prefix(network, model)
    dropping = [s for s, parts in network.stages(model).items() if has_dropout(parts)]  # type: ignore[misc]
    assert prefix == network.stage_names[: network.stage_names.index((*dropping, "fc")[0])]


def has_dropout(modules: tuple[nn.Module, ...]) -> bool:
    return any(isinstance(part, nn.Dropout) for module in modules for part in module.modules())


PLANS: dict[str, dict[str, Any]] = {
    "fc of a ResNet": {"network": "resnet18", "hyperparameters": {"unfreeze": ("fc",)}},
    "with dropout": {"network": "resnet18", "hyperparameters": {"unfreeze": ("fc",), "dropout": 0.5}},
    "layer4 and fc": {"network": "resnet18", "hyperparameters": {"unfreeze": ("layer4", "fc")}},
    "in bf16": {"network": "resnet18", "hyperparameters": {"unfreeze": ("fc",)}, "precision": "bf16"},
    "a frozen stage after one that trains": {"network": "resnet18", "hyperparameters": {"unfreeze": ("layer3", "fc")}},
    "LeNet": {"network": "lenet5", "hyperparameters": {"unfreeze": ("f6", "fc")}},
}


@pytest.fixture
def few(synthetic_data: TrainingData) -> TrainingData:
    return TrainingData(
        synthetic_data.train.first(150), synthetic_data.validation.first(60), synthetic_data.normalisation
    )


@functools.cache
def pretrained() -> dict[str, Tensor]:
    torch.manual_seed(1)
    state: dict[str, Tensor] = torchvision.models.resnet18(weights=None).state_dict()
    return state


def train(plan: dict[str, Any], data: TrainingData, cache: FeatureCache | None) -> Training:
    whole = TrainingPlan(num_epochs=2, seed=3, **{"precision": "fp32", **plan})
    weights = pretrained() if plan["network"] == "resnet18" else None
    training = Training(whole, data, device=torch.device("cpu"), cache=cache, pretrained=weights)
    list(training.epochs())
    return training


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_training_with_features_is_the_one_without(plan: dict[str, Any], few: TrainingData, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", max_bytes=10**9)
    with_them, without = train(plan, few, cache), train(plan, few, None)
    found = len(list(cache.folder.iterdir())) if cache.folder.exists() else 0
    assert found == (2 if plan["network"] == "resnet18" else 0), "those of fresh weights are of use to nobody else"
    tolerance = 2e-2 if plan.get("precision") == "bf16" else 1e-4
    for one, other in zip(with_them.history, without.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=tolerance)
        assert one.val_loss == pytest.approx(other.val_loss, rel=tolerance)
    for name, tensor in with_them.model.state_dict().items():
        torch.testing.assert_close(tensor, without.model.state_dict()[name], rtol=tolerance, atol=10 * tolerance)


def test_features_are_computed_once_for_all_trainings_and_the_same_bit_for_bit(
    few: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, plan = FeatureCache(tmp_path / "features", max_bytes=10**9), PLANS["fc of a ResNet"]
    first = train(plan, few, cache)
    monkeypatch.setattr("fmnist_models.feature_cache.write_aside", None)  # computing them again would write them
    second = train(plan, few, cache)
    assert [epoch.val_loss for epoch in first.history] == [epoch.val_loss for epoch in second.history]


@pytest.mark.parametrize(
    "hyperparameters",
    [{"unfreeze": ("fc",), "flip": True}, {"unfreeze": ("fc",), "shift": 2}, {"unfreeze": ("stem", "fc")}],
    ids=str,
)
def test_nothing_is_kept_where_features_are_no_function_of_the_image(
    hyperparameters: dict[str, Any], few: TrainingData, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "features", max_bytes=10**9)
    train({"network": "resnet18", "hyperparameters": hyperparameters}, few, cache)
    assert not cache.folder.exists()


def test_what_is_too_large_for_the_cache_is_not_kept(few: TrainingData, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features", max_bytes=150 * 512 * 4)
    train(PLANS["fc of a ResNet"], few, cache)
    assert not cache.folder.exists()


def test_of_random_weights_which_are_a_trials_own_only_a_few_are_kept(
    few: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "features", max_bytes=10**9)
    assert train(PLANS["LeNet"], few, cache)._features is not None
    monkeypatch.setattr("fmnist_models.features._OWN_BYTES", 1000)
    assert train(PLANS["LeNet"], few, cache)._features is None


# The cache.


def count_calls(features: Tensor) -> tuple[list[None], Callable[[], Tensor]]:
    calls: list[None] = []

    def compute() -> Tensor:
        calls.append(None)
        return features

    return calls, compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_put_in_comes_out(tmp_path: Path, dtype: torch.dtype) -> None:
    cache, features = FeatureCache(tmp_path / "f", 10**6), torch.randn(5, 3, 2).to(dtype)
    calls, compute = count_calls(features)
    key = feature_key("a", tensors=[])
    for _ in range(3):
        read = cache.get(key, compute)
        assert read.dtype == dtype
        assert torch.equal(read, features)
    assert len(calls) == 1


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "f", 3 * 400)
    keys = [feature_key(str(number), tensors=[]) for number in range(4)]
    made = {key: torch.full((100,), float(number)) for number, key in enumerate(keys)}
    held = [cache.get(key, lambda key=key: made[key]) for key in keys[:3]]  # type: ignore[misc]
    cache.get(keys[0], lambda: made[keys[1]])
    cache.get(keys[3], lambda: made[keys[3]])
    assert {path.name[:32] for path in cache.folder.iterdir()} == {keys[0], keys[2], keys[3]}
    assert torch.equal(held[1], made[keys[1]]), "who reads what was removed goes on reading it"


def test_a_file_cut_short_is_made_anew(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path / "f", 10**6), torch.randn(50)
    key = feature_key("a", tensors=[])
    cache.get(key, lambda: features)
    (path,) = cache.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(cache.get(key, lambda: features), features)


def test_a_file_with_other_content_is_made_anew(tmp_path: Path) -> None:
    cache, features = FeatureCache(tmp_path / "f", 10**6), torch.randn(50)
    key = feature_key("a", tensors=[])
    cache.get(key, lambda: features)
    (path,) = cache.folder.iterdir()
    path.write_bytes(bytes(path.stat().st_size))
    feature_cache._verified.clear()  # as a process that has not seen it yet
    assert torch.equal(cache.get(key, lambda: features), features)


def test_what_a_killed_process_was_writing_goes(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "f", 10**6)
    cache.folder.mkdir()
    old, new = cache.folder / ".x.1.part", cache.folder / ".y.2.part"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.get("0" * 32, lambda: torch.randn(3))
    assert (old.exists(), new.exists()) == (False, True)


def test_a_training_continued_from_all_its_weights_has_the_features_of_those(few: TrainingData, tmp_path: Path) -> None:
    """As the checkpoints of former versions had them."""
    plan, cache = PLANS["layer4 and fc"], FeatureCache(tmp_path / "f", 10**9)
    trained = train(plan, few, cache)
    state = {**trained.state_dict(), "model": trained.model.state_dict()}
    del state["frozen"]
    state["model"]["bn1.weight"].mul_(3.0)
    trainings = []
    for each in (cache, None):
        whole = TrainingPlan(num_epochs=3, seed=3, precision="fp32", **plan)
        training = Training(whole, few, device=torch.device("cpu"), cache=each, pretrained=pretrained())
        training.load_state_dict({**copy.deepcopy(state), "plan": {**state["plan"], "num_epochs": 3}})
        list(training.epochs())
        trainings.append(training)
    one, other = (training.history[-1] for training in trainings)
    assert one.train_loss == pytest.approx(other.train_loss, rel=1e-3)
    assert one.val_loss == pytest.approx(other.val_loss, rel=1e-3)


def test_without_room_features_are_only_returned(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    features = torch.randn(50)
    assert torch.equal(FeatureCache(tmp_path / "file", 10**6).get("0" * 32, lambda: features), features)


def test_a_key_stands_for_all_of_its_parts() -> None:
    one, two = torch.zeros(2, 3), torch.zeros(3, 2)
    keys = {
        feature_key(*parts, tensors=tensors)
        for parts in (("ab", "c"), ("a", "bc"))
        for tensors in (
            [one],
            [two],
            [one, two],
            [one.double()],
            [one + 1e-30],
        )
    }
    assert len(keys) == 10


def test_a_frozen_batch_norm_stays_in_eval_mode_with_features(few: TrainingData, tmp_path: Path) -> None:
    training = train(PLANS["layer4 and fc"], few, FeatureCache(tmp_path / "f", 10**9))
    train_mode(training.model)
    assert not training.model.get_submodule("bn1").training
    assert training.model.get_submodule("layer4.0.bn1").training

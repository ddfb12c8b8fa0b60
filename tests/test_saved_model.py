import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fmnist_models.checkpoint import save_weights
from fmnist_models.data import CLASS_NAMES, TrainingData
from fmnist_models.files import write_aside
from fmnist_models.networks import NETWORKS
from fmnist_models.prediction import predict_scores
from fmnist_models.saved_model import ModelConfig, load_model
from fmnist_models.training import Training, TrainingPlan

CHOSEN: dict[str, dict[str, Any]] = {
    "customnet": {"dropout": 0.4},
    "resnet18": {"dropout": 0.1, "weights": "/gone/away.pth", "stem_init": "sum", "unfreeze": ["layer4"]},
    "resnet34": {"dropout": 0.1, "unfreeze": ["stem", "layer1"]},
    "lenet5": {"dropout": 0.1, "unfreeze": ["c1", "f6"]},
    "alexnet11": {"input_size": 28, "unfreeze": ["fc7"]},
    "lstm": {"unfreeze": ["lstm"]},
}


def config(network: str, data: TrainingData) -> ModelConfig:
    return ModelConfig(
        network=network,
        hyperparameters={**CHOSEN[network], "lr": 1e-3, "batch_size": 32},
        normalisation=data.normalisation,
        class_names=CLASS_NAMES,
        dataset="synthetic",
    )


def save(folder: Path, network: str, data: TrainingData, state: dict[str, torch.Tensor]) -> None:
    save_weights(folder / "model.safetensors", state)
    write_aside(folder / "config.json", config(network, data).to_json())


def plan_of(network: str) -> TrainingPlan:
    return TrainingPlan(network=network, hyperparameters={}, num_epochs=1, seed=0)


def test_every_network_has_a_case_here() -> None:
    assert set(CHOSEN) == set(NETWORKS)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_saved_model_gives_the_same_scores(
    network: str, precision: str, synthetic_data: TrainingData, tmp_path: Path
) -> None:
    data = TrainingData(
        synthetic_data.train.first(64), synthetic_data.validation.first(20), synthetic_data.normalisation
    )
    plan = TrainingPlan(
        network=network,
        hyperparameters=config(network, data).hyperparameters,
        num_epochs=1,
        seed=0,
        precision=precision,
    )
    training = Training(plan, data, device=torch.device("cpu"))
    list(training.epochs())  # so that BatchNorm's statistics are not the fresh ones
    save(tmp_path, network, data, training.model.state_dict())

    model, found = load_model(tmp_path)
    assert not model.training
    images = torch.from_numpy(data.validation.images)
    training.model.to(memory_format=torch.contiguous_format)  # another layout rounds differently
    expected = predict_scores(training.model, images, normalisation=data.normalisation)
    assert torch.equal(predict_scores(model, images, normalisation=found.normalisation), expected)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_saved_configuration_is_read_back_equal(network: str, synthetic_data: TrainingData, tmp_path: Path) -> None:
    save(tmp_path, network, synthetic_data, plan_of(network).build(None).state_dict())
    assert load_model(tmp_path)[1] == config(network, synthetic_data)


def test_weights_of_another_network_are_refused_by_file_and_network(
    synthetic_data: TrainingData, tmp_path: Path
) -> None:
    save(tmp_path, "resnet18", synthetic_data, plan_of("customnet").build(None).state_dict())
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold a resnet18"):
        load_model(tmp_path)


def test_truncated_weights_are_refused_by_file(synthetic_data: TrainingData, tmp_path: Path) -> None:
    save(tmp_path, "customnet", synthetic_data, plan_of("customnet").build(None).state_dict())
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold a customnet"):
        load_model(tmp_path)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(missing: str, synthetic_data: TrainingData, tmp_path: Path) -> None:
    save(tmp_path, "customnet", synthetic_data, plan_of("customnet").build(None).state_dict())
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing.replace(".", r"\.")):
        load_model(tmp_path)


def test_the_configuration_is_json_that_anyone_can_read(synthetic_data: TrainingData) -> None:
    raw = json.loads(config("customnet", synthetic_data).to_json())
    assert raw["network"] == "customnet"
    assert raw["hyperparameters"]["dropout"] == 0.4
    assert raw["normalisation"] == {
        "mean": synthetic_data.normalisation.mean,
        "std": synthetic_data.normalisation.std,
    }
    assert raw["class_names"][9] == "Ankle boot"

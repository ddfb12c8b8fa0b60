"""`fmnist predict` and `fmnist export` as a person uses them."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from command import fmnist as run_fmnist
from made_experiment import make_experiment
from PIL import Image

from fmnist_models.checkpoint import save_weights
from fmnist_models.data import CLASS_NAMES, load_images, split_training
from fmnist_models.prediction import predict_probabilities
from fmnist_models.saved_model import load_model
from fmnist_models.training import Training, TrainingPlan
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.workflows.evaluation import evaluate_and_save

NUM_TEST = 300
FORMAT_NAMES = {"onnx": "mine.onnx", "torch-export": "mine.pt2", "safetensors": "mine-model"}


def make_winner(path: Path, dataset: str, root: Path) -> Experiment:
    """A finished experiment with a trained model that was evaluated."""
    config = parse_config(
        {
            "dataset": dataset,
            "train_size": 1000,
            "test_size": NUM_TEST,
            "space": {"model": "customnet", "lr": {"float": [1e-4, 1e-1], "log": True}},
            "max_trials": 1,
            "max_epochs": 2,
            "pruner": "none",
        },
        where="test",
    )
    experiment = make_experiment(path, config, [[0.5, 0.75]])
    data = split_training(
        load_images(dataset, "train", root=root, size=1000), validation_fraction=0.1, seed=config.seed
    )
    plan = TrainingPlan(network="customnet", hyperparameters={"lr": 2e-3}, num_epochs=2, seed=0)
    training = Training(plan, data, device=torch.device("cpu"))
    list(training.epochs())
    save_weights(experiment.trial(0).best, training.model.state_dict())
    evaluate_and_save(experiment, config, None, data_root=root, data=data)
    return experiment


@pytest.fixture(scope="module")
def real(fashion_mnist_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment on real images."""
    return make_winner(tmp_path_factory.mktemp("real") / "mine", "fashion-mnist", fashion_mnist_root).path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an experiment on synthetic images."""
    return make_winner(tmp_path_factory.mktemp("drawn") / "mine", "synthetic", Path("unused")).path


@pytest.fixture
def mine(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """A copy of it to be altered, which commands find by its name; the working folder is empty."""
    monkeypatch.setenv("FMNIST_EXPERIMENTS_DIR", str(tmp_path / "experiments"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Experiment(Path(shutil.copytree(drawn, tmp_path / "experiments" / "mine")))


@pytest.fixture
def fmnist(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process: its exit code, standard output and standard error."""

    return functools.partial(run_fmnist, capsys)


def picture(name: str, *, side: int = 280) -> Path:
    path = Path(name)
    Image.effect_noise((side, side), 90).convert("RGB").save(path)
    return path


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "inverted": lambda image: image.point(lambda level: 255 - level),
    "larger": lambda image: image.resize((224, 224), Image.Resampling.LANCZOS),
    "colour": lambda image: image.point(lambda level: 255 - level).resize((280, 280)).convert("RGBA"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pictures_of_test_images_are_predicted_as_the_images_are(
    variant: str, real: Path, fashion_mnist_root: Path, tmp_path: Path, fmnist: Any
) -> None:
    images = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=100).images
    model, config = load_model(real / "best")
    expected = predict_probabilities(model, images, normalisation=config.normalisation)
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        VARIANTS[variant](Image.fromarray(pixels)).save(path)
    code, out, err = fmnist("predict", real, *paths, "--top", 10, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["dataset"] == "fashion-mnist"
    found = [{entry["class"]: entry["probability"] for entry in row["classes"]} for row in told["predictions"]]
    probabilities = np.array([[row[name] for name in CLASS_NAMES] for row in found])
    is_same = probabilities.argmax(1) == expected.argmax(1)
    if variant in ("as it is", "inverted"):
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert is_same.mean() >= 0.9
    assert {row["inverted"] for row in told["predictions"]} == {variant in ("inverted", "colour")}


def test_the_most_probable_classes_are_shown_in_their_order(mine: Experiment, fmnist: Any) -> None:
    code, out, err = fmnist("predict", "mine", picture("[red]a.png"), picture("b.jpg"))
    assert (code, err) == (0, "")
    assert "mine, customnet on synthetic" in out
    assert "[red]a.png" in out
    assert out.count("%") == 6
    code, out, _ = fmnist("predict", "mine", "b.jpg", "--top", 2, "--json")
    (row,) = json.loads(out)["predictions"]
    assert [len(row["classes"]), row["image"], row["width"]] == [2, "b.jpg", 280]
    first, second = (entry["probability"] for entry in row["classes"])
    assert 1 >= first >= second >= 0


def test_a_folder_with_the_two_files_alone_is_enough(mine: Experiment, fmnist: Any, tmp_path: Path) -> None:
    picture("a.png")
    _, expected, _ = fmnist("predict", "mine", "a.png", "--json")
    mailed = shutil.move(mine.path / "best", tmp_path / "mailed")
    shutil.rmtree(mine.path)
    code, out, _ = fmnist("predict", mailed, "a.png", "--json")
    assert code == 0
    assert json.loads(out)["predictions"] == json.loads(expected)["predictions"]
    code, out, _ = fmnist("export", mailed, "--format", "torch-export", "--json")
    assert code == 0
    assert json.loads(out)["num_images"] == 1000  # all that there are, as nothing says otherwise


def test_everything_that_is_no_picture_is_named_and_nothing_is_predicted(mine: Experiment, fmnist: Any) -> None:
    picture("good.png")
    Path("text.png").write_text("hello")
    picture("small.png", side=1)
    os.mkfifo("pipe.png")
    code, out, err = fmnist("predict", "mine", "good.png", "text.png", "small.png", "pipe.png", "none.png", ".")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    lines = err.splitlines()
    assert [line.removeprefix("error: ").split()[0] for line in lines] == [
        "text.png",
        "small.png",
        "pipe.png",
        "none.png",
        ".",
    ]


def test_an_experiment_without_a_model_is_told_how_to_get_one(mine: Experiment, fmnist: Any) -> None:
    shutil.rmtree(mine.path / "best")
    picture("a.png")
    for command in (("predict", "mine", "a.png"), ("export", "mine", "--format", "onnx")):
        code, out, err = fmnist(*command)
        assert (code, out) == (2, "")
        assert "`fmnist evaluate mine`" in err
    assert fmnist("predict", "other", "a.png")[0] == 2


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_model_is_named(name: str, mine: Experiment, fmnist: Any) -> None:
    Path(mine.path, "best", name).write_bytes(b"\0" * 100)
    code, out, err = fmnist("predict", "mine", picture("a.png"))
    assert (code, out) == (2, "")
    assert name in err


@pytest.mark.parametrize("format_name", FORMAT_NAMES)
def test_an_export_says_how_it_was_checked_and_where_it_came_from(
    format_name: str, mine: Experiment, fmnist: Any
) -> None:
    code, out, err = fmnist("export", "mine", "--format", format_name)
    assert (code, err) == (0, "")
    assert f"{FORMAT_NAMES[format_name]}: the same class as here for all {NUM_TEST} synthetic test images" in out
    assert os.listdir() == [FORMAT_NAMES[format_name]]


def test_the_metadata_name_the_trial_and_the_versions(mine: Experiment, fmnist: Any) -> None:
    code, out, _ = fmnist("export", "mine", "--format", "onnx", "--output", "other.onnx", "--json")
    told = json.loads(out)
    assert (code, told["output"], told["num_images"], told["num_other_classes"]) == (0, "other.onnx", NUM_TEST, 0)
    assert told["max_difference"] < 1e-5
    metadata = onnxruntime.InferenceSession("other.onnx").get_modelmeta().custom_metadata_map
    assert (metadata["experiment"], metadata["trial"], metadata["epoch"]) == ("mine", "0", "2")
    for made in ("made_with", "exported_with"):
        assert json.loads(metadata[made])["torch"]


def test_what_belongs_to_another_model_is_not_said_of_this_one(mine: Experiment, fmnist: Any) -> None:
    summary = json.loads(mine.evaluation.summary.read_text())
    mine.evaluation.summary.write_text(json.dumps({**summary, "hyperparameters": {}}))
    mine.versions.unlink()
    assert fmnist("export", "mine", "--format", "safetensors")[0] == 0
    header = Path("mine-model", "model.safetensors").read_bytes()[8:]
    metadata = json.JSONDecoder().raw_decode(header.decode("latin-1"))[0]["__metadata__"]
    assert metadata["experiment"] == "mine"
    assert not {"trial", "epoch", "made_with"} & set(metadata)


def test_an_export_that_has_no_place_is_refused(mine: Experiment, fmnist: Any) -> None:
    code, _, err = fmnist("export", "mine", "--format", "torch-export", "--output", ".")
    assert (code, "--output" in err) == (2, True)
    code, _, err = fmnist("export", "mine", "--format", "safetensors", "--output", "../experiments/mine")
    assert (code, "something else" in err) == (2, True)
    assert mine.exists()
    assert fmnist("export", "mine", "--format", "pickle")[0] == 2

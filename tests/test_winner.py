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
from search import load_experiment
from search.configuration.config import parse_config
from search.records.evaluation_file import read_evaluation
from search.records.experiment import Experiment
from search.records.predictions import read_predictions
from search.workflows.evaluation import evaluate_and_save
from search.workflows.winner import find_winner

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
    assert config.temperature != 1
    expected = predict_probabilities(model, images, normalisation=config.normalisation, temperature=config.temperature)
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


def test_a_picture_unlike_the_training_images_is_said_to_be_so(
    real: Path, fashion_mnist_root: Path, tmp_path: Path, fmnist: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    garments = load_images("fashion-mnist", "test", root=fashion_mnist_root, size=40).images
    for number, pixels in enumerate(garments):
        Image.fromarray(pixels).save(f"{number}.png")
    names = [f"{number}.png" for number in range(len(garments))]
    code, out, _ = fmnist("predict", real, picture("noise.png"), *names, "--json")
    told = json.loads(out)
    strange, *usual = told["predictions"]
    assert (code, strange["looks_like_training_images"]) == (0, False)
    assert strange["distance"] > told["distance_threshold"] > 0
    assert sum(not row["looks_like_training_images"] for row in usual) <= 6
    shown = next(row["image"] for row in usual if row["looks_like_training_images"])
    monkeypatch.setenv("COLUMNS", "200")
    _, out, _ = fmnist("predict", real, "noise.png", shown)
    assert ["does not look like the training images" in line for line in out.splitlines()[1:3]] == [True, False]


@pytest.mark.parametrize(("tone", "spread"), [(0, 0), (255, 0), (128, 0), (200, 12)])
def test_a_picture_of_one_tone_is_refused(tone: int, spread: int, mine: Experiment, fmnist: Any) -> None:
    levels = np.random.default_rng(0).integers(tone, tone + spread + 1, (28, 28))
    Image.fromarray(levels.astype(np.uint8)).save("flat.png")
    code, out, err = fmnist("predict", "mine", picture("good.png"), "flat.png")
    assert (code, out) == (2, "")
    assert "flat.png shows no garment: its brightness varies by " in err
    assert "valid: at least 16" in err
    assert "good.png" not in err


def test_a_model_of_before_there_was_a_threshold_still_predicts_and_says_what_it_lacks(
    mine: Experiment, fmnist: Any
) -> None:
    raw = json.loads(mine.best_config.read_text())
    older = {key: value for key, value in raw.items() if key not in ("temperature", "distance_threshold")}
    mine.best_config.write_text(json.dumps(older))
    save_weights(mine.best_weights, load_model(mine.path / "best")[0].state_dict())
    code, out, _ = fmnist("predict", "mine", picture("a.png"), "--json")
    told = json.loads(out)
    (row,) = told["predictions"]
    assert (code, told["temperature"], told["distance_threshold"]) == (0, 1, None)
    assert (row["distance"], row["looks_like_training_images"]) == (None, None)
    _, out, _ = fmnist("predict", "mine", "a.png")
    assert "`fmnist evaluate mine` adds both" in " ".join(out.split())
    assert fmnist("export", "mine", "--format", "torch-export")[0] == 0


def test_the_table_of_predictions_and_predict_and_python_have_the_same_probabilities(drawn: Path) -> None:
    experiment = Experiment(drawn)
    images = load_images("synthetic", "test", root=Path("unused"), size=NUM_TEST).images
    table = read_predictions(experiment.evaluation.predictions, class_names=CLASS_NAMES).probabilities
    predicted = find_winner(str(drawn), directory=drawn.parent).classifier.predict(images)
    model = load_experiment(drawn).load_model()
    np.testing.assert_allclose(table, predicted.probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model(torch.from_numpy(images)), predicted.probabilities, atol=1e-6)
    assert model.distance is not None
    assert predicted.distance is not None
    np.testing.assert_allclose(model.distance(torch.from_numpy(images)), predicted.distance, atol=1e-3)
    assert read_evaluation(experiment.evaluation).temperature == model.temperature != 1  # type: ignore[union-attr]


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
    config = json.loads(mine.best_config.read_text())
    assert json.loads(metadata["temperature"]) == config["temperature"] != 1
    assert json.loads(metadata["distance_threshold"]) == config["distance_threshold"] > 0
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
    assert (code, ". cannot be written: it is a folder; valid: a file in it" in err) == (2, True)
    code, _, err = fmnist("export", "mine", "--format", "safetensors", "--output", "../experiments/mine")
    assert (code, "something else" in err) == (2, True)
    assert mine.exists()
    assert fmnist("export", "mine", "--format", "pickle")[0] == 2

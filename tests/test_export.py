"""Models that leave the project: every network in every format, with the predictions that it has here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from fmnist_models import classifier, export, onnx_file
from fmnist_models.data import CLASS_NAMES, Normalisation, load_images
from fmnist_models.errors import ExportError, OutputError
from fmnist_models.export import FORMATS, Source, export_model
from fmnist_models.networks import NETWORKS, build_network
from fmnist_models.saved_model import ModelConfig, load_classifier
from fmnist_models.training_distance import measure_distance

IMAGES = load_images("synthetic", "test", root=Path("unused"), size=260).images
TRAIN = load_images("synthetic", "train", root=Path("unused"), size=300).images
DISTANCE = measure_distance(TRAIN[:200], TRAIN[200:])
PROVENANCE = {"experiment": "mine", "trial": "7"}
NAMES = {"onnx": "model.onnx", "torch-export": "model.pt2", "safetensors": "model"}
# A network that takes long at its full size is exported at a small one.
HYPERPARAMETERS: dict[str, dict[str, Any]] = {}
ALONE = """
import sys
for name in ("fmnist_models", "search", "cluster"):
    sys.modules[name] = None
import json, numpy, torch
images = torch.from_numpy(numpy.load(sys.argv[2]))
"""


def source_of(network: str) -> Source:
    hyperparameters = HYPERPARAMETERS.get(network, {})
    torch.manual_seed(0)
    model = build_network(network, hyperparameters)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics that are not the fresh ones
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    config = ModelConfig(
        network=network,
        hyperparameters=hyperparameters,
        normalisation=Normalisation(0.28, 0.35),
        class_names=CLASS_NAMES,
        dataset="synthetic",
        temperature=1.7,
        distance_threshold=DISTANCE.threshold,
    )
    return Source(model=model.eval(), config=config, provenance=PROVENANCE, images=IMAGES, distance=DISTANCE)


@pytest.fixture(scope="module")
def customnet() -> Source:
    return source_of("customnet")


def here(source: Source) -> np.ndarray[Any, Any]:
    return source.classifier.predict(IMAGES).probabilities


def distance_here(source: Source) -> np.ndarray[Any, Any]:
    found = source.classifier.predict(IMAGES).distance
    assert found is not None
    return found


def run_alone(script: str, path: Path, folder: Path) -> Any:
    """What the script prints as JSON about a file, in a process that cannot import this project."""
    np.save(folder / "images.npy", IMAGES[:100])
    command = [sys.executable, "-c", ALONE + script, str(path), str(folder / "images.npy")]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_runs_as_onnx_on_any_number_of_images(network: str, tmp_path: Path) -> None:
    source = source_of(network)
    agreement = export_model(source, "onnx", output=tmp_path / "model.onnx")
    assert agreement.num_images == len(IMAGES)
    assert agreement.is_close
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (given,), (made, distance) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(uint8)", ["N", 28, 28])
    assert (made.name, made.type, made.shape) == ("probabilities", "tensor(float)", ["N", 10])
    assert (distance.name, distance.type, distance.shape) == ("distance", "tensor(float)", ["N"])
    expected, far = here(source), distance_here(source)
    for number in (1, 7, 100):
        found, distances = session.run(None, {"images": IMAGES[:number]})
        np.testing.assert_allclose(found, expected[:number], atol=1e-5)
        np.testing.assert_allclose(distances, far[:number], atol=1e-3)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == list(CLASS_NAMES)
    assert (metadata["network"], metadata["dataset"], metadata["trial"]) == (network, "synthetic", "7")
    assert json.loads(metadata["temperature"]) == 1.7
    assert json.loads(metadata["distance_threshold"]) == DISTANCE.threshold


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_runs_as_a_program_on_any_number_of_images(network: str, tmp_path: Path) -> None:
    source, path = source_of(network), tmp_path / "model.pt2"
    assert export_model(source, "torch-export", output=path).max_difference < 1e-6
    module = torch.export.load(path).module()
    for number in (1, 7, 100):
        found, distances = module(torch.from_numpy(IMAGES[:number]))
        np.testing.assert_allclose(found.detach(), here(source)[:number], atol=1e-5)
        np.testing.assert_allclose(distances, distance_here(source)[:number], atol=1e-3)


def test_a_program_runs_without_this_project(customnet: Source, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    export_model(customnet, "torch-export", output=path)
    script = """
extra = {"fmnist.json": ""}
module = torch.export.load(sys.argv[1], extra_files=extra).module()
print(json.dumps([extra, *(module(images[:number])[0].tolist() for number in (1, 7, 100))]))
"""
    extra, *found = run_alone(script, path, tmp_path)
    for number, probabilities in zip((1, 7, 100), found, strict=True):
        np.testing.assert_allclose(probabilities, here(customnet)[:number], atol=1e-5)
    assert json.loads(extra["fmnist.json"])["experiment"] == "mine"


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_is_loaded_again_from_its_folder(network: str, tmp_path: Path) -> None:
    source = source_of(network)
    assert export_model(source, "safetensors", output=tmp_path / "model").max_difference == 0
    classifier, config = load_classifier(tmp_path / "model")
    assert config == source.config
    found = classifier.predict(IMAGES)
    np.testing.assert_array_equal(found.probabilities, here(source))
    assert found.distance is not None
    np.testing.assert_array_equal(found.distance, distance_here(source))


def test_the_folder_is_read_with_safetensors_alone(customnet: Source, tmp_path: Path) -> None:
    export_model(customnet, "safetensors", output=tmp_path / "model")
    script = """
from safetensors import safe_open
with safe_open(sys.argv[1] + "/model.safetensors", "pt") as file:
    sizes = {name: list(file.get_tensor(name).shape) for name in file.keys()}
    print(json.dumps([file.metadata(), sizes, json.load(open(sys.argv[1] + "/config.json"))]))
"""
    metadata, sizes, raw = run_alone(script, tmp_path / "model", tmp_path)
    assert metadata["experiment"] == "mine"
    references = sizes.pop("training_distance.references")
    assert references == [200, 147]
    assert sizes == {name: list(tensor.shape) for name, tensor in customnet.model.state_dict().items()}
    assert raw["class_names"] == list(CLASS_NAMES)
    assert (raw["temperature"], raw["distance_threshold"]) == (1.7, DISTANCE.threshold)


@pytest.mark.parametrize("format_name", FORMATS)
def test_nothing_of_this_machine_is_in_the_file_and_nothing_beside_it(
    format_name: str, customnet: Source, tmp_path: Path
) -> None:
    output = tmp_path / NAMES[format_name]
    export_model(customnet, format_name, output=output)
    assert [path.name for path in tmp_path.iterdir()] == [output.name]
    content = b"".join(path.read_bytes() for path in [output, *output.rglob("*")] if path.is_file())
    for secret in (str(Path(export.__file__).parent), str(Path.home()), sys.prefix, "site-packages", ".py"):
        assert secret.encode() not in content


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_model_that_predicts_something_else_is_not_left_behind(
    format_name: str, customnet: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, offset = classifier.predict_probabilities, [0.0]

    def predict(*arguments: Any, **more: Any) -> np.ndarray[Any, Any]:
        offset[0] += 2e-4  # in one format the model is run by this twice
        return honest(*arguments, **more) + np.float32(offset[0])

    monkeypatch.setattr(classifier, "predict_probabilities", predict)
    with pytest.raises(ExportError, match=r"0 of 260 test images another class, and probabilities that differ by"):
        export_model(customnet, format_name, output=tmp_path / NAMES[format_name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_model_with_other_distances_is_not_left_behind(
    format_name: str, customnet: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, offset = classifier.distances, [0.0]

    def measure(*arguments: Any) -> np.ndarray[Any, Any]:
        offset[0] += 0.02
        return honest(*arguments) + np.float32(offset[0])

    monkeypatch.setattr(classifier, "distances", measure)
    with pytest.raises(ExportError, match=r"distances differ by up to 0\.0"):
        export_model(customnet, format_name, output=tmp_path / NAMES[format_name])
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_are_none_are_not_taken_for_close(tmp_path: Path) -> None:
    source = source_of("customnet")
    nn.init.constant_(source.model.get_parameter("fc.bias"), torch.nan)
    with pytest.raises(ExportError, match="differ by up to nan"):
        export_model(source, "torch-export", output=tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_older_export_is_replaced_and_anything_else_stays(
    format_name: str, customnet: Source, tmp_path: Path
) -> None:
    output = tmp_path / NAMES[format_name]
    for _ in range(2):
        export_model(customnet, format_name, output=output)
    output.rename(tmp_path / "first")
    output.mkdir()
    Path(output, "precious").write_text("mine")
    with pytest.raises((ExportError, OutputError), match=r"name another|it is a folder; valid: a file"):
        export_model(customnet, format_name, output=output)
    assert [path.name for path in output.iterdir()] == ["precious"]
    with pytest.raises(OutputError, match=f"there is no folder {tmp_path / 'none'}; make it first"):
        export_model(customnet, format_name, output=tmp_path / "none" / "model")
    with pytest.raises(ValueError, match="valid: onnx"):
        export_model(customnet, "pickle", output=output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", output.name]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_package_that_is_not_there_is_named_with_how_to_get_it(
    package: str, customnet: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=rf"pip install 'fmnist-search\[export\]' .*{package}"):
        export_model(customnet, "onnx", output=tmp_path / "model.onnx")
    assert export_model(customnet, "torch-export", output=tmp_path / "model.pt2").is_close


def test_what_the_exporter_cannot_do_is_one_message(
    customnet: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(onnx_file.torch.onnx, "export", fail)
    with pytest.raises(ExportError, match=r"cannot be exported as onnx: no such operation$"):
        export_model(customnet, "onnx", output=tmp_path / "model.onnx")

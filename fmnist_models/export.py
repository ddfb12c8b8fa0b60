"""Models for use without this project: made, held against the model they came from, and only then put in place."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fmnist_models.classifier import Classifier, Prediction
from fmnist_models.errors import ExportError
from fmnist_models.onnx_file import check_onnx, make_onnx, run_onnx
from fmnist_models.output import output_folder, replaced_file, write_output
from fmnist_models.program_file import make_program, run_program
from fmnist_models.saved_model import ModelConfig, is_saved_model, load_classifier, save_model
from fmnist_models.training_distance import LEAST_THRESHOLD, TrainingDistance

MAX_DIFFERENCE: Final = 1e-4
MAX_DISTANCE_DIFFERENCE: Final = 1e-2


@dataclass(frozen=True)
class FileFormat:
    """One file: ``make`` gives its content, ``run`` what it says of images; ``check`` that both can be done here."""

    suffix: str
    make: Callable[..., bytes]
    run: Callable[[bytes, npt.NDArray[np.uint8]], Prediction]
    check: Callable[[], None] = lambda: None


FILE_FORMATS: Mapping[str, FileFormat] = {
    "onnx": FileFormat(".onnx", make_onnx, run_onnx, check_onnx),
    "torch-export": FileFormat(".pt2", make_program, run_program),
}
SAFETENSORS: Final = "safetensors"
"""The one format that is a folder."""
FORMATS = (*FILE_FORMATS, SAFETENSORS)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How the exported model's probabilities compare with those of the model itself, over all images and classes, and
    its distances to the training images, 0 where there are none."""

    num_images: int
    num_other_classes: int
    max_difference: float
    max_distance_difference: float

    @property
    def is_close(self) -> bool:
        return (
            not self.num_other_classes
            and self.max_difference <= MAX_DIFFERENCE  # never so for NaN
            and self.max_distance_difference <= MAX_DISTANCE_DIFFERENCE
        )


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is exported: a model, what belongs to it, where it came from, and images ``(N, 28, 28)`` to check it by.

    ``distance``: with ``config.distance_threshold``.
    """

    model: nn.Module
    config: ModelConfig
    provenance: Mapping[str, str]
    images: npt.NDArray[np.uint8]
    distance: TrainingDistance | None = None

    @property
    def classifier(self) -> Classifier:
        return Classifier(
            self.model, self.config.normalisation, temperature=self.config.temperature, distance=self.distance
        )


def export_model(source: Source, format_name: str, *, output: Path) -> Agreement:
    """Writes the model to the file ``output``, or the folder in case of ``safetensors``, if it predicts as it should.

    An older export of that name is replaced, at once.

    Raises:
        ExportError: it cannot be exported, or differs by more than ``MAX_DIFFERENCE`` or in one class; or
            ``output`` is something else. Nothing is left behind.
        OutputError: ``output`` cannot be written.
        OSError: the folder cannot be written.
    """
    check_output(format_name, output)
    if format_name == SAFETENSORS:
        return _export_folder(source, output_folder(output))
    file_format = FILE_FORMATS[format_name]
    with _explained(format_name):
        content = file_format.make(source.classifier, metadata={**_describe(source.config), **source.provenance})
        exported = file_format.run(content, source.images)
    agreement = _compare(source, exported, format_name)
    write_output(output, content)
    return agreement


def check_output(format_name: str, output: Path) -> None:
    """Makes sure, before anything is computed, that what is to be made can be, and be put there.

    Raises:
        ExportError: it cannot, or the folder ``output`` holds something else than an exported model.
        OutputError: ``output`` cannot be written.
        ValueError: there is no such format.
    """
    if format_name not in FORMATS:
        raise ValueError(f"there is no format {format_name!r}; valid: {', '.join(FORMATS)}")
    if format_name in FILE_FORMATS:
        replaced_file(output)
        FILE_FORMATS[format_name].check()
        return
    folder = output_folder(output)
    if folder.exists() and (not is_saved_model(folder) or len(os.listdir(folder)) > 2):
        raise ExportError(f"{output} is there and holds something else than an exported model; name another --output")


def _describe(config: ModelConfig) -> dict[str, str]:
    """What whoever has nothing but the file must know."""
    return {
        "input": "images: uint8 (N, 28, 28), 0 is background, a bright garment on it",
        "output": "probabilities: float32 (N, 10), in the order of class_names" + _describe_distance(config),
        "temperature": json.dumps(config.temperature),
        "distance_threshold": json.dumps(config.distance_threshold),
        "class_names": json.dumps(config.class_names),
        "dataset": config.dataset,
        "network": config.network,
        "hyperparameters": json.dumps(dict(config.hyperparameters)),
        "normalisation": json.dumps({**dataclasses.asdict(config.normalisation), "where": "inside, of pixels / 255"}),
    }


def _describe_distance(config: ModelConfig) -> str:
    if config.distance_threshold is None:
        return ""
    return (
        "; distance: float32 (N,), to the nearest of the training images; an image with a distance above "
        "distance_threshold does not look like them, whatever its probabilities are"
    )


def _export_folder(source: Source, output: Path) -> Agreement:
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.", suffix=".part") as temporary:
        made, older = Path(temporary, "new"), Path(temporary, "old")
        save_model(made, source.model, source.config, metadata=source.provenance, distance=source.distance)
        agreement = _compare(source, load_classifier(made)[0].predict(source.images), SAFETENSORS)
        if output.exists():
            output.rename(older)
        try:
            made.rename(output)
        except OSError:
            if older.exists():
                older.rename(output)
            raise
    return agreement


def _compare(source: Source, exported: Prediction, format_name: str) -> Agreement:
    own = source.classifier.predict(source.images)
    agreement = Agreement(
        num_images=len(own.probabilities),
        num_other_classes=int((own.probabilities.argmax(1) != exported.probabilities.argmax(1)).sum()),
        max_difference=float(np.abs(own.probabilities - exported.probabilities).max()),
        max_distance_difference=_distance_difference(own, exported),
    )
    if not agreement.is_close:
        raise ExportError(
            f"nothing was written, as the model in {format_name} differs from the one here: it gives "
            f"{agreement.num_other_classes} of {agreement.num_images} test images another class, and probabilities "
            f"that differ by up to {agreement.max_difference:.2g} (at most {MAX_DIFFERENCE:g} is expected); distances "
            f"differ by up to {agreement.max_distance_difference:.2g} (at most {MAX_DISTANCE_DIFFERENCE:g})"
        )
    return agreement


def _distance_difference(own: Prediction, exported: Prediction) -> float:
    if own.distance is None or exported.distance is None:
        return 0.0 if own.distance is exported.distance else math.inf
    # Between nearly equal images rounding decides, and no threshold is that low.
    ours, theirs = np.maximum(own.distance, LEAST_THRESHOLD), np.maximum(exported.distance, LEAST_THRESHOLD)
    return float(np.abs(ours - theirs).max())


@contextlib.contextmanager
def _explained(format_name: str) -> Iterator[None]:
    """Exporters warn of much that is right, and raise anything; whether all went well is seen by the predictions."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    except (ExportError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(f"the model cannot be exported as {format_name}: {reason}") from error
    finally:
        logging.disable(logging.NOTSET)

"""A classifier as a ``torch.export`` program (``.pt2``), which needs torch and none of this project's code."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fmnist_models.classifier import BATCH, Classifier, Prediction, WithDistance
from fmnist_models.prediction import as_tensor

METADATA = "fmnist.json"
"""The extra file of the archive that holds the metadata, as one JSON object of texts."""


def make_program(classifier: Classifier, *, metadata: Mapping[str, str]) -> bytes:
    """The file's content; any number of images at once can be put in. The program gives probabilities, or a pair of
    probabilities and distances if the classifier has a distance."""
    program = torch.export.export(
        classifier if classifier.distance is None else WithDistance(classifier),
        (example_images(),),
        dynamic_shapes={"images": {0: torch.export.Dim("N")}},
    )
    for node in program.graph_module.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(dict(metadata), indent=2)})
    return file.getvalue()


def run_program(content: bytes, images: npt.NDArray[np.uint8]) -> Prediction:
    """Probabilities, and distances if the program gives them, of images ``(N, 28, 28)``; for files just made, as it
    trusts what they hold."""
    module = torch.export.load(io.BytesIO(content)).module()
    with torch.inference_mode():
        made = [module(part) for part in torch.split(as_tensor(images), BATCH)]
    parts = [one if isinstance(one, tuple) else (one,) for one in made]
    probabilities, *distance = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return Prediction(probabilities, distance[0] if distance else None)


def example_images() -> Tensor:
    """Two, as torch takes a dimension of one for one that is always so."""
    return torch.zeros(2, 28, 28, dtype=torch.uint8)

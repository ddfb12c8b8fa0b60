"""A classifier as a ``torch.export`` program (``.pt2``), which needs torch and none of this project's code."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fmnist_models.classifier import BATCH, Classifier
from fmnist_models.prediction import as_tensor

METADATA = "fmnist.json"
"""The extra file of the archive that holds the metadata, as one JSON object of texts."""


def make_program(classifier: Classifier, *, metadata: Mapping[str, str]) -> bytes:
    """The file's content; any number of images at once can be put in."""
    program = torch.export.export(
        classifier, (example_images(),), dynamic_shapes={"images": {0: torch.export.Dim("N")}}
    )
    for node in program.graph_module.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: json.dumps(dict(metadata), indent=2)})
    return file.getvalue()


def run_program(content: bytes, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Probabilities ``(N, 10)`` of images ``(N, 28, 28)``; for files just made, as it trusts what they hold."""
    module = torch.export.load(io.BytesIO(content)).module()
    with torch.inference_mode():
        parts = [module(part) for part in torch.split(as_tensor(images), BATCH)]
    probabilities: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return probabilities


def example_images() -> Tensor:
    """Two, as torch takes a dimension of one for one that is always so."""
    return torch.zeros(2, 28, 28, dtype=torch.uint8)

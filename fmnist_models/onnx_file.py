"""A classifier as an ONNX file, which many programs and languages run."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from fmnist_models.classifier import BATCH, Classifier, Prediction, WithDistance
from fmnist_models.errors import ExportError
from fmnist_models.program_file import example_images

INPUT, OUTPUTS = "images", ("probabilities", "distance")


def make_onnx(classifier: Classifier, *, metadata: Mapping[str, str]) -> bytes:
    """The file's content; any number of images at once can be put in. ``distance`` is an output if the classifier has
    one.

    Raises:
        ExportError: a package that it takes is not installed.
    """
    check_onnx()
    exported = torch.onnx.export(
        classifier if classifier.distance is None else WithDistance(classifier),
        (example_images(),),
        input_names=[INPUT],
        output_names=list(OUTPUTS if classifier.distance is not None else OUTPUTS[:1]),
        dynamic_shapes={"images": {0: "N"}},
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info):
        del part.metadata_props[:]  # paths of this machine, and how torch came to each operation
    for name, text in metadata.items():
        model.metadata_props.add(key=name, value=text)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def run_onnx(content: bytes, images: npt.NDArray[np.uint8]) -> Prediction:
    """Probabilities, and distances if the file gives them, of images ``(N, 28, 28)``, from ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    starts = range(0, len(images), BATCH)
    parts = [session.run(None, {INPUT: images[start : start + BATCH]}) for start in starts]
    probabilities, *distance = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Prediction(probabilities, distance[0] if distance else None)


def check_onnx() -> None:
    """Makes sure that what making and running ONNX files takes is there.

    Raises:
        ExportError: it is not; says how to get it.
    """
    try:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            importlib.import_module(package)
    except ImportError as error:
        raise ExportError(f"--format onnx needs pip install 'fmnist-search[export]' ({error})") from error

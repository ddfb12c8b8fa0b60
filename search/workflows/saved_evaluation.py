"""The files of a test result: its tables, its picture and the model that was tested."""

from __future__ import annotations

import json

import pandas as pd
from torch import nn

from fmnist_models.data import CLASS_NAMES, Normalisation
from fmnist_models.errors import printable
from fmnist_models.figures import draw_confusion_matrix
from fmnist_models.files import write_together
from fmnist_models.saved_model import ModelConfig, save_model
from fmnist_models.training_distance import TrainingDistance
from search.configuration.space import MODEL
from search.records.evaluation_file import Evaluation
from search.records.experiment import EvaluationFiles, Experiment
from search.records.predictions import Predictions, format_predictions


def save_evaluation(evaluation: Evaluation, predictions: Predictions, files: EvaluationFiles) -> None:
    """Writes the tables, the picture and, last, the summary."""
    scores, on = evaluation.scores, evaluation.dataset
    rows = pd.Index(CLASS_NAMES, name=f"true \\ predicted ({on})")
    title = (
        f"{evaluation.experiment}, trial {evaluation.trial} ({evaluation.hyperparameters[MODEL]}): "
        f"{scores.accuracy:.1%} of {scores.num_images:,} {on} test images"
    )
    shown = printable(title).replace("$", r"\$")  # between two of them matplotlib would read formulas
    write_together(
        {
            files.predictions: format_predictions(predictions, class_names=CLASS_NAMES, dataset=on),
            files.per_class: evaluation.per_class().assign(dataset=on).to_csv(index=False),
            files.confusion_matrix: pd.DataFrame(scores.confusion, index=rows, columns=CLASS_NAMES).to_csv(),
            files.confusion_picture: draw_confusion_matrix(scores.confusion, class_names=CLASS_NAMES, title=shown),
            files.summary: json.dumps(evaluation.to_dict(), indent=2) + "\n",
        }
    )


def save_best_model(
    experiment: Experiment,
    evaluation: Evaluation,
    model: nn.Module,
    *,
    normalisation: Normalisation,
    distance: TrainingDistance,
) -> None:
    """Writes the evaluated model, and what is needed to use it, to the experiment's ``best`` folder."""
    model_config = ModelConfig(
        network=evaluation.hyperparameters[MODEL],
        hyperparameters={name: value for name, value in evaluation.hyperparameters.items() if name != MODEL},
        normalisation=normalisation,
        class_names=CLASS_NAMES,
        dataset=evaluation.dataset,
        temperature=1.0 if evaluation.temperature is None else evaluation.temperature,
        distance_threshold=distance.threshold,
    )
    folder, metadata = experiment.best_weights.parent, {"epoch": str(evaluation.epoch)}
    save_model(folder, model, model_config, metadata=metadata, distance=distance)

"""What MLflow runs to use a registered model; it takes this file and ``fmnist_models`` along, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class FashionMnistModel(PythonModel):
    """Images ``(N, 28, 28)`` uint8, 0 is background, to the probabilities of all classes, ``(N, 10)`` float32."""

    def load_context(self, context: PythonModelContext) -> None:
        from fmnist_models.saved_model import load_classifier

        self._classifier, _ = load_classifier(Path(context.artifacts["best"]))

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: Any = None) -> Any:
        import torch

        with torch.inference_mode():
            return self._classifier(torch.from_numpy(np.array(model_input, dtype=np.uint8))).numpy()


set_model(FashionMnistModel())

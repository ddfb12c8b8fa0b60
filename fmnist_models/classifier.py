"""A network with normalisation and calibration: grey pixels in, calibrated probabilities out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from fmnist_models.data import Normalisation
from fmnist_models.prediction import normalise, predict_probabilities
from fmnist_models.training_distance import TrainingDistance, distances

BATCH = 250
"""Images that a classifier is given at once, few enough for the largest network."""


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of N images: ``probabilities`` ``(N, 10)`` float32, and ``distance`` ``(N,)`` float32 to
    the training images (``TrainingDistance``), ``None`` for a model that was saved without a threshold."""

    probabilities: npt.NDArray[np.float32]
    distance: npt.NDArray[np.float32] | None


class Classifier(nn.Module):
    """``images`` ``(N, 28, 28)`` uint8, bright on black, to ``probabilities`` ``(N, 10)`` float32; for inference.

    Scores are divided by ``temperature`` before softmax. ``distance(images)``, if not ``None``, gives the distance of
    each image to the training images. An image above ``distance.threshold`` does not look like them: ignore its
    probabilities.
    """

    def __init__(
        self,
        network: nn.Module,
        normalisation: Normalisation,
        *,
        temperature: float = 1.0,
        distance: TrainingDistance | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = float(temperature)
        self.distance = distance
        self._normalisation = normalisation
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(normalise(images, self._normalisation))
        return (scores / self.temperature).softmax(1)

    def predict(self, images: npt.NDArray[np.uint8]) -> Prediction:
        """The same for any number of images ``(N, 28, 28)``, on the CPU, with their distances."""
        probabilities = predict_probabilities(
            self.network, images, normalisation=self._normalisation, temperature=self.temperature
        )
        return Prediction(probabilities, None if self.distance is None else distances(self.distance, images))


class WithDistance(nn.Module):
    """``images`` ``(N, 28, 28)`` uint8 to ``probabilities`` ``(N, 10)`` and ``distance`` ``(N,)``, both float32."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        assert classifier.distance is not None
        self.classifier = classifier
        self.distance = classifier.distance
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.classifier(images), self.distance(images)

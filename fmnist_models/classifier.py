"""A network with all that stands around it: from grey pixels to probabilities, as other programs want it."""

from __future__ import annotations

from torch import Tensor, nn

from fmnist_models.data import Normalisation
from fmnist_models.prediction import normalise


class Classifier(nn.Module):
    """``images`` ``(N, 28, 28)`` uint8, bright on black, to ``probabilities`` ``(N, 10)`` float32; for inference."""

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self._normalisation = normalisation
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(normalise(images, self._normalisation))
        return scores.softmax(1)

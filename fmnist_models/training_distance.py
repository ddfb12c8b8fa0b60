"""Whether an image looks like the training images: its distance to the nearest of them.

The distance looks at the image alone, so it is the same for every network, and needs none. On Fashion-MNIST it finds
digits and drawn shapes that networks take for garments with high confidence; tests/test_doubt.py states shares.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

FLAGGED_SHARE = 0.05
"""Share of the validation images that are above the threshold."""
_NUM_REFERENCES = 2000
_CELL = 4  # pixels a side
_NUM_FEATURES = 3 * (28 // _CELL) ** 2
_BRIGHTNESS_WEIGHT = 2.0
_LEAST_SLOPE = 0.02  # five grey levels, below which slopes count as noise
_MIDDLE_SLOPE = 2.0  # keeps features near 0, where differences of squares lose fewer digits
LEAST_THRESHOLD = 0.1
"""No threshold is lower: rounding alone puts equal images some hundredths apart."""
_BATCH = 1000


class TrainingDistance(nn.Module):
    """Images ``(N, 28, 28)`` uint8 to their distance, ``(N,)`` float32, to the nearest of ``references``.

    An image is seen as 7x7 cells of 4x4 pixels: of each the mean brightness, and the logarithms of the mean absolute
    differences between neighbouring pixels, horizontally and vertically. The distance is Euclidean.

    Args:
        references: ``(R, 147)`` float16, what ``describe`` makes of R training images.
        threshold: distance above which an image does not look like the training images.

    Raises:
        ValueError: ``references`` have another shape, or a number is not finite.
    """

    def __init__(self, references: Tensor, *, threshold: float) -> None:
        super().__init__()
        is_table = references.dim() == 2 and len(references) > 0 and references.shape[1] == _NUM_FEATURES
        if not (is_table and references.dtype == torch.float16 and bool(references.isfinite().all())):
            raise ValueError(
                f"references must be finite float16 (R, {_NUM_FEATURES}), but got {references.dtype} "
                f"{tuple(references.shape)}"
            )
        if not (math.isfinite(threshold) and threshold > 0):
            raise ValueError(f"threshold must be above 0, but got {threshold}")
        self.references: Tensor
        self.register_buffer("references", references)
        self.threshold = float(threshold)

    def forward(self, images: Tensor) -> Tensor:
        features, references = describe(images), self.references.float()
        squares = features.square().sum(1, keepdim=True) + references.square().sum(1)
        nearest = (squares - 2 * features @ references.t()).amin(1)
        return nearest.clamp_min(0).sqrt()


def describe(images: Tensor) -> Tensor:
    """Images ``(N, 28, 28)`` uint8 to the features, ``(N, 147)`` float32, between which distances are measured."""
    pixels = images.unsqueeze(1).float() / 255
    across = (functional.pad(pixels, (0, 1))[:, :, :, 1:] - pixels).abs()
    down = (functional.pad(pixels, (0, 0, 0, 1))[:, :, 1:] - pixels).abs()
    slopes = functional.avg_pool2d(torch.cat([across, down], 1), _CELL)
    brightness = functional.avg_pool2d(pixels, _CELL)
    parts = [_BRIGHTNESS_WEIGHT * brightness, (slopes + _LEAST_SLOPE).log() + _MIDDLE_SLOPE]
    return torch.cat(parts, 1).flatten(1)


def distances(module: TrainingDistance, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Distances ``(N,)`` float32 of images ``(N, 28, 28)``, with the module on the CPU."""
    with torch.inference_mode():
        parts = [module(part) for part in torch.split(torch.from_numpy(np.array(images)), _BATCH)]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def measure_distance(train: npt.NDArray[np.uint8], validation: npt.NDArray[np.uint8]) -> TrainingDistance:
    """The distance to the first 2,000 images ``train``, with the threshold that at most ``FLAGGED_SHARE`` of the images
    ``validation``, which are none of them, are above; both ``(N, 28, 28)``, N ≥ 1."""
    references = describe(torch.from_numpy(np.array(train[:_NUM_REFERENCES]))).half()
    found = np.sort(distances(TrainingDistance(references, threshold=1.0), validation))
    allowed = int(FLAGGED_SHARE * len(found))
    threshold = max(float(found[len(found) - 1 - allowed]), LEAST_THRESHOLD)
    return TrainingDistance(references, threshold=threshold)

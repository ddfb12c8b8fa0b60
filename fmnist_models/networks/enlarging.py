"""Images made larger for networks that were drawn for ImageNet's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from fmnist_models.hyperparameters import Options

SMALL, LARGE = 28, 227
INPUT_SIZES = Options((SMALL, LARGE))


def enlarge(images: Tensor, *, size: int) -> Tensor:
    """``(B, 1, 28, 28)`` float to ``(B, 1, size, size)``, bilinear, on the device where the batch is."""
    if images.shape[-1] == size:
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)

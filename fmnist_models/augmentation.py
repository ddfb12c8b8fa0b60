"""Augmentation of a whole batch at once, on the device where the batch lives."""

from __future__ import annotations

import torch
from torch import Tensor

from fmnist_models.recipe import Recipe

_ERASED_AREA = (0.02, 0.33)  # share of the image, the range of Zhong et al. 2020, Table 1
_ERASED_LOG_ASPECT = (-1.2039728164672852, 1.193922519683838)  # of 0.3 and 3.3, rounded to float32


def changes_images(recipe: Recipe) -> bool:
    """Whether ``augment`` does anything."""
    return bool(recipe.flip or recipe.shift or recipe.erase)


def augment(images: Tensor, recipe: Recipe) -> Tensor:
    """Flips, shifts and erases each of ``images`` ``(B, 28, 28)`` uint8 by itself, as the recipe says.

    Randomness comes from torch's global state. What moves in at an edge, and what is erased, is black (0), which is
    Fashion-MNIST's background.
    """
    if recipe.flip:
        images = _flip(images)
    if recipe.shift:
        images = _shift(images, recipe.shift)
    if recipe.erase:
        images = _erase(images, recipe.erase)
    return images


def _flip(images: Tensor) -> Tensor:
    chosen = torch.rand(len(images), 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(2), images)


def _shift(images: Tensor, pixels: int) -> Tensor:
    count, height, width = images.shape
    padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
    down, right = torch.randint(0, 2 * pixels + 1, (2, count), device=images.device)
    rows = down[:, None] + torch.arange(height, device=images.device)
    columns = right[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]]


def _erase(images: Tensor, probability: float) -> Tensor:
    count, height, width = images.shape
    area = _uniform(count, *_ERASED_AREA, images.device) * height * width
    aspect = torch.exp(_uniform(count, *_ERASED_LOG_ASPECT, images.device))
    tall = (area * aspect).sqrt().clamp(1, height).round()
    wide = (area / aspect).sqrt().clamp(1, width).round()
    top = (torch.rand(count, device=images.device) * (height - tall + 1)).floor()
    left = (torch.rand(count, device=images.device) * (width - wide + 1)).floor()
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_columns = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    chosen = torch.rand(count, 1, 1, device=images.device) < probability
    return images.masked_fill(in_rows[:, :, None] & in_columns[:, None, :] & chosen, 0)


def _uniform(count: int, low: float, high: float, device: torch.device) -> Tensor:
    return torch.rand(count, device=device) * (high - low) + low

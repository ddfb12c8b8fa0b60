"""The training loop that an expert writes for one CPU core: no `DataLoader`, images in memory as normalised tensors,
convolutions in channels_last, fused AdamW.

As in "Channels Last Memory Format in PyTorch" (docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html)
and the "Performance Tuning Guide" (docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html); bf16 by
`torch.autocast`. The network is the published one, with our fresh weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.configurations import BATCH_SIZE
from benchmarks.peers.job import TRAIN_INDICES, VALIDATION_INDICES, Job
from benchmarks.peers.model import build_model

_VALIDATION_BATCH = 512
_MEAN, _DEVIATION = 0.28604, 0.32025


@dataclass(frozen=True)
class Labelled:
    """``images``: float32, N x 1 x 28 x 28, normalised; ``labels``: int64, N."""

    images: Tensor
    labels: Tensor


def load_images(job: Job) -> tuple[Labelled, Labelled]:
    """The job's training and validation images."""
    from torchvision.datasets import FashionMNIST  # not above: processes that get the tensors need no torchvision

    dataset = FashionMNIST(job.data_dir, train=True, download=True)
    images = dataset.data.unsqueeze(1).float().div_(255).sub_(_MEAN).div_(_DEVIATION)
    kept, held_out = (torch.from_numpy(np.load(Path(job.folder, n))) for n in (TRAIN_INDICES, VALIDATION_INDICES))
    return Labelled(images[kept], dataset.targets[kept]), Labelled(images[held_out], dataset.targets[held_out])


def train(
    configuration: Mapping[str, float],
    number: int,
    job: Job,
    *,
    training: Labelled,
    validation: Labelled,
    precision: str = "fp32",
) -> Iterator[float]:
    """The validation accuracy after each epoch of a trial, on one thread; ``precision``: ``fp32`` or ``bf16``."""
    torch.set_num_threads(1)
    model = build_model(configuration, number, job).to(memory_format=torch.channels_last)
    optimizer = AdamW(
        model.parameters(), lr=configuration["lr"], weight_decay=configuration["weight_decay"], fused=True
    )
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    for _ in range(job.num_epochs):
        model.train()
        for batch in torch.randperm(len(training.labels)).split(BATCH_SIZE):
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = nn.functional.cross_entropy(model(training.images[batch]), training.labels[batch])
            loss.backward()
            optimizer.step()
        yield _validate(model, validation, autocast)


def _validate(model: nn.Module, validation: Labelled, autocast: torch.autocast) -> float:
    """The share of images that the model gets right."""
    model.eval()
    correct = 0
    with torch.inference_mode(), autocast:
        for images, labels in zip(
            validation.images.split(_VALIDATION_BATCH), validation.labels.split(_VALIDATION_BATCH), strict=True
        ):
            correct += int((model(images).argmax(1) == labels).sum())
    return correct / len(validation.labels)

"""The training loop of PyTorch's tutorials: torchvision's data set and transforms, a `DataLoader`, fp32.

As in "Quickstart" (docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html), with the transforms of Ray's
Fashion-MNIST example (docs.ray.io/en/latest/train/examples/pytorch/torch_fashion_mnist_example.html). The images are
those that our own search trains and validates on (`benchmarks/split.py` has written down which), and the fresh weights
are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FashionMNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks.configurations import BATCH_SIZE
from benchmarks.peers.job import TRAIN_INDICES, VALIDATION_INDICES, Job
from benchmarks.peers.model import build_model


def train(configuration: Mapping[str, float], number: int, job: Job) -> Iterator[float]:
    """The validation accuracy after each epoch of a trial, reported to the benchmark too."""
    if not job.num_epochs:
        job.report(number, 1, 0.5)
        yield 0.5
        return
    model = build_model(configuration, number, job)
    optimizer = build_optimizer(configuration, model)
    train_loader, validation_loader = loaders(job)
    for epoch in range(1, job.num_epochs + 1):
        train_one_epoch(model, train_loader, optimizer)
        accuracy = validate(model, validation_loader)
        job.report(number, epoch, accuracy)
        yield accuracy


def loaders(job: Job) -> tuple[DataLoader, DataLoader]:
    """Of the training and of the validation images."""
    transform = Compose([ToTensor(), Normalize((0.28604,), (0.32025,))])
    dataset = FashionMNIST(job.data_dir, train=True, download=True, transform=transform)
    kept, held_out = (np.load(Path(job.folder, name)).tolist() for name in (TRAIN_INDICES, VALIDATION_INDICES))
    train_loader = DataLoader(Subset(dataset, kept), batch_size=BATCH_SIZE, shuffle=True)
    return train_loader, DataLoader(Subset(dataset, held_out), batch_size=BATCH_SIZE)


def build_optimizer(configuration: Mapping[str, float], model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=configuration["lr"], weight_decay=configuration["weight_decay"])


def train_one_epoch(model: nn.Module, loader: DataLoader, optimizer: Optimizer) -> None:
    loss_fn = nn.CrossEntropyLoss()
    model.train()
    for images, labels in loader:
        loss = loss_fn(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def validate(model: nn.Module, loader: DataLoader) -> float:
    """The share of images that the model gets right."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in loader:
            correct += (model(images).argmax(1) == labels).sum().item()
    return correct / len(loader.dataset)

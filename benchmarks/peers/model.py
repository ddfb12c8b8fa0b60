"""CustomNet as its authors publish it, in layers of PyTorch alone, with the fresh weights of our own search.

Without torchvision, which a peer's processes need not load.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from benchmarks.peers.job import Job
from fmnist_models.networks import build_network
from fmnist_models.seeds import derive_seed


def build_model(configuration: Mapping[str, float], number: int, job: Job) -> nn.Module:
    """The network of trial ``number``, with fresh weights."""
    torch.manual_seed(derive_seed(derive_seed(job.seed, number), 0))
    fresh = build_network("customnet", {"dropout": configuration["dropout"]}).state_dict()
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.Dropout(configuration["dropout"])),
        *(nn.Flatten(), nn.Linear(128 * 7 * 7, 10)),
    )
    model.load_state_dict(dict(zip(model.state_dict(), fresh.values(), strict=True)))
    return model

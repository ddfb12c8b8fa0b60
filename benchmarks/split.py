"""Which images a job trains and validates with: found once, so that its contestants need no scikit-learn for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.peers.job import TRAIN_INDICES, VALIDATION_INDICES, Job
from fmnist_models.data import data_root, load_images


def write_split(job: Job) -> None:
    """Puts the indices into the job's folder, in the order in which our own search takes the images."""
    labels = load_images("fashion-mnist", "train", root=data_root(), size=job.num_images).labels
    kept, held_out = train_test_split(
        np.arange(job.num_images), test_size=job.validation_fraction, stratify=labels, random_state=job.seed
    )
    Path(job.folder).mkdir(parents=True, exist_ok=True)
    np.save(Path(job.folder, TRAIN_INDICES), np.sort(kept))
    np.save(Path(job.folder, VALIDATION_INDICES), np.sort(held_out))

"""What a fleet's nodes are told, wherever they run: environment variables, Ray's resources, labels."""

from __future__ import annotations

from cluster import heap
from cluster.deploy.sections import Workers
from cluster.deploy.settings import Settings

HOME = "/home/ray"
USER_ID = 1000
"""As Ubuntu's first user and Ray's own images have it, so that what is mounted from a host can be read."""

_STOP_WAIT_S = 30  # for a search that is stopped to save its state; Ray's default is 3


def environment(settings: Settings) -> dict[str, str]:
    """Name to value; no secrets, as Ray logs them."""
    storage = settings.storage
    study = {} if storage.study_storage is None else {"FMNIST_STUDY_STORAGE": storage.study_storage}
    return {
        "FMNIST_EXPERIMENTS_DIR": storage.experiments_dir,
        "FMNIST_DATA_DIR": storage.data_dir,
        **study,
        **heap.VARIABLES,
        "RAY_AUTH_MODE": "token",
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT_S),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def accelerators(settings: Settings, workers: Workers) -> dict[str, int]:
    """The resource by which a trial asks for a type of GPU; Ray adds it to a node itself, but not before it started
    one. https://docs.ray.io/en/latest/ray-core/scheduling/accelerators.html#accelerator-types
    """
    gpu_workers = settings.gpu_workers
    return {f"accelerator_type:{gpu_workers.accelerator_type}": 1} if gpu_workers is workers else {}


def labels(settings: Settings, workers: Workers) -> dict[str, str]:
    """By which a trial can ask for a kind of node: https://docs.ray.io/en/latest/ray-core/scheduling/labels.html"""
    market = {"ray.io/market-type": "spot" if workers.spot else "on-demand"}
    gpu_workers = settings.gpu_workers
    return market | ({"ray.io/accelerator-type": gpu_workers.accelerator_type} if gpu_workers is workers else {})

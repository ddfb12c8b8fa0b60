"""The command line of the search that a fleet is for."""

from __future__ import annotations

import shlex

from cluster.deploy.settings import Settings

_SPOT_RESTARTS = 100  # a trial that loses its node to somebody else has not failed


def entrypoint(settings: Settings) -> str:
    """What runs on the head, quoted for a shell."""
    job, storage = settings.job, settings.storage
    what = ["--preset", job.preset] if job.preset is not None else [str(job.config)]
    command = ["fmnist", "search", "run", *what, "--name", job.name, "--address", "auto"]
    command += ["--experiments-dir", storage.experiments_dir]
    overrides = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in job.set.items()}
    if any(workers.spot for workers in settings.workers.values()):
        overrides.setdefault("max_restarts", str(_SPOT_RESTARTS))
    if storage.study_storage is not None:
        overrides["study_storage"] = storage.study_storage
    return shlex.join(command + [part for key, value in overrides.items() for part in ("--set", f"{key}={value}")])

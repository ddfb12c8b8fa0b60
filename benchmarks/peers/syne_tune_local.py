"""Peer (c): Syne Tune's `LocalBackend`, a fresh process for each trial.

"Getting started" (github.com/syne-tune/syne-tune, README, and syne-tune.readthedocs.io/en/latest/getting_started.html):
a script that reports, `Tuner`, and `ASHA`; without early stopping `RandomSearch`; given configurations are
`points_to_evaluate`. It gives each trial one thread by itself.

In its favour: `sleep_time` is 0.1 s and not 5 s. Runs in the virtual environment of `syne_tune_venv.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.configurations import SPACE
from benchmarks.peers.job import Job

_SLEEP_S = 0.1


def main() -> None:
    job = Job.read(sys.argv[1])
    os.environ["SYNETUNE_FOLDER"] = f"{job.folder}/syne-tune"
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.config_space import loguniform, randint, uniform
    from syne_tune.optimizer.baselines import ASHA, RandomSearch

    config_space = {
        name: (loguniform if dimension.get("log") else uniform)(*dimension["float"])
        for name, dimension in SPACE.items()
    }
    config_space |= {"number": randint(0, 10**6), "job": str(job.path)}
    points = [{**configuration, "number": n} for n, configuration in enumerate(job.configurations)]
    if job.early_stopping:
        scheduler = ASHA(
            config_space,
            metric="val_accuracy",
            time_attr="epoch",
            max_t=job.num_epochs,
            do_minimize=False,
            reduction_factor=job.reduction_factor,
            points_to_evaluate=points,
        )
    else:
        scheduler = RandomSearch(config_space, metrics=["val_accuracy"], do_minimize=False, points_to_evaluate=points)
    tuner = Tuner(
        trial_backend=LocalBackend(entry_point=str(Path(__file__).with_name("syne_tune_trial.py"))),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_trials_started=len(points) - 1),  # "more than"
        wait_trial_completion_when_stopping=True,
        n_workers=job.num_trials_at_once,
        sleep_time=_SLEEP_S,
    )
    tuner.run()


if __name__ == "__main__":
    main()

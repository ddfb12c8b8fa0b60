"""The script that Syne Tune starts for each trial of peer (c)."""

from __future__ import annotations

from argparse import ArgumentParser

from syne_tune import Reporter

from benchmarks.configurations import SPACE
from benchmarks.peers.job import Job
from benchmarks.peers.plain import train


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("--number", type=int)
    parser.add_argument("--job")
    for name in SPACE:
        parser.add_argument(f"--{name}", type=float)
    arguments, _ = parser.parse_known_args()
    job = Job.read(arguments.job)
    configuration = {name: getattr(arguments, name) for name in SPACE}
    report = Reporter()
    if arguments.number >= len(job.configurations):  # one more than asked for may be started
        report(epoch=1, val_accuracy=0.0)
        return
    for epoch, accuracy in enumerate(train(configuration, arguments.number, job), start=1):
        report(epoch=epoch, val_accuracy=accuracy)


if __name__ == "__main__":
    main()

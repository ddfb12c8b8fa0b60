"""A whole search of many trials that do no work, with TPE and its journal, on a local Ray: what the last thousand cost
beside the first, the driver's memory, and, of trials of many epochs, how many are taken each second.

`python -m benchmarks.many_trials_on_ray [--trials 10000]`.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.no_work_trials import ends, our_ray, ours, seconds_after_first
from benchmarks.results import is_standard, keep
from search.running.slots import local_resources


def seconds_per_trial(ended: Sequence[float], *, at_once: int, stretch: int) -> list[float]:
    """Of each ``stretch`` of trials in the order in which they ended, at the seconds ``ended``; the first one counts
    from the end of the first ``at_once``, which waited for all that starts but once."""
    ended = sorted(ended)
    found = [(ended[stretch - 1] - ended[at_once - 1]) / (stretch - at_once)]
    marks = ended[stretch - 1 :: stretch]
    return [*found, *((end - start) / stretch for start, end in pairwise(marks))]


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    with our_ray():
        at_once = local_resources().cpus
        study = ours(arguments.long_trials, folder / "epochs", num_epochs=arguments.epochs)
        long_trial_s = seconds_after_first(ends(study), at_once=at_once)
        stretch = arguments.trials // 10
        ended = ends(ours(arguments.trials, folder / "trials"))
    seconds = seconds_per_trial(ended, at_once=at_once, stretch=stretch)
    return {
        "ms_per_trial": {f"from {stretch * number}": round(each * 1e3, 1) for number, each in enumerate(seconds)},
        "last_over_first": round(seconds[-1] / seconds[0], 2),
        "driver_peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "epochs_per_second": round(arguments.epochs / long_trial_s),
    }


def main() -> None:
    """Prints the figures as JSON, and keeps them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, help="of one epoch, for all figures but the last")
    parser.add_argument("--long-trials", type=int, default=20, help="of many epochs, for the last figure")
    parser.add_argument("--epochs", type=int, default=200, help="of each long trial")
    arguments = parser.parse_args()
    least = local_resources().cpus + 1
    if arguments.trials < 10 * least or arguments.long_trials < least or arguments.epochs < 1:
        parser.error(f"valid are --trials from {10 * least}, --long-trials from {least} and --epochs from 1")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(arguments, Path(folder))
    result = {"settings": vars(arguments), **measured}
    keep("many_trials_on_ray", result, is_standard=is_standard(parser, arguments))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

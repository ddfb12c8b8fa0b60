"""Run by its path: replaces itself by the command that it is given, which the system kills when its parent ends.

``python -I -S dies_with_parent.py PYTHON SCRIPT …``, from a process that has told its own number in ``RAY_RAYLET_PID``;
without one, a parent that ended before this program began is not noticed.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Does not return; ends at once where the parent has ended already."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux has it
    if prctl is not None:
        parent = int(os.environ.get("RAY_RAYLET_PID", os.getppid()))
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != parent:
            sys.exit()
    os.execv(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()

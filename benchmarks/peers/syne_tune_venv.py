"""A virtual environment of its own for Syne Tune, on top of the one that this runs in.

Not in the project's: Syne Tune wants xgboost, which wants NCCL for CUDA 12, and that would overwrite the file of the
NCCL for CUDA 13 that torch is linked with. Everything else it finds in the project's environment.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_VENV = Path(__file__).with_name(".venv")
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
_ALL_CONSTRAINTS = (_ROOT / "constraints.txt", CONSTRAINTS)


def ensure_python() -> Path:
    """The environment's Python; makes the environment first if it is not there or of other versions."""
    python, stamp, below = _VENV / "bin" / "python", _VENV / "up-to-date", sysconfig.get_path("purelib")
    wanted = "\n".join([below, *(path.read_text("utf-8") for path in _ALL_CONSTRAINTS)])
    if stamp.exists() and stamp.read_text("utf-8") == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(_VENV)], check=True)
    (own,) = _VENV.glob("lib/python*/site-packages")
    (own / "below.pth").write_text(f"{below}\n", encoding="utf-8")
    options = [option for path in _ALL_CONSTRAINTS for option in ("--constraint", str(path))]
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *options, "syne-tune"], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python

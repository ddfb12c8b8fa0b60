"""How the states of trials look in all charts: each by its colour, its symbol and its pattern."""

from __future__ import annotations

from typing import Any

from optuna.trial import TrialState

NAMES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
_SYMBOLS = {
    TrialState.COMPLETE: "circle",
    TrialState.PRUNED: "x-thin",
    TrialState.FAIL: "triangle-down-open",
    TrialState.RUNNING: "diamond-open",
}
PATTERNS = {
    TrialState.COMPLETE: "",
    TrialState.PRUNED: "/",
    TrialState.FAIL: "x",
    TrialState.RUNNING: ".",
}


def marker(state: TrialState, *, size: int = 8) -> dict[str, Any]:
    """Plotly's marker of a trial in this state."""
    colour = f"--{NAMES[state]}"
    return {"symbol": _SYMBOLS[state], "color": colour, "size": size, "line": {"color": colour, "width": 2}}

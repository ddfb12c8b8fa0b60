"""Loss and accuracy by epoch of each network's best trial, on its training and its validation images."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from fmnist_models.epoch import Epoch
from fmnist_models.errors import UserError
from fmnist_models.files import read_bounded
from search.records.epochs_file import parse_epochs
from search.records.fold_values import fold_epochs
from search.report.items import Chart, Missing, Numbers, thin
from search.report.material import Material
from search.report.wording import count, network, number

_MODEL = "model"
_FIGURES = {"customnet": "Figure 9", "resnet18": "Figure 10"}  # the paper has no other network
_MAX_NETWORKS = 4
_MAX_BYTES = 2**22
_MAX_EPOCHS = 300
_TITLE = "Loss and accuracy of the best trials"


def chart_training(material: Material) -> list[list[Chart] | Missing]:
    """A pair of charts for the best complete trial of each network, as Figures 9 and 10 of the paper."""
    best: dict[str, FrozenTrial] = {}
    for trial, _ in material.with_values(TrialState.COMPLETE):
        best.setdefault(str(trial.params.get(_MODEL, material.settings["space"].get(_MODEL))), trial)
    if not best:
        return [Missing(title=_TITLE, reason="No trial is complete yet.")]
    return [_charts(material, name, best[name]) for name in list(best)[:_MAX_NETWORKS]]


def _charts(material: Material, name: str, trial: FrozenTrial) -> list[Chart] | Missing:
    title = f"{network(name)}, trial {trial.number}"
    files = material.experiment.trial(trial.number)
    try:
        files.fetch()
        epochs = parse_epochs(read_bounded(files.epochs, max_bytes=_MAX_BYTES).decode())
    except FileNotFoundError:
        return Missing(title=title, reason=f"{files.location} has no epochs.csv.")
    except (UserError, OSError) as error:
        return Missing(title=title, reason=str(error))
    except ValueError as error:
        return Missing(title=title, reason=f"{files.epochs}: {error}")
    if not epochs:
        return Missing(title=title, reason=f"{files.epochs} holds no epoch.")
    note = "No search here sees test images before its end: validation is drawn."
    if name in _FIGURES:
        note = f"{_FIGURES[name]} of the paper shows test images. {note}"
    epochs = thin(epochs, limit=_MAX_EPOCHS)
    size = fold_epochs(trial)
    if size is not None:
        note = f"Fold after fold, of {count(size, 'epoch')} each, which are numbered through. {note}"
    return [
        _chart(f"{title}: {what}", what, trial.number, epochs, size=size, note=note if what == "accuracy" else "")
        for what in ("accuracy", "loss")
    ]


def _chart(title: str, what: str, trial: int, epochs: Sequence[Epoch], *, size: int | None, note: str) -> Chart:
    x = [epoch.epoch for epoch in epochs]
    train = [epoch.train_accuracy if what == "accuracy" else epoch.train_loss for epoch in epochs]
    val = [epoch.val_accuracy if what == "accuracy" else epoch.val_loss for epoch in epochs]
    best = max(val) if what == "accuracy" else min(val)
    # Every fold begins anew, with another part of the images.
    between = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": end + 0.5, "x1": end + 0.5, "y0": 0, "y1": 1}
        | {"line": {"color": "--line", "width": 2, "dash": "dot"}, "layer": "below"}
        for end in (x if size else ())
        if size and end % size == 0 and end < x[-1]
    ]
    traces = []
    for name, values, colour, dash, symbol in (
        ("training", train, "--c1", "solid", "circle"),
        ("validation", val, "--c2", "dash", "square"),
    ):
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": [number(v) for v in values]}
            | {"line": {"color": colour, "dash": dash, "width": 2}, "marker": {"symbol": symbol, "color": colour}}
            | {"hovertemplate": f"epoch %{{x}}: {name} {what} %{{y:.4f}}<extra></extra>"}
        )
    return Chart(
        key=f"training-{trial}-{what}",
        title=title,
        description=(
            f"{what.capitalize()} over {count(len(x), 'epoch')}: training from {train[0]:.3f} to {train[-1]:.3f}, "
            f"validation from {val[0]:.3f} to {val[-1]:.3f}, at best {best:.3f} in epoch {x[val.index(best)]}."
        ),
        traces=traces,
        layout={"xaxis": {"title": {"text": "epoch"}}, "yaxis": {"title": {"text": what}}, "shapes": between},
        height_px=320,
        numbers=Numbers(
            caption=title,
            header=("epoch", "training", "validation"),
            rows=[(str(e), f"{t:.4f}", f"{v:.4f}") for e, t, v in zip(x, train, val, strict=True)],
        ),
        note=note,
    )

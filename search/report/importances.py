"""Which hyperparameters mattered: what `search.review.importance` measures, as charts."""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import ExperimentError
from search.report.items import Chart, Missing, Numbers, joined
from search.report.material import Material
from search.report.wording import count, label, text
from search.review.importance import Importance, Importances, importances_among

_MAX_GROUPS = 6
_MAX_PARAMETERS = 30  # of a group
_FEW = 30
_TITLE = "Importances"


def read_importances(material: Material) -> Importances | str:
    """Those that ``fmnist importance`` shows, or why there are none."""
    try:
        return importances_among(
            material.trials, experiment=material.experiment.name, dataset=material.dataset, metric=material.metric
        )
    except ExperimentError as error:
        return str(error)


def chart_importances(found: Importances | str) -> list[Chart | Missing]:
    """A bar chart for each group of trials that share parameters."""
    if isinstance(found, str):
        return [Missing(title=_TITLE, reason=found)]
    groups: dict[tuple[str | None, int], list[Importance]] = {}
    for one in found.parameters:
        groups.setdefault((one.where, one.num_trials), []).append(one)
    if not groups:
        return [Missing(title=_TITLE, reason="No parameter was drawn.")]
    items: list[Chart | Missing] = []
    for position, members in enumerate(list(groups.values())[:_MAX_GROUPS]):
        told = [(one, one.share) for one in members if one.share is not None][:_MAX_PARAMETERS]
        if told:
            items.append(_chart(found, members, told, position))
        else:
            items.append(Missing(title=_title(members[0]), reason=_untold(members)))
    return items


def ranked(found: Importances | str) -> list[str]:
    """All parameters that an importance is known of, the most important first."""
    if isinstance(found, str):
        return []
    told = [(-one.share, one.name) for one in found.parameters if one.share is not None]
    return [name for _, name in sorted(told)]


def _title(one: Importance) -> str:
    return f"{_TITLE}: {'all complete trials' if one.where is None else text(one.where)}"


def _untold(members: Sequence[Importance]) -> str:
    untold = [f"{text(one.name, limit=40)} ({one.reason})" for one in members if one.share is None]
    if len(untold) > _MAX_PARAMETERS:
        untold[_MAX_PARAMETERS:] = [f"{len(untold) - _MAX_PARAMETERS:,} more"]
    return f"Not told: {', '.join(untold)}." if untold else ""


def _chart(
    found: Importances, members: Sequence[Importance], told: Sequence[tuple[Importance, float]], position: int
) -> Chart:
    shares = {one.name: share for one, share in told}
    num_trials = members[0].num_trials
    names = list(shares)
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [round(share, 4) for share in shares.values()],
        "y": list(range(len(names))),
        "text": [f"{share:.0%}" for share in shares.values()],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": "--complete"},
        "hovertemplate": "%{x:.1%}<extra></extra>",
    }
    largest = max(shares.values())
    return Chart(
        key=f"importances-{position}",
        title=_title(members[0]),
        description="Share of the variance of the values: "
        + ", ".join(f"{text(name)} {share:.0%}" for name, share in shares.items())
        + ".",
        traces=[bars],
        layout={
            "xaxis": {
                "title": {"text": "share of the variance"},
                "tickformat": ".0%",
                "range": [0, (largest or 1) * 1.15],
            },
            "yaxis": {
                "tickvals": list(range(len(names))),
                "ticktext": [label(name) for name in names],
                "autorange": "reversed",
            },
        },
        height_px=110 + 28 * len(names),
        numbers=Numbers(
            caption="Importances",
            header=("parameter", "share of the variance"),
            rows=[(text(name), f"{share:.1%}") for name, share in shares.items()],
        ),
        note=joined(
            (
                f"Optuna's fANOVA over {count(num_trials, 'complete trial')}"
                + (f", evenly chosen of {found.num_complete:,}." if found.num_trials < found.num_complete else "."),
                "Judged beside what these trials share with all others, so it does not add up to 100 %."
                if members[0].where is not None
                else "",
                "With so few it is a hint at most." if num_trials < _FEW else "",
                _untold(members),
            )
        ),
    )

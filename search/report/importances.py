"""Which hyperparameters mattered: what `search.review.importance` measures, as charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.errors import ExperimentError
from search.report.items import Chart, Missing, Numbers, joined
from search.report.material import Material
from search.report.wording import count, label, text
from search.review.fanova import Share
from search.review.importance import BY_LUCK, NOISE, Importance, Importances, importances_among

_MAX_GROUPS = 6
_MAX_PARAMETERS = 30  # of a group
_TITLE = "Importances"


def read_importances(material: Material) -> Importances | str:
    """Those that ``fmnist importance`` shows, or why there are none."""
    try:
        return importances_among(
            material.trials,
            experiment=material.experiment.name,
            dataset=material.dataset,
            metric=material.metric,
            space=material.settings["space"],
        )
    except ExperimentError as error:
        return str(error)


def chart_importances(found: Importances | str) -> list[Chart | Missing]:
    """A bar chart for each group of trials that share parameters."""
    if isinstance(found, str):
        return [Missing(title=_TITLE, reason=found)]
    if not found.parameters:
        return [Missing(title=_TITLE, reason=_cannot_vary(found) or "No parameter was drawn.")]
    groups: dict[tuple[str | None, int], list[Importance]] = {}
    for one in found.parameters:
        groups.setdefault((one.where, one.num_trials), []).append(one)
    items: list[Chart | Missing] = []
    for position, members in enumerate(list(groups.values())[:_MAX_GROUPS]):
        told = {one.name: one.measured for one in members[:_MAX_PARAMETERS] if one.measured is not None}
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


def _cannot_vary(found: Importances) -> str:
    shown = [text(name, limit=40) for name in found.cannot_vary[:_MAX_PARAMETERS]]
    return f"Not ranked, because the space allows only one value: {', '.join(shown)}." if shown else ""


def _noise(members: Sequence[Importance]) -> str:
    names = [text(one.name, limit=40) for one in members if one.is_noise][:_MAX_PARAMETERS]
    return f"{NOISE.capitalize()}: {', '.join(names)}." if names else ""


def _untold(members: Sequence[Importance]) -> str:
    untold = [f"{text(one.name, limit=40)} ({one.reason})" for one in members if one.share is None]
    if len(untold) > _MAX_PARAMETERS:
        untold[_MAX_PARAMETERS:] = [f"{len(untold) - _MAX_PARAMETERS:,} more"]
    return f"Not told: {', '.join(untold)}." if untold else ""


def _describe(name: str, share: Share) -> str:
    noise = f", {NOISE}" if share.is_noise else ""
    return f"{text(name)} {share.share:.0%} ({share.low:.0%} to {share.high:.0%}{noise})"


def _chart(found: Importances, members: Sequence[Importance], told: Mapping[str, Share], position: int) -> Chart:
    num_trials = members[0].num_trials
    shares = list(told.values())
    places = list(range(len(shares)))
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": [round(share.share, 4) for share in shares],
        "y": places,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [round(max(0.0, share.high - share.share), 4) for share in shares],
            "arrayminus": [round(max(0.0, share.share - share.low), 4) for share in shares],
            "color": "--ink",
        },
        "name": "share",
        "marker": {"color": "--complete"},
        "hovertemplate": "%{x:.1%}<extra></extra>",
    }
    by_luck = {
        "type": "scatter",
        "mode": "markers",
        "x": [round(share.shuffled, 4) for share in shares],
        "y": places,
        "name": "by luck",
        "marker": {"symbol": "diamond", "size": 9, "color": "--c2"},
        "hovertemplate": "by luck: %{x:.1%}<extra></extra>",
    }
    largest = max(max(share.high, share.shuffled) for share in shares)
    return Chart(
        key=f"importances-{position}",
        title=_title(members[0]),
        description=f"Share of the variance of the values: {'; '.join(_describe(*one) for one in told.items())}.",
        traces=[bars, by_luck],
        layout={
            "xaxis": {
                "title": {"text": "share of the variance, with its 95 % interval"},
                "tickformat": ".0%",
                "range": [0, (largest or 1) * 1.05],
            },
            "yaxis": {
                "tickvals": places,
                "ticktext": [f"{label(name)}  {share.share:.0%}" for name, share in told.items()],
                "autorange": "reversed",
            },
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        },
        height_px=130 + 28 * len(shares),
        numbers=Numbers(
            caption="Importances",
            header=("parameter", "share of the variance", "95 % interval", "by luck", ""),
            rows=[
                (
                    text(name),
                    f"{share.share:.1%}",
                    f"{share.low:.1%} to {share.high:.1%}",
                    f"{share.shuffled:.1%}",
                    NOISE if share.is_noise else "",
                )
                for name, share in told.items()
            ],
        ),
        note=joined(
            (
                f"fANOVA over {count(num_trials, 'complete trial')}"
                + (f", evenly chosen of {found.num_complete:,}." if found.num_trials < found.num_complete else "."),
                "Judged beside what these trials share with all others, so it does not add up to 100 %."
                if members[0].where is not None
                else "",
                f"{BY_LUCK.capitalize()}.",
                _noise(members),
                _untold(members),
                _cannot_vary(found) if members[0].where is None else "",
            )
        ),
    )

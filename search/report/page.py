"""The page as one file: sections, styles, scripts and Plotly in it, nothing outside it."""

from __future__ import annotations

import base64
import functools
import gzip
import json
import secrets
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from fmnist_models.errors import printable
from fmnist_models.files import write_aside
from fmnist_models.output import replaced_file, write_output
from search.errors import ExperimentError
from search.records.experiment import Experiment
from search.records.inventory import State
from search.report.content import Content
from search.report.cross_validation import describe_folds
from search.report.items import Chart, Item, Section
from search.report.material import Material, read_material
from search.report.summary import describe_state, summarise
from search.report.trials import TrialsTable, tabulate_trials
from search.report.wording import text


def write_report(experiment: Experiment, output: Path | None = None, *, data_dir: Path | None = None) -> Material:
    """Writes the page into the experiment, or to the file, pipe or device ``output``; gives what it was made from.

    Needs neither a cluster nor the network; pictures of images or of the model that cannot be made are named on the
    page, with the command that makes what they need.

    Raises:
        ConfigError: the configuration is missing or not YAML.
        ExperimentError: the configuration or the study is damaged, or the page cannot be written into the experiment.
        OutputError: ``output`` cannot be written.
    """
    if output is not None:
        replaced_file(output)  # before the work
    experiment.fetch()
    experiment.fetch_best()
    material = read_material(experiment)
    page = render_page(material, data_dir=data_dir)
    if output is not None:
        write_output(output, page)
        return material
    try:
        write_aside(experiment.report, page)
    except OSError as error:
        raise ExperimentError(
            f"{experiment.report} cannot be written: {error.strerror}; --output names another file"
        ) from error
    if experiment.store is not None:
        experiment.store.send(experiment.report)
    return material


def render_page(material: Material, *, data_dir: Path | None) -> str:
    """The page as HTML; ``data_dir``: where images are, as in `fmnist_models.data.data_root`."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    content = Content(material, data_dir)
    sections = content.sections()
    is_folds = material.is_cross_validation
    table = tabulate_trials(material)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    return environment.from_string(_resource("report.html.jinja")).render(
        title=f"{text(material.experiment.name)}: a {'cross-validation' if is_folds else 'search'} on "
        f"{text(material.dataset)}",
        name=text(material.experiment.name),
        is_running=material.state == State.RUNNING,
        is_synthetic=material.dataset == "synthetic",
        state=describe_state(material),
        sentences=describe_folds(material) if is_folds else summarise(material, content.evaluated),
        sections=sections,
        table=table,
        nonce=secrets.token_urlsafe(16),
        style=Markup(_resource("report.css")),
        script=Markup(_resource("report.js")),
        data=pack(_data(sections, table, material)),
        plotly=_packed_plotly(),
    )


def pack(value: Any) -> str:
    """Text, or a value as JSON, gzipped and in base64, which is safe anywhere in HTML and a third of Plotly's size."""
    content = value if isinstance(value, str) else json.dumps(value, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(content.encode(), mtime=0)).decode()


@functools.cache
def _packed_plotly() -> str:
    from plotly.offline import get_plotlyjs

    return pack(get_plotlyjs())


def _shown(value: Any) -> Any:
    """What no person can see, or what turns a line around, is written out, wherever it came from."""
    return (
        value if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable() else printable(value)
    )


def _data(sections: list[Section], table: TrialsTable, material: Material) -> dict[str, Any]:
    charts = [item for section in sections for item in _flat(section) if isinstance(item, Chart)]
    return {
        "charts": {chart.key: {"traces": chart.traces, "layout": chart.layout} for chart in charts},
        "columns": [{"name": column.name, "isNumber": column.is_number} for column in table.columns],
        "rows": table.rows,
        "metric": material.metric,
    }


def _flat(section: Section) -> Iterator[Item]:
    for item in section.items:
        yield from item if isinstance(item, (list, tuple)) else (item,)


def _resource(name: str) -> str:
    return resources.files("search.report").joinpath(name).read_text(encoding="utf-8")

"""A comparison as JSON, CSV and Markdown, every heading with what is less than the published protocol."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fmnist_models.data import CLASS_NAMES
from fmnist_models.errors import printable
from fmnist_models.files import write_aside
from search.reproduce.comparison import ModelComparison, Row
from search.reproduce.cost import format_duration
from search.reproduce.protocol import Protocol
from search.reproduce.published import PublishedTable
from search.reproduce.searched import Searched

AVERAGES = (
    "macro: the mean over classes; micro at 0.5: over all images and classes together, where a class counts as "
    "predicted if its probability is above 0.5 (Keras' Precision and Recall)"
)


@dataclass(frozen=True, kw_only=True)
class Document:
    """A finished reproduction.

    ``deviations``: in what all of it is not the published protocol, in words; ``substitutes``: network → in what that
    model is not, besides. ``searched``: results of searches that a person wants to see beside it.
    """

    table: PublishedTable
    protocol: Protocol
    seeds: tuple[int, ...]
    deviations: tuple[str, ...]
    substitutes: Mapping[str, str]
    findings: tuple[str, ...]
    models: tuple[ModelComparison, ...]
    searched: tuple[Searched, ...] = ()

    def heading(self, text: str, network: str | None = None) -> str:
        """The text, with every deviation of that network, or of all."""
        found = self._found(network)
        return f"{text} [NOT THE PUBLISHED PROTOCOL: {'; '.join(found)}]" if found else text

    def _found(self, network: str | None) -> list[str]:
        return [*self.deviations, *(what for name, what in self.substitutes.items() if network in (None, name))]

    @property
    def title(self) -> str:
        return self.heading(f"{self.table.name}: {self.table.title} of {self.table.source}")

    @property
    def tested_epoch(self) -> str:
        """Which epoch met the test images, in words."""
        scaled = f" (here at most {self.protocol.num_epochs} epochs)" if self.protocol.scale != 1 else ""
        return self.table.tested_epoch + scaled

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        table = self.table
        return {
            "table": table.name,
            "title": self.title,
            "source": table.source,
            "deviations": [*self.deviations, *self.substitutes.values()],
            "protocol": {
                **dataclasses.asdict(self.protocol),
                "training_images": table.training_images,
                "test_images": table.test_images,
                "tested_epoch": self.tested_epoch,
                "stated": list(table.stated),
                "assumed": list(table.assumed),
            },
            "seeds": list(self.seeds),
            "findings": list(self.findings),
            "models": [_model_dict(model) for model in self.models],
            "searched": [dataclasses.asdict(one) for one in self.searched],
        }

    def to_csv(self) -> str:
        """One row a number, with the deviations in each."""
        rows = [
            {
                "table": self.table.name,
                "model": model.model.title,
                "metric": row.metric,
                "class": row.name,
                "mean": row.mean,
                "std": row.std,
                "seeds": len(model.runs),
                "published": row.published,
                "difference": row.difference,
                "published in": row.where,
                "not the published protocol": "; ".join(self._found(model.model.network)),
            }
            for model in self.models
            for row in model.rows
        ]
        return pd.DataFrame(rows).to_csv(index=False, float_format="%.6g")

    def to_markdown(self) -> str:
        """The tables as a person reads them."""
        return (
            "\n\n".join(
                [
                    f"# {self.title}",
                    *self._introduction(),
                    *self._model_sections(),
                    *self._searched_section(),
                    *self._machines(),
                ]
            )
            + "\n"
        )

    def _introduction(self) -> list[str]:
        table, protocol = self.table, self.protocol
        scaled = f" (scale {protocol.scale:g}: {protocol.train_size:,} and {protocol.test_size:,} of them)"
        images = f"{table.training_images}; tested on {table.test_images}{scaled if protocol.scale != 1 else ''}"
        lines = [
            f"Trained on: {images}.",
            f"Tested epoch: {self.tested_epoch}.",
            f"Up to {protocol.num_epochs} epochs; recipe: {_settings(protocol.recipe)}; seeds: "
            f"{', '.join(map(str, self.seeds))}. Ours is mean ± standard deviation over seeds; {AVERAGES}.",
            f"## {self.heading('Protocol')}",
            "\n".join(
                [f"- stated: {line}" for line in table.stated] + [f"- assumed: {line}" for line in table.assumed]
            ),
        ]
        if self.findings:
            findings = "\n".join(f"{number}. {text}" for number, text in enumerate(self.findings, start=1))
            lines += ["## Findings about the published numbers", findings]
        return lines

    def _model_sections(self) -> list[str]:
        lines = []
        for comparison in self.models:
            title, runs, network = comparison.model.title, comparison.runs, comparison.model.network
            counts_title = f"{title}, confusion matrix over {len(runs)} seed(s), rows are true classes"
            epochs = ", ".join(str(run.tested_epoch) for run in runs)
            lines += [
                f"## {self.heading(title, network)}",
                f"`{network}` with {_settings(comparison.model.hyperparameters) or 'its defaults'}; "
                f"tested epoch: {epochs}; training took {', '.join(format_duration(run.train_s) for run in runs)}.",
                _markdown_table(
                    ["metric", "ours", "published", "difference", "published in"],
                    [[r.metric, *format_row(r), r.where] for r in comparison.rows if not r.name],
                ),
                f"### {self.heading(f'{title}, by class', network)}",
                _markdown_table(
                    ["class", "metric", "ours", "published", "difference", "published in"],
                    [[r.name, r.metric, *format_row(r), r.where] for r in comparison.rows if r.name],
                ),
                f"### {self.heading(counts_title, network)}",
                _markdown_table(
                    ["", *CLASS_NAMES],
                    [[name, *map(str, counts)] for name, counts in zip(CLASS_NAMES, comparison.confusion, strict=True)],
                ),
            ]
        return lines

    def _searched_section(self) -> list[str]:
        if not self.searched:
            return []
        rows = [
            [
                one.experiment,
                one.network,
                f"{one.accuracy:.4f} ({one.accuracy_low:.4f} to {one.accuracy_high:.4f})",
                f"{one.num_images:,}",
                one.dataset,
            ]
            for one in self.searched
        ]
        header = ["experiment", "network", "test accuracy (95 % interval)", "test images", "data set"]
        return ["## Searched results beside it", _markdown_table(header, rows)]

    def _machines(self) -> list[str]:
        runs = [run for model in self.models for run in model.runs]
        machines = dict.fromkeys(_settings(run.machine) for run in runs)
        versions = dict.fromkeys(_settings(run.versions) for run in runs)
        return ["## Machine and versions", "\n".join(f"- {line}" for line in (*machines, *versions))]


def format_row(row: Row) -> list[str]:
    """Ours, published and difference."""
    ours = f"{row.mean:.4f}" + (" (one seed)" if row.std is None else f" ± {row.std:.4f}")
    if row.published is None or row.difference is None:
        return [ours, "-", "-"]
    return [ours, f"{row.published:g}", f"{row.difference:+.4f}"]


def save_document(document: Document, folder: Path) -> tuple[Path, ...]:
    """Writes the three files and gives their paths.

    Raises:
        OSError: they cannot be written.
    """
    contents = {
        "comparison.csv": document.to_csv(),
        "comparison.md": document.to_markdown(),
        "comparison.json": json.dumps(document.to_dict(), indent=2) + "\n",
    }
    for name, content in contents.items():
        write_aside(folder / name, content)
    return tuple(folder / name for name in contents)


def _model_dict(comparison: ModelComparison) -> dict[str, Any]:
    model = comparison.model
    return {
        "network": model.network,
        "title": model.title,
        "hyperparameters": dict(model.hyperparameters),
        "rows": [{**dataclasses.asdict(row), "difference": row.difference} for row in comparison.rows],
        "printed": {
            **{name: dataclasses.asdict(number) for name, number in model.numbers.items()},
            **{name: [number.value for number in numbers] for name, numbers in model.classes.items()},
            "confusion": model.confusion,
        },
        "confusion": comparison.confusion,
        "runs": [dataclasses.asdict(run) for run in comparison.runs],
    }


def _settings(values: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _markdown_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """As it is shown in a table, whatever a stranger's experiment is called."""
    return html.escape(printable(text).replace("\n", " "), quote=False).replace("|", "\\|")

"""Every command that the README shows works, in the order in which it is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pandas as pd
import pytest

from cluster.folder import list_clusters
from cluster.local import LocalCluster

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

# What cannot run inside a test, and where it runs instead.
_ELSEWHERE = {
    "make test": "this very run",
    "make check": ".ci/run",
    "make test-all": "runs this",
    "make bench": "minutes",
    "make drill": "minutes; tests/test_jobs.py does the same",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line]


def test_every_command_shown_is_one_that_is_run() -> None:
    inline = set(re.findall(r"`(make [a-z-]+)`", README))
    assert inline <= {*_ELSEWHERE, "make quickstart"}
    assert all(command.startswith(("fmnist ", "make ")) for command in commands())


def run_all(commands: Sequence[str], *, folder: Path, data_root: Path) -> dict[str, str]:
    """Runs commands one after the other; gives what each prints."""
    for name, content in zip(("my-search.yaml", "chosen.yaml"), blocks("yaml"), strict=True):
        assert f"`{name}`" in README
        (folder / name).write_text(content, encoding="utf-8")
    environment = {
        **os.environ,
        "FMNIST_DATA_DIR": str(data_root.absolute()),
        "FMNIST_EXPERIMENTS_DIR": str(folder / "experiments"),
        "FMNIST_CLUSTERS_DIR": str(folder / "clusters"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    outputs = {}
    for command in commands:
        if command in _ELSEWHERE:
            continue
        done = subprocess.run(
            # `make quickstart` is `make setup`, which made the environment of this test, and this.
            command.replace("make quickstart", "fmnist search run --preset quickstart"),
            shell=True,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", command
        outputs[command] = done.stdout
    return outputs


def is_of_ones_own_search(command: str) -> bool:
    """Whether a command belongs to the how-tos about a search of one's own, each of which starts a Ray."""
    if "cluster render" in command:
        return False
    names = ("my-search", "repeatable", "fmnist experiments", "fmnist cluster", "fmnist jobs")
    return any(name in command for name in names)


def test_what_it_reaches_is_what_its_records_say() -> None:
    docs = REPOSITORY / "docs"
    (full,) = accuracies(docs / "full")
    assert f"**{full:.2%}**".replace("%", " %") in README
    for preset in ("paper-customnet", "paper-resnet18"):
        paper = accuracies(*(docs / preset / str(seed) for seed in range(3)))
        each = ", ".join(f"{100 * accuracy:.1f}" for accuracy in paper)
        (row,) = (line for line in README.splitlines() if line.startswith("| ") and f"`--preset {preset}" in line)
        assert f"**{100 * fmean(paper):.1f} %** ({each})" in row


def test_the_published_tables_are_what_was_reproduced() -> None:
    found = []
    for table in ("paper-table-1", "blog-table"):
        comparison = json.loads((REPOSITORY / "docs" / "reproduced" / f"{table}.json").read_text())
        assert comparison["seeds"] == [0, 1, 2]
        for model in comparison["models"]:
            cells = [model["title"].split(",")[0]]
            for metric, digits in (("accuracy", 1), ("training accuracy", 0)):
                (row,) = (row for row in model["rows"] if row["metric"] == metric)
                published = "-" if row["published"] is None else f"{100 * row['published']:.{digits}f} %"
                cells += [published, f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f} %"]
            found.append(cells)
    section = README.split("### Published tables")[1].split("\n###")[0]
    rows = re.findall(r"^\| the (?:paper|blog)'s ([\w-]+)[^|]*\| (.+) \|$", section, flags=re.MULTILINE)
    assert [[network, *others.split(" | ")] for network, others in rows] == found


def accuracies(*folders: Path) -> list[float]:
    return [json.loads((folder / "evaluation.json").read_text())["scores"]["accuracy"] for folder in folders]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_how_tos_commands_work_in_order(fashion_mnist_root: Path, tmp_path: Path) -> None:
    chosen = [command for command in commands() if is_of_ones_own_search(command)]
    assert len(chosen) > 5
    try:
        outputs = run_all(chosen, folder=tmp_path, data_root=fashion_mnist_root)
    finally:
        for left in list_clusters(tmp_path / "clusters"):  # none, unless a command failed
            LocalCluster(left.name, directory=tmp_path / "clusters").down()
    assert re.search(r"on-cluster-\S+ +on-cluster +\S+ +succeeded +4/4", outputs["fmnist jobs"])
    assert "the same curve" in outputs["fmnist search replay repeatable --trial 0"]
    assert not (tmp_path / "experiments" / "repeatable").exists()


@pytest.mark.timeout(800)
def test_the_quickstarts_commands_work_in_order(fashion_mnist_root: Path, tmp_path: Path) -> None:
    chosen = [command for command in commands() if not is_of_ones_own_search(command)]
    outputs = run_all(chosen, folder=tmp_path, data_root=fashion_mnist_root)
    accuracy = re.search(r"test accuracy ([0-9.]+)% on 1,000 fashion-mnist images", outputs["make quickstart"])
    assert accuracy is not None
    assert float(accuracy.group(1)) > 80
    assert (
        len(
            [
                line
                for line in outputs["make quickstart"].splitlines()
                if re.match(r"trial +\d+  (complete|pruned)", line)
            ]
        )
        == 12
    )
    folder = tmp_path / "experiments" / "quickstart"
    assert (folder / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    for name in re.findall(r"^\| (`.*?) \|", README.split("## How to")[0], flags=re.MULTILINE):
        shown = re.findall(r"`([^`]+)`", name)
        assert all((folder / file).exists() or file.startswith(".") for file in shown), name
    trials = pd.read_csv(folder / "trials.csv")
    assert set(trials["state"]) <= {"complete", "pruned"}
    assert trials["model"].nunique() == 2
    saved = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in saved if name.endswith((".pkl", ".part"))]


def test_make_quickstart_is_the_command_that_was_run() -> None:
    dry = subprocess.run(["make", "-n", "quickstart"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "fmnist search run --preset quickstart" in dry.stdout


def test_links_lead_to_files_that_are_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert all((REPOSITORY / target).exists() for target in targets if "://" not in target)

"""Which room may know which, and that importing a room does no work."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cluster", "fmnist_models", "search")
# Each room of `search` may import those before it, besides `errors` and `yaml_file`, which all may; `cli` is above all.
ROOMS_OF_SEARCH = {
    "records": set(),
    "configuration": {"records"},
    "study": {"records", "configuration"},
    "running": {"records", "configuration", "study"},
    "workflows": {"records", "configuration", "study", "running"},
    "review": {"records"},
    "report": {"records", "review"},
    "integrations": {"records", "review"},
    "reproduce": {"records"},
}
READING = ("records", "review", "report", "integrations")
OUTSIDE = "search.integrations.mlflow_model"  # MLflow runs it elsewhere, with torch


def source_files(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_roots(source: str) -> set[str]:
    """Top-level names of everything imported anywhere in ``source``; relative imports stay inside their package."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                roots |= {alias.name.split(".")[0] for alias in names}
            case ast.ImportFrom(module=str(module), level=0):
                roots.add(module.split(".")[0])
            case ast.Call(
                func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(str(module)), *_],
            ):
                roots.add(module.split(".")[0])
    return roots


def imported_rooms_of_search(source: str) -> set[str]:
    """``search.…`` of everything that ``source`` imports from there, cut after the second name."""
    found = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom) and node.module}
    return {".".join(name.split(".")[:2]) for name in found if name.split(".")[0] == "search"}


def loaded_by(statements: str, folder: Path) -> set[str]:
    """Top-level modules that ``statements`` load in a fresh interpreter whose working and home folder are empty."""
    home, here = folder / "home", folder / "here"
    home.mkdir()
    here.mkdir()
    redirected = ("MPLCONFIGDIR", "TORCH_HOME", "PYTHONPATH")
    env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_") and k not in redirected}
    script = f"{statements}\nimport json, sys\nprint(json.dumps(sorted(name.split('.')[0] for name in sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=here,
        env=env | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path not in (home, here)]
    assert made == [], "importing made files"
    return set(json.loads(done.stdout.splitlines()[-1]))


def imports(*modules: str) -> str:
    return "\n".join(f"import {module}" for module in modules)


def test_the_parser_of_imports_sees_through_functions_and_dotted_names() -> None:
    source = "import a.b as c\ndef f():\n    from d.e import g\n    importlib.import_module('h.i')\nfrom . import j"
    assert imported_roots(source) == {"a", "d", "h"}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [("fmnist_models", {"ray", "optuna", "search", "cluster"}), ("cluster", {"search", "fmnist_models"})],
)
def test_arrows_between_rooms_run_one_way(room: str, forbidden: set[str]) -> None:
    files = source_files(room)
    assert files
    found = {module_name(path): imported_roots(path.read_text()) & forbidden for path in files}
    assert {name: roots for name, roots in found.items() if roots} == {}


def test_search_knows_the_cluster_only_in_its_command_line() -> None:
    files = [path for path in source_files("search") if "cluster" in imported_roots(path.read_text())]
    assert {path.parent for path in files} == {ROOT / "search" / "cli"}


@pytest.mark.parametrize(("room", "others"), ROOMS_OF_SEARCH.items())
def test_arrows_within_search_run_one_way(room: str, others: set[str]) -> None:
    allowed = {f"search.{name}" for name in (room, *others, "errors", "yaml_file")}
    files = source_files(f"search/{room}")
    found = {module_name(path): imported_rooms_of_search(path.read_text()) - allowed for path in files}
    assert {name: rooms for name, rooms in found.items() if rooms} == {}


def test_every_room_of_search_has_its_arrows() -> None:
    rooms = {path.parent.name for path in (ROOT / "search").glob("*/__init__.py")}
    assert rooms == {*ROOMS_OF_SEARCH, "cli"}
    assert {path.stem for path in (ROOT / "search").glob("*.py")} == {"__init__", "errors", "yaml_file"}


def test_no_file_is_a_drawer_for_odds_and_ends() -> None:
    names = {path.name for room in ROOMS for path in source_files(room)}
    assert not names & {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}


def test_importing_search_loads_nothing_heavy(tmp_path: Path) -> None:
    loaded = loaded_by("from search import load_experiment", tmp_path)
    assert not loaded & {"ray", "torch", "optuna", "pandas", "pydantic", "matplotlib", "numpy"}


def test_the_command_line_starts_light(tmp_path: Path) -> None:
    loaded = loaded_by(imports("search.cli"), tmp_path)
    assert not loaded & {"ray", "torch", "optuna", "pandas", "pydantic", "matplotlib"}


def test_reading_results_loads_neither_ray_nor_torch(tmp_path: Path) -> None:
    readers = {module_name(path) for room in READING for path in source_files(f"search/{room}")} - {OUTSIDE}
    assert not loaded_by(imports(*sorted(readers)), tmp_path) & {"ray", "torch"}


def test_listing_trials_does_not_wait_for_pandas(tmp_path: Path) -> None:
    loaded = loaded_by(
        imports("search.review.listing", "search.review.listing_formats", "search.review.trial_detail_text"), tmp_path
    )
    assert not loaded & {"pandas", "pyarrow", "sklearn"}


def test_the_processes_of_trials_do_not_wait_for_what_only_the_search_itself_uses(tmp_path: Path) -> None:
    assert not loaded_by(imports("search.running.trial"), tmp_path) & {"sklearn", "scipy", "matplotlib", "plotly"}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_trial_of_customnet_loads_neither_torchvision_nor_a_compiler(optimizer: str, tmp_path: Path) -> None:
    script = f"""
{imports("sys", "torch", "search.running.trial")}
from fmnist_models.data import load_images, split_training
from fmnist_models.training import Training, TrainingPlan
images = load_images("synthetic", "train", root=None, size=200)
data = split_training(images, validation_fraction=0.2, seed=0)
recipe = {{"optimizer": {optimizer!r}, "schedule": "one-cycle", "ema": 0.9, "shift": 1}}
plan = TrainingPlan(network="customnet", hyperparameters=recipe, num_epochs=1, seed=0)
training = Training(plan, data, device=torch.device("cpu"))
[epoch] = training.epochs()
training.load_state_dict(training.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    assert "torchvision" not in loaded_by(script, tmp_path)


def test_a_search_of_customnet_begins_without_a_compiler_and_without_others_trackers(tmp_path: Path) -> None:
    script = f"""
{imports("sys", "search.running.runner")}
from pathlib import Path
from search.configuration.config import parse_config
from search.records.experiment import Experiment
from search.running.retention import check_room
config = parse_config({{"space": {{"model": "customnet"}}}}, where="test")
check_room(Experiment(Path("x")), config, num_slots=2)
search.running.runner._quiet_tune()
sys.modules["ray.tune.tune"].air_usage.tag_callbacks([object()])
assert "torch._dynamo" not in sys.modules
"""
    assert not loaded_by(script, tmp_path) & {"mlflow", "wandb", "comet_ml"}


def test_fmnist_models_loads_no_ray_and_no_module_of_any_room_makes_a_file(tmp_path: Path) -> None:
    models, others = (
        imports(*(module_name(path) for room in rooms for path in source_files(room) if path.name != "__main__.py"))
        for rooms in (("fmnist_models",), ("search", "cluster"))
    )
    check = "import sys\nassert not {'ray', 'optuna', 'search', 'cluster'} & set(sys.modules), 'fmnist_models loads'"
    assert "ray" in loaded_by(f"{models}\n{check}\n{others}", tmp_path)

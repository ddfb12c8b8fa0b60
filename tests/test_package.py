"""What a job takes along: code and the given files, and nothing that lies beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.package import MAX_BYTES, collect

PACKAGES = ("cluster", "fmnist_models", "search")


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose packages can be imported."""
    parent = tmp_path / "parent"
    parent.mkdir()
    monkeypatch.syspath_prepend(str(parent))
    return parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a job's files are collected."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_it_is_code_and_the_given_files(parent: Path, folder: Path) -> None:
    code = ["mine/__init__.py", "mine/deep/er/__init__.py", "mine/deep/settings.yaml", "mine/py.typed"]
    waste = ["mine/__pycache__/a.pyc", "mine/old.pyc", "mine/.env", "mine/.git/config", "mine/deep/.table.csv.part"]
    for name in [*code, *waste, "beside.py", ".git/config", "data/images", "results/study.journal", ".venv/bin/python"]:
        write(parent / name, "é")
    collect(folder, packages=["mine"], files={"config.yaml": "é: 1\n"})
    assert listing(folder) == sorted([*code, "config.yaml"])
    assert (folder / "config.yaml").read_text(encoding="utf-8") == "é: 1\n"
    assert (folder / "mine" / "py.typed").read_text() == "é"


def test_without_packages_it_is_the_files_alone(folder: Path) -> None:
    collect(folder, packages=(), files={"a": "1", "b": ""})
    assert listing(folder) == ["a", "b"]


def test_this_project_runs_from_what_is_collected_and_from_nothing_else(folder: Path) -> None:
    collect(folder, packages=PACKAGES, files={"config.yaml": ""})
    assert sorted(path.name for path in folder.iterdir()) == sorted([*PACKAGES, "config.yaml"])
    kinds = {path.suffix or path.name for path in folder.rglob("*") if path.is_file()}
    assert kinds <= {".py", ".yaml", ".typed", ".j2", ".json", ".md", ".css", ".js", ".jinja"}
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 2_000_000
    script = "import search.cli, cluster.jobs, fmnist_models; print(search.__file__, cluster.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(folder / name / "__init__.py") for name in ("search", "cluster")]
    validate = [sys.executable, "-m", "search.cli", "search", "validate", "--preset", "quickstart", "--json"]
    subprocess.run(validate, cwd=folder, env=environment, capture_output=True, check=True)


def test_what_is_too_large_is_refused_with_its_size_and_its_largest_file(parent: Path, folder: Path) -> None:
    write(parent / "large" / "__init__.py")
    for name, size_bytes in (("half.bin", MAX_BYTES // 2), ("more.bin", MAX_BYTES // 2 + 3_000_000)):
        with (parent / "large" / name).open("wb") as file:
            file.truncate(size_bytes)
    with pytest.raises(ClusterError) as caught:
        collect(folder, packages=["large"], files={})
    words = ["103 MB along", "up to 100 MB", "large/more.bin with 53 MB"]
    assert [word for word in words if word not in str(caught.value)] == []


def test_what_just_fits_is_taken(parent: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.package.MAX_BYTES", 10)
    write(parent / "small" / "__init__.py", "#" * 4)
    collect(folder, packages=["small"], files={"a": "123456"})
    with pytest.raises(ClusterError, match="largest file is b"):
        collect(folder / "small", packages=(), files={"b": "1234567"})


@pytest.mark.parametrize("name", ["single", "sys", "nowhere_to_be_found"])
def test_a_package_that_is_no_folder_is_refused(parent: Path, folder: Path, name: str) -> None:
    write(parent / "single.py")
    with pytest.raises(ClusterError, match=f"the code of {name} is not in a folder"):
        collect(folder, packages=[name], files={})
    assert listing(folder) == []


def test_a_link_to_a_folder_is_left_out_and_one_to_a_file_is_that_file(parent: Path, folder: Path) -> None:
    """Ray would send all that a link leads to, whatever its size; some installers link each file of a package."""
    write(parent / "linked" / "__init__.py")
    write(parent / "store" / "module.py", "x = 1")
    write(parent / "data" / "images", "x" * 1000)
    for name, target in {"module.py": "store/module.py", "data": "data", "broken": "nowhere"}.items():
        (parent / "linked" / name).symlink_to(parent / target)
    collect(folder, packages=["linked"], files={})
    assert listing(folder) == ["linked/__init__.py", "linked/module.py"]
    assert not (folder / "linked" / "module.py").is_symlink()
    assert (folder / "linked" / "module.py").read_text() == "x = 1"

"""What a result says that it was made with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from search.records.versions import collect_versions, describe_checkout

GIT = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*GIT, *arguments], cwd=tmp_path, check=True)
    describe_checkout.cache_clear()
    return tmp_path


def test_the_commit_is_told_and_whether_there_were_changes(checkout: Path) -> None:
    head = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    assert describe_checkout(checkout) == {"commit": head.stdout.strip(), "uncommitted_changes": "no"}
    (checkout / "file").write_text("2")
    assert describe_checkout(checkout)["uncommitted_changes"] == "no", "as it was when this process began"
    describe_checkout.cache_clear()
    assert describe_checkout(checkout)["uncommitted_changes"] == "yes"


def test_a_package_below_another_projects_checkout_has_no_commit(checkout: Path) -> None:
    inside = checkout / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert describe_checkout(inside) == {}


def test_git_that_is_missing_or_refuses_leaves_the_versions(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout / ".git" / "HEAD").write_text("nonsense")
    assert describe_checkout(checkout) == {}
    monkeypatch.setenv("PATH", "/nonexistent")
    describe_checkout.cache_clear()
    assert describe_checkout(checkout) == {}
    assert {"python", "torch", "fmnist-search"} <= collect_versions().keys()

"""Tokens: a local Ray has a new one, whatever the environment says; a cluster elsewhere the one that it names."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from ray import _raylet

from cluster.errors import ClusterError
from cluster.token import VARIABLES, find_token, given_token, own_token

RAYLET: Any = _raylet


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def variables() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def token_of_ray() -> str | None:
    """What Ray sends in this process."""
    headers = RAYLET.AuthenticationTokenLoader.instance().get_token_for_http_header()
    return headers["authorization"].removeprefix("Bearer ") if headers else None


STALE = [
    {},
    {"RAY_AUTH_MODE": "disabled"},
    {"RAY_AUTH_MODE": "on"},
    {"RAY_AUTH_TOKEN": "  "},
    {"RAY_AUTH_TOKEN": "f" * 64},
    {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"},
    {"RAY_AUTH_TOKEN_PATH": "/nowhere/token", "RAY_AUTH_MODE": "token"},
]


@pytest.mark.parametrize("stale", STALE, ids=str)
def test_a_local_ray_has_a_token_of_its_own_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stale: dict[str, str]
) -> None:
    set_variables(monkeypatch, stale)
    tokens = []
    for path in (tmp_path / "first", tmp_path / "second"):
        with own_token(path):
            assert variables() == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert token_of_ray() == path.read_text()
        assert variables() == stale
        tokens.append(path.read_text())
    assert len(set(tokens)) == 2
    assert {len(token) for token in tokens} == {64}
    assert not (tmp_path / "home").exists()


def test_after_a_local_ray_a_cluster_is_reached_with_the_token_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with own_token(tmp_path / "token"):
        own = token_of_ray()
    with given_token():
        assert token_of_ray() is None
    set_variables(monkeypatch, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64})
    with given_token():
        assert token_of_ray() == "a" * 64 != own


def test_a_token_file_may_lie_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home" / ".ray").mkdir(parents=True)
    (tmp_path / "home" / "team").write_text("b" * 64 + "\nmore\n")
    set_variables(monkeypatch, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "~/team"})
    assert find_token() == "b" * 64
    with given_token():
        assert token_of_ray() == "b" * 64
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    (tmp_path / "home" / ".ray" / "auth_token").write_text(" " + "c" * 64 + " \n")
    assert find_token() == "c" * 64
    (tmp_path / "home" / ".ray" / "auth_token").write_text("")
    assert find_token() is None


@pytest.mark.parametrize("stale", ["/nowhere/token", "~nobody-has-this-name/token"])
def test_where_no_token_is_wanted_it_does_not_matter_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch, stale: str
) -> None:
    set_variables(monkeypatch, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": stale})
    with given_token():
        assert token_of_ray() is None


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"RAY_AUTH_TOKEN": "\n"}, "RAY_AUTH_TOKEN holds nothing but blanks"),
        ({"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}, "/nowhere/token cannot be read: No such file"),
        ({"RAY_AUTH_TOKEN_PATH": "/dev/null"}, "/dev/null.* has no token"),
        ({"RAY_AUTH_TOKEN_PATH": "/proc"}, "/proc cannot be read: Is a directory"),
        ({"RAY_AUTH_TOKEN_PATH": "~nobody-has-this-name/token"}, "the home folder of ~nobody-has-this-name is"),
        ({"RAY_AUTH_MODE": "token"}, "RAY_AUTH_MODE is 'token', but there is no token"),
        ({"RAY_AUTH_MODE": " token"}, "RAY_AUTH_MODE is ' token'; valid: token, disabled"),
    ],
    ids=str,
)
def test_variables_that_lead_to_no_token_get_a_message_where_a_cluster_is_addressed(
    monkeypatch: pytest.MonkeyPatch, broken: dict[str, str], message: str
) -> None:
    set_variables(monkeypatch, broken)
    with pytest.raises(ClusterError, match=message), given_token():
        pass
    assert variables() == broken


@pytest.mark.parametrize("name", ["Config", "AuthenticationTokenLoader"])
def test_a_ray_that_cannot_be_given_another_token_gets_a_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.delattr(RAYLET, name)
    told = f"version of Ray cannot be given another token: .*{name}"
    with pytest.raises(ClusterError, match=told), own_token(tmp_path / "token"):
        pass
    assert variables() == {}

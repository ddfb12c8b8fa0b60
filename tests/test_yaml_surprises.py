"""What YAML 1.1 takes for something else than it looks like is refused wherever YAML of a person is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cluster.deploy import example_settings
from cluster.deploy.yaml_file import read_yaml as read_settings_file
from cluster.errors import ClusterError
from search.configuration.config import load_config, parse_config
from search.errors import ConfigError
from search.yaml_file import dump_yaml, parse_yaml, read_yaml

SURPRISES = {
    "010": "010 is octal in YAML, and means 8; write 8 or 10, or '010' in quotes for text",
    "-0_17": "-0_17 is octal in YAML, and means -15; write -15 or -17, or '-0_17' in quotes for text",
    "00": "00 is octal in YAML, and means 0; write 0, or '00' in quotes for text",
    "!!int 010": "010 is octal in YAML",
    "1:30": "1:30 counts in sixties in YAML, and means 90; write 90, or '1:30' in quotes for text",
    "1:30.5": "1:30.5 counts in sixties in YAML, and means 90.5; write 90.5",
    "yes": "yes is true for some readers of YAML and text for others; write true, or 'yes' in quotes for text",
    "Off": "write false, or 'Off' in quotes",
    "2026-01-01": "2026-01-01 is a date in YAML; write '2026-01-01' in quotes for text",
}
MEANT: dict[str, Any] = {
    "10": 10,
    "-0": 0,
    "0x10": 16,
    "1_000": 1000,
    "0.10": 0.1,
    "True": True,
    "'010'": "010",
    "'yes'": "yes",
    "'1:30'": "1:30",
    "none": "none",
    "a:1": "a:1",
    "08": "08",
}


@pytest.mark.parametrize("text", SURPRISES)
def test_a_surprise_is_refused_with_its_line_and_what_to_write(tmp_path: Path, text: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"first: 1\nsecond: [2, {text}]\n")
    where = f"{path}, line 2: second: [2, {text}]: "
    with pytest.raises(ConfigError) as of_search:
        read_yaml(path)
    with pytest.raises(ClusterError) as of_fleet:
        read_settings_file(path, max_bytes=1000)
    assert str(of_search.value) == str(of_fleet.value)
    assert str(of_search.value).startswith(where)
    assert SURPRISES[text] in str(of_search.value)


@pytest.mark.parametrize("text", MEANT)
def test_what_can_only_be_meant_as_it_is_read_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"value: {text}\n")
    for value in (read_yaml(path), read_settings_file(path, max_bytes=1000)):
        assert value == {"value": MEANT[text]}
        assert type(value["value"]) is type(MEANT[text])


@pytest.mark.parametrize("text", [*SURPRISES, *MEANT])
def test_text_that_looks_like_a_surprise_survives_being_written_and_read(text: str) -> None:
    assert parse_yaml(dump_yaml({text: [text]}), where="test") == {text: [text]}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("max_trials=010", ["--set max_trials, line 1: 010: ", "write 8 or 10"]),
        ("time_budget_s=1:30", ["--set time_budget_s", "write 90"]),
        ("space.flip=on", ["--set space.flip", "write true"]),
    ],
)
def test_an_override_is_refused_by_its_key(override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_number_with_a_zero_before_it_is_no_number_where_one_is_wanted() -> None:
    for text in ("08", "0o10"):
        with pytest.raises(ConfigError, match=f"max_trials: .*'{text}'"):
            parse_config(parse_yaml(f"{{space: {{model: lenet5}}, max_trials: {text}}}", where="x"), where="x")


def test_the_example_of_a_fleet_holds_no_surprise(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(example_settings())
    assert isinstance(read_settings_file(path, max_bytes=100_000), dict)

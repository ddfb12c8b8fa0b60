"""Reading YAML that a person wrote: safely, with 1e-4 as a number, and with a key given twice as the mistake it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from search.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text and lets a second key of one name win; neither is what a person means."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        names = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what ``_Loader`` would not read as text."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?([0-9][0-9_]*)(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
        list("-+0123456789"),
    )


def dump_yaml(value: Any) -> str:
    """The text that ``parse_yaml`` reads as this value."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def parse_yaml(text: str, *, where: str) -> Any:
    """The value that ``text`` holds; ``where`` names it in messages.

    Raises:
        ConfigError: not YAML; says where it stops being so.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{where} is not YAML: {problem[:300]}") from error


def read_yaml(path: Path) -> Any:
    """The value that the file holds.

    Raises:
        ConfigError: no such file, not readable as text, or not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    return parse_yaml(text, where=str(path))

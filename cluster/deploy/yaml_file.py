"""Read the YAML of a settings file: safely; a key given twice is refused, and so is what YAML 1.1 takes for something
else than it looks like. ``search.yaml_file``, which this package may not import, has the same rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import yaml

from cluster.errors import ClusterError

_OCTAL = re.compile(r"[-+]?0[0-7_]+")


class _UnclearError(yaml.MarkedYAMLError):
    """A value that YAML 1.1 takes for something else than it looks like."""

    def __init__(self, node: yaml.ScalarNode, meaning: str, *, instead: str | None = None) -> None:
        or_text = f"{node.value!r} in quotes for text"
        write = or_text if instead is None else f"{instead}, or {or_text}"
        super().__init__(problem=f"{node.value} {meaning}; write {write}", problem_mark=node.start_mark)

    def __str__(self) -> str:
        mark = self.problem_mark
        assert mark is not None
        line = (mark.get_snippet(indent=0) or "").partition("\n")[0]
        return f"line {mark.line + 1}: {line.strip()}: {self.problem}"


class _Loader(yaml.SafeLoader):
    """A key that is there twice is a mistake, and 010 is not meant to be 8."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if _OCTAL.fullmatch(node.value):
            decimal = int(node.value.replace("_", ""))
            instead = str(value) if value == decimal else f"{value} or {decimal}"
            raise _UnclearError(node, f"is octal in YAML, and means {value}", instead=instead)
        _check_sixties(node, value)
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value = super().construct_yaml_float(node)
        _check_sixties(node, value)
        return value

    def construct_yaml_bool(self, node: yaml.ScalarNode) -> bool:
        value = super().construct_yaml_bool(node)
        written = str(value).lower()
        if node.value.lower() != written:
            raise _UnclearError(node, f"is {written} for some readers of YAML and text for others", instead=written)
        return value

    def construct_yaml_timestamp(self, node: yaml.ScalarNode) -> NoReturn:
        raise _UnclearError(node, "is a date in YAML")


for _kind in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", getattr(_Loader, f"construct_yaml_{_kind}"))


def _check_sixties(node: yaml.ScalarNode, value: float) -> None:
    if ":" in node.value:
        raise _UnclearError(node, f"counts in sixties in YAML, and means {value}", instead=str(value))


def read_yaml(path: Path, *, max_bytes: int) -> Any:
    """The value that the file holds.

    Raises:
        ClusterError: no such file, too large, not YAML, or a value that YAML takes for something else than it looks
            like; says where.
    """
    try:
        with path.open("rb") as file:
            text = file.read(max_bytes + 1)
        if len(text) > max_bytes:
            raise ClusterError(f"{path} is larger than {max_bytes // 1024} KiB, too large for settings")
        return yaml.load(text.decode(), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    except _UnclearError as error:
        raise ClusterError(f"{path}, {error}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(f"{path} is not YAML: {problem[:300]}") from error

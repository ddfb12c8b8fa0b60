"""Read YAML that a person wrote: safely, with 1e-4 as a number. A key given twice is refused, and so is what YAML 1.1
takes for something else than it looks like: 010, 1:30, yes, 2026-01-01."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import yaml

from fmnist_models.errors import FileError
from fmnist_models.files import read_bounded
from search.errors import ConfigError

_MAX_BYTES = 2**20
_MAX_VALUES = 100_000
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
    """YAML 1.1 reads 1e-4 as text and lets a second key of one name win; neither is what a person means. And aliases
    of aliases can make a short file mean more values than any memory holds."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        counts = Counter(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
        for name, count in counts.items():
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if abs(value) >= 2**64:  # Python does not even print what hexadecimal digits can write
            raise yaml.constructor.ConstructorError(None, None, "a whole number is too large", node.start_mark)
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


for _kind_of_value in ("int", "float", "bool", "timestamp"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind_of_value}", getattr(_Loader, f"construct_yaml_{_kind_of_value}"))


def _check_sixties(node: yaml.ScalarNode, value: float) -> None:
    if ":" in node.value:
        raise _UnclearError(node, f"counts in sixties in YAML, and means {value}", instead=str(value))


def _check_size(root: yaml.Node) -> None:
    """Counts every value as often as aliases mean it, without making any."""
    rest, count = [root], 0
    while rest:
        node, count = rest.pop(), count + 1
        if isinstance(node, yaml.SequenceNode):
            rest += node.value
        elif isinstance(node, yaml.MappingNode):
            rest += itertools.chain.from_iterable(node.value)
        if count + len(rest) > _MAX_VALUES:
            raise yaml.composer.ComposerError(None, None, f"with its aliases it has over {_MAX_VALUES:,} values")


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
        ConfigError: not YAML, or a value that YAML takes for something else than it looks like; says where.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except _UnclearError as error:
        raise ConfigError(f"{where}, {error}") from error
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{where} is not YAML: {problem[:300]}") from error


def parse_override(text: str, *, where: str) -> Any:
    """The value that ``text`` holds, all of it; ``where`` names it in messages.

    Raises:
        ConfigError: not YAML, or YAML would leave a part of it out: a comment, or blanks at the end of a word.
    """
    value = parse_yaml(text, where=where)
    quoted = f"quote the value: {where}='\"…\"'"  # which may hold a password, and is not repeated here
    if _has_comment(text):
        raise ConfigError(f"{where}: the value has a # after a blank, and YAML would drop the rest; {quoted}")
    if isinstance(value, str) and value == text.strip() != text.lstrip():
        raise ConfigError(f"{where}: the value ends with blanks, which YAML would drop; leave them out, or {quoted}")
    return value


def _has_comment(text: str) -> bool:
    end = 0
    for token in yaml.scan(text, Loader=_Loader):
        if "#" in text[end : token.start_mark.index]:
            return True
        end = max(end, token.end_mark.index)
    return False


def read_yaml(path: Path) -> Any:
    """The value that the file holds.

    Raises:
        ConfigError: no such file, larger than 1 MiB, not readable as text, or not YAML.
    """
    try:
        text = read_bounded(path, max_bytes=_MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    except FileError as error:
        raise ConfigError(str(error)) from error
    return parse_yaml(text, where=str(path))

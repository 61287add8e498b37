"""Strict YAML for settings: plain values, unique keys, and errors that name the line.

PyYAML parses the text. The code here rejects features that settings do not need, and records the line of every key.
ruamel.yaml rejects duplicate keys itself, but has none of the other limits, and would be another dependency.
"""

import re
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

MOST_BYTES = 64 * 1024  # size of a file; a preset has 2 KiB
_DEEPEST = 16  # levels of nesting; settings have 5
_LONGEST_NUMBER = 40  # characters

Place = tuple[str | int, ...]  # path to a value: keys, and positions in lists


class YamlSyntaxError(ValueError):
    """Text that is not YAML. The message starts with the line."""


class UnsupportedYamlError(ValueError):
    """YAML with a feature that settings do not support. The message starts with the line."""


class Document(NamedTuple):
    """A parsed document."""

    value: Any
    lines: dict[Place, int]  # line of every value, from 1


class _Loader(yaml.SafeLoader):
    """PyYAML's loader with the types of YAML 1.2: text, numbers, true and false, null.

    By YAML 1.1, `no` would be false, `010` would be 8, `1:30` would be 90 and `2024-01-01` would be a date. Here they
    are text, which each setting interprets: `flip: no` is false, `name: no` is a name, and `epochs: 1:30` is rejected.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call] # PyYAML's stubs leave it out
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise _refused(event, "anchors (&) and aliases (*) are not supported: write the value out, or quote it")
        if getattr(event, "tag", None) is not None:
            raise _refused(event, f"tags ({_short(event.tag)}) are not supported: remove it, or quote the value")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _refused(event, f"more than {_DEEPEST} levels of nesting: settings have at most 5")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper, which also quotes text that YAML 1.2 reads as another type, such as "1e5"."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read(path: Path) -> Document:
    """Read a file.

    Raises:
        OSError: if it cannot be read.
        YamlSyntaxError: if it is not YAML in UTF-8.
        UnsupportedYamlError: if it has a feature that settings do not support.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UnsupportedYamlError(f"1: the file is larger than {MOST_BYTES // 1024} KiB: name a file of settings")
    try:
        return parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise YamlSyntaxError(
            f"{line}: byte {content[error.start]:#04x} is not UTF-8: save the file as UTF-8"
        ) from None


def dump(value: object) -> str:
    """Return plain values as YAML, from which `parse` reads equal values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False)


def parse(text: str) -> Document:
    """Parse a text. The value of an empty text is None.

    Raises:
        YamlSyntaxError: if it is not YAML.
        UnsupportedYamlError: if it has a feature that settings do not support.
    """
    if len(text) > MOST_BYTES:
        raise UnsupportedYamlError(f"1: more than {MOST_BYTES:,} characters: write a shorter value")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise YamlSyntaxError(f"{line}: character {_code(error.character)} is not allowed: remove it") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context == "expected a single document in the stream":
            raise UnsupportedYamlError(
                f"{_at(mark)}: a second document begins: keep only one document, without `---`"
            ) from None
        raise YamlSyntaxError(f"{_at(mark)}: not YAML: {error.problem or error.context}") from None
    except UnsupportedYamlError:
        raise
    except (ValueError, OverflowError):  # from chr(), which PyYAML calls for an escape such as "\UFFFFFFFF"
        raise YamlSyntaxError("1: not YAML: an escape in a quoted text names no character") from None
    lines: dict[Place, int] = {}
    return Document(None if node is None else _value(node, (), lines), lines)


def _value(node: yaml.Node, place: Place, lines: dict[Place, int]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(child, (*place, index), lines) for index, child in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    value: dict[str, Any] = {}
    first: dict[str, yaml.Mark] = {}
    for key_node, child in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refused(key_node, "a key must be text, and not a list or a mapping")
        key = _text(key_node)
        if key in first:
            name = ".".join(map(str, (*place, key)))
            before = first[key].line + 1
            raise _refused(key_node, f"{name} appears again, after line {before}: put both into one block")
        first[key] = key_node.start_mark
        lines[*place, key] = key_node.start_mark.line + 1
        value[key] = _value(child, (*place, key), lines)
    return value


def _scalar(node: yaml.ScalarNode) -> Any:
    text = _text(node)
    kind = node.tag.rpartition(":")[2]
    if kind in ("int", "float") and len(text) > _LONGEST_NUMBER:
        raise _refused(node, f"a number of {len(text):,} characters ({_short(text)}): write at most {_LONGEST_NUMBER}")
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return {"null": None, "bool": text.lower() == "true"}.get(kind, text)


def _text(node: yaml.ScalarNode) -> str:
    text = str(node.value)
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise _refused(node, f"character {_code(ord(character))} is not allowed: remove it")
    return text


def _refused(at: yaml.Node | yaml.Event, message: str) -> UnsupportedYamlError:
    return UnsupportedYamlError(f"{_at(at.start_mark)}: {message}")


def _at(mark: Any) -> str:
    return f"{mark.line + 1}:{mark.column + 1}" if mark else "1"


def _code(character: int | str) -> str:
    return f"U+{character if isinstance(character, int) else ord(character):04X}"


def _short(text: str) -> str:
    return text if len(text) <= 20 else f"{text[:17]}..."

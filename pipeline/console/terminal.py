"""Safe output to a terminal: all text from outside is escaped before it is printed.

File names, class names, properties of a store and answers of a server may hold control characters that move the
cursor, set the window's title or reorder what a person reads. `printable` turns such a value into one line.
`Escaping` and `Console` are the boundary behind it: of control characters, they let only the styles of Rich pass.
"""

import json
import math
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from typing import IO, Any, TextIO, cast

from rich.console import Console as RichConsole  # noqa: TID251
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

# Control and format characters (the latter reorder text, or have no width), surrogates, line and paragraph separators.
_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_SUSPECT = re.compile(r"[^\t\n -~]")
_SUSPECT_OF_RICH = re.compile(r"[^\x00-\x7f]")
_SHORT = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}


def printable(text: object) -> str:
    """Return `str(text)` as one line without control characters, each written as an escape such as `\\x1b`."""
    return escaped(str(text)).replace("\n", r"\n").replace("\t", r"\t")


def escaped(text: str) -> str:
    """Return a text whose only control characters are newlines and tabs.

    A byte of a file name that is not UTF-8 becomes `\\xff`. Characters from U+007F on become `\\u009b`, which is valid
    JSON, too.
    """
    return _SUSPECT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if unicodedata.category(character) not in _CATEGORIES:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte that does not decode
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_line(text: object, file: TextIO | None = None) -> None:
    """Print a text as exactly one line, whatever it holds.

    Args:
        text: What to print.
        file: Where to; standard output if `None`.
    """
    print(printable(text), file=file, flush=True)


def print_json(value: object) -> None:
    """Print a value as `json_text` writes it."""
    print(json_text(value))


def json_text(value: object, indent: int | None = 2) -> str:
    """Return a value as JSON that every parser reads: a number that is not finite becomes null.

    Args:
        value: anything that `json.dumps` takes.
        indent: spaces of each level; None for one line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(of) for key, of in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


class Escaping:
    """Text stream that escapes what is written to it, except the styles of Rich.

    Args:
        stream: Where the text goes. Characters that its encoding lacks are written as escapes, too.
        suspect: Pattern of the characters that may need an escape.
    """

    def __init__(self, stream: TextIO, suspect: re.Pattern[str] = _SUSPECT):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
        self._stream, self._suspect = stream, suspect
        # Rich writes to the stream in this attribute instead. Its styles need ASCII's control characters, and `Console`
        # escapes those of its text.
        self.rich_proxied_file = self if suspect is _SUSPECT_OF_RICH else Escaping(stream, _SUSPECT_OF_RICH)

    def write(self, text: str) -> int:
        self._stream.write(self._suspect.sub(_escape, text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console(RichConsole):
    """Rich's console for text from outside, without markup and emoji codes; only styles contain control characters."""

    def __init__(
        self, file: IO[str] | None = None, stderr: bool = False, soft_wrap: bool = False, width: int | None = None
    ):
        super().__init__(
            file=file, stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False, highlight=False
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, with the text of every segment escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escaped(text), style, control)


def escape_output() -> None:
    """Escape everything that this process writes to standard output and standard error from now on."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), Escaping):
            setattr(sys, name, cast(TextIO, Escaping(stream)))

"""Safe output to a terminal: all text from outside is escaped before it is printed.

File names, class names, properties of a store and answers of a server may hold control characters that move the
cursor, set the window's title or reorder what a person reads. `printable` turns such a value into one line.
`Escaping` and `Console` are a second barrier: the only control characters that they pass on are the styles of Rich.
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
    r"""Return `str(text)` as one line, with each control character replaced by an escape such as `\x1b`."""
    return escape(str(text)).replace("\n", r"\n").replace("\t", r"\t")


def escape(text: str) -> str:
    r"""Replace control characters, except newlines and tabs, by escapes.

    A byte of a file name that is not UTF-8 becomes for example `\xff`. Characters from U+007F on become for example
    `\u009b`, which is also valid in JSON.
    """
    return _SUSPECT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if unicodedata.category(character) not in _CATEGORIES:
        return character
    if 0xDC80 <= code <= 0xDCFF:  # how Python represents a byte that does not decode
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def print_line(text: object, file: TextIO | None = None) -> None:
    """Print a text as exactly one line, even if it has line breaks.

    Args:
        text: the text.
        file: the stream to print to; None for standard output.
    """
    print(printable(text), file=file, flush=True)


def print_json(value: object) -> None:
    """Print a value as JSON, see `json_text`."""
    print(json_text(value))


def json_text(value: object, indent: int | None = 2) -> str:
    """Return a value as JSON that every parser accepts: NaN and infinite numbers become null.

    Args:
        value: any value that `json.dumps` accepts.
        indent: number of spaces for each level; None for a single line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(member) for key, member in value.items()}
    return [_finite(member) for member in value] if isinstance(value, list | tuple) else value


class Escaping:
    """Text stream that escapes control characters, except the styles of Rich.

    Args:
        stream: the stream to write to. Characters that its encoding lacks are written as escapes, too.
        suspect: pattern of the characters that may need an escape.
    """

    def __init__(self, stream: TextIO, suspect: re.Pattern[str] = _SUSPECT) -> None:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
        self._stream, self._suspect = stream, suspect
        # Rich writes to the stream in this attribute instead. It needs ASCII control characters for its styles; those
        # in its text are escaped by `Console`.
        self.rich_proxied_file = self if suspect is _SUSPECT_OF_RICH else Escaping(stream, _SUSPECT_OF_RICH)

    def write(self, text: str) -> int:
        """Write a text with its control characters escaped."""
        self._stream.write(self._suspect.sub(_escape, text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console(RichConsole):
    """Rich's console for text from outside: it reads no markup or emoji codes, and escapes control characters."""

    def __init__(
        self, file: IO[str] | None = None, stderr: bool = False, soft_wrap: bool = False, width: int | None = None
    ) -> None:
        super().__init__(
            file=file, stderr=stderr, soft_wrap=soft_wrap, width=width, markup=False, emoji=False, highlight=False
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, with control characters in the text escaped.

        Args:
            renderable: see Rich.
            options: see Rich.
        """
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else escape(text), style, control)


def escape_output() -> None:
    """Escape everything that this process writes to standard output and standard error after this call."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), Escaping):
            setattr(sys, name, cast(TextIO, Escaping(stream)))

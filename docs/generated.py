"""Text of the reference pages that is generated from the code and from the benchmarks' record."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import vitpipe
from components import errors
from pipeline.settings import Settings
from pipeline.settings.reference import reference
from vitpipe.cli.reference import command_reference

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results.jsonl"


def text(name: str) -> str:
    """Return the Markdown for the marker `<!-- generated: NAME -->`."""
    if name == "settings":
        return settings_reference()
    if name == "commands":
        return command_reference()
    if name == "interface":
        return interface()
    if name == "errors":
        return error_reference()
    if name.startswith("benchmark "):
        return measurements(name.removeprefix("benchmark "))
    raise ValueError(f"nothing generates {name!r}")


def settings_reference() -> str:
    """Return a section for each group of settings, with the names that `vitpipe settings` shows."""
    sections: dict[str, list[str]] = {"": ["## Top level"]}
    for row in reference(Settings()):
        group = row.name.partition(".")[0] if "." in row.name else ""
        facts = [row.type, f"default `{json.dumps(row.default)}`", *([f"`{row.bounds}`"] if row.bounds else [])]
        entry = f"`{row.name}`\n: {'; '.join(facts)}\n\n  {' '.join(row.description.split())}"
        sections.setdefault(group, [f"## {group}"]).append(entry)
    return "\n\n".join(block for blocks in sections.values() for block in blocks)


def interface() -> str:
    """Return the directives that document every public name of `vitpipe`: functions first, then classes."""
    classes = [name for name in vitpipe.__all__ if isinstance(getattr(vitpipe, name), type)]
    functions = [name for name in vitpipe.__all__ if name not in classes]
    lines = [f".. autofunction:: vitpipe.{name}" for name in functions]
    lines += [f".. autoclass:: vitpipe.{name}\n   :members:\n   :exclude-members: model_config" for name in classes]
    return "```{eval-rst}\n" + "\n\n".join(lines) + "\n```"


def error_reference() -> str:
    """Return a table of the errors that a user can act on, with their exit codes."""
    found = [errors.VitpipeError]
    for error in found:
        found.extend(error.__subclasses__())
    rows = [[f"`{error.__name__}`", str(int(error.exit)), (error.__doc__ or "").split("\n\n")[0]] for error in found]
    return table(["error", "exit code", "meaning"], rows)


def measurements(topic: str) -> str:
    """Return every measurement of a topic, in the order of the record."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    chosen = [one for one in found if one["topic"] == topic]
    if not chosen:
        raise ValueError(f"{RESULTS} has no measurement of {topic!r}")
    return "\n\n".join(
        f"{one['date']}, {one['machine']}: `{one['command']}`\n\n{table(one['columns'], one['rows'])}\n\n{one['note']}"
        for one in chosen
    )


def table(columns: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

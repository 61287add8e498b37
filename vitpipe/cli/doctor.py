"""`vitpipe doctor`: check whether a run would work here, and say what to fix."""

import json as jsonlib
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from components.errors import Exit
from pipeline.console.terminal import Console, printable
from vitpipe.doctor import CHECKS, Diagnosis, Health, examine


def doctor(
    json: Annotated[bool, typer.Option("--json", help="A list of findings instead of a table.")] = False,
) -> None:
    """Check whether a run would work here, and show how to fix what would not."""
    with Console(stderr=True).status("starting") as status:
        findings = dict(examine(list(CHECKS), lambda name: status.update(f"checking {name}")))
    if json:
        print(jsonlib.dumps([{"check": name, **finding._asdict()} for name, finding in findings.items()], indent=2))
    else:
        Console().print(_table(findings))
    if any(finding.verdict == Health.PROBLEM for finding in findings.values()):
        raise typer.Exit(Exit.CRASHED)


def _table(findings: dict[str, Diagnosis]) -> Table:
    styles = {Health.OK: "green", Health.WARNING: "yellow", Health.PROBLEM: "bold red"}
    table = Table("check", "verdict", Column("found", overflow="fold"), "fix", box=None)
    for name, (verdict, found, fix) in findings.items():
        table.add_row(name, Text(verdict, styles[verdict]), printable(found), printable(fix))
    return table

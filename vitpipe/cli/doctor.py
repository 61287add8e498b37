"""`vitpipe doctor`: check whether a run would work here, and say what to fix."""

import json

import typer
from rich.table import Column, Table
from rich.text import Text

from components.errors import Exit
from pipeline.console.terminal import Console, printable
from vitpipe.cli.options import Json
from vitpipe.cli.panels import PREPARE, example
from vitpipe.doctor import CHECKS, Diagnosis, Health, examine

app = typer.Typer()


@app.command(rich_help_panel=PREPARE, epilog=example("vitpipe doctor"))
def doctor(as_json: Json = False) -> None:
    """Check whether a run would work on this machine, and explain how to fix each problem.

    Exits with 1 if a run would fail.
    """
    with Console(stderr=True).status("starting") as status:
        findings = dict(examine(list(CHECKS), lambda name: status.update(f"checking {name}")))
    if as_json:
        print(json.dumps([{"check": name, **finding._asdict()} for name, finding in findings.items()], indent=2))
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

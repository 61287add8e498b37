"""Bad values that anyone may have written to a store: each is reported, and everything else is shown."""

import json
import socket
import sqlite3
import sys

import pytest

from pipeline.metadata.properties import UnreadableError, read, read_flag
from pipeline.metadata.records import Run
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import summarise
from tests.helpers.stores import make_store
from vitpipe.cli import main
from vitpipe.ui.app import create_app

JUNK = ["", "abc", "77", "[]", "{bad", "null", "NaN", "1" * 5000, "[" * 5000, '{"a": "\\ud800"}', b"\xff\x00", None]
NAMES = ["exit", "process", "settings", "blessed", "judgement", "findings", "passed", "pushed", "pushed_version"]


@pytest.mark.parametrize("value", JUNK)
def test_an_invalid_property_is_named_with_the_reason(value):
    properties = {} if value is None else {"checks": value.hex() if isinstance(value, bytes) else value}
    if value == "[]":
        assert read(properties, "checks", list[int]) == []
        return
    with pytest.raises(UnreadableError, match="the property checks") as raised:
        read(properties, "checks", list[int])
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)


def test_a_flag_is_zero_or_one():
    assert (read_flag({"blessed": 1}, "blessed"), read_flag({"blessed": 0}, "blessed")) == (True, False)
    for value in (2, -1, "1", "abc", 0.5, None):
        with pytest.raises(UnreadableError, match="it must be 0 or 1"):
            read_flag({"blessed": value}, "blessed")


@pytest.mark.parametrize("facts", [{"exit": "77"}, {"exit": "2"}, {"exit": "abc"}, {"process": "[]"}, {"process": "{"}])
def test_a_run_with_an_invalid_end_is_unreadable(facts):
    summary = summarise(RunResult(Run(1, "run", "sample", 0, facts, ())))
    assert summary.state is RunState.UNREADABLE
    [reason] = summary.unreadable
    assert reason.startswith(f"the property {next(iter(facts))} is ")


def test_an_invalid_process_id_is_not_looked_up():
    for pid in (-1, 2**40, "x"):
        process = json.dumps({"host": socket.gethostname(), "pid": pid, "started": 0})
        assert summarise(RunResult(Run(1, "run", "sample", 0, {"process": process}, ()))).state is RunState.UNREADABLE


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_store(folder / "other" / "metadata.db", pipeline="other", runs=1)
    make_store(folder / "sample" / "metadata.db", runs=3)
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "judgement")) for name in NAMES]
)
def test_every_command_shows_everything_else(name, runs, monkeypatch, capsys):
    """Every property of the newest run is replaced in turn by each kind of junk, for every command and page."""
    file = runs / "sample" / "metadata.db"
    whole = file.read_bytes()
    pages = create_app(runs).test_client()
    commands = [
        ["runs", "list"],
        ["runs", "list", "--json"],
        ["runs", "show", "sample-run-002"],
        ["runs", "show", "sample-run-002", "--json"],
        ["runs", "diff", "sample-run-002", "other-run-000"],
        ["runs", "export"],
        ["why", "sample-run-002"],
        ["why", "sample-run-002", "--json"],
        ["artifacts", "list", "--pipeline", "sample", "--json"],
        ["lineage", "span-3", "--down", "--pipeline", "sample"],
        ["bless", "sample-run-002", "--reason", "x"],
    ]
    try:
        for junk in JUNK:
            _put(file, name, junk)
            for command in commands:
                monkeypatch.setattr(sys, "argv", ["vitpipe", *command, "--runs", str(runs)])
                with pytest.raises(SystemExit) as ended:
                    main()
                streams = capsys.readouterr()
                assert ended.value.code == (2 if command[0] == "bless" else 0), (command, junk, streams.err)
                if command[:2] in (["runs", "list"], ["runs", "export"]):
                    assert "other-run-000" in streams.out and "sample-run-002" in streams.out
            for page in "/", "/sample/runs/sample-run-002", "/sample/charts", "/sample/artifacts":
                assert pages.get(page).status_code == 200, (page, junk)
            file.write_bytes(whole)
    finally:
        file.write_bytes(whole)


def test_a_text_that_is_not_utf8_hides_nothing(tmp_path, monkeypatch, capsys):
    file = tmp_path / "sample" / "metadata.db"
    make_store(file, runs=2)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE ContextProperty SET string_value = CAST(x'61ff' AS TEXT) WHERE name = 'trigger'")
    database.close()
    monkeypatch.setattr(sys, "argv", ["vitpipe", "runs", "list", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0 and capsys.readouterr().out.count("a\\xff") == 2


def _put(file, name, value):
    column = "byte_value" if isinstance(value, bytes) else "string_value"
    with sqlite3.connect(file) as database:
        for table in "Context", "Artifact":
            database.execute(
                f"UPDATE {table}Property SET int_value = NULL, double_value = NULL, string_value = NULL, "
                f"{column} = ? WHERE name = ?",
                (value, name),
            )
    database.close()


def test_a_number_that_is_not_finite_is_null_in_json(tmp_path, monkeypatch, capsys):
    file = tmp_path / "sample" / "metadata.db"
    make_store(file, runs=1)
    with sqlite3.connect(file) as database:
        database.execute(
            "UPDATE ArtifactProperty SET string_value = ? WHERE name = 'judgement'",
            ('{"candidate": {"accuracy": NaN}, "checks": []}',),
        )
        database.execute("UPDATE ArtifactProperty SET int_value = NULL, double_value = 9e999 WHERE name = 'span'")
    database.close()

    def constant(name):
        raise AssertionError(f"{name} is not JSON")

    printed = []
    for command in ("runs", "list"), ("runs", "show", "last"), ("artifacts", "list"):
        monkeypatch.setattr(sys, "argv", ["vitpipe", *command, "--json", "--runs", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        printed.append(json.loads(capsys.readouterr().out, parse_constant=constant))
    assert (printed[0][0]["accuracy"], printed[0][0]["unreadable"]) == (None, [])
    assert [one["properties"]["span"] for one in printed[2] if "span" in one["properties"]] == [None, None]

"""Text from outside cannot act on the terminal, whether a function or a command prints it."""

import contextlib
import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.data.ingest import prepare
from components.data.ingest.manifest import Recipe
from components.model.serving_folder import ModelId, ModelRecord, push
from pipeline.console.terminal import escape, printable
from tests.helpers.spans import encoded, picture
from tests.helpers.stores import make_store
from vitpipe.cli import main

HOSTILE = "x\x1b]0;owned\x07\r\x9b31m\x7f\u202e\u2028\u200b[bold][/red]:smile:\nFORGED"
FILE_NAME = HOSTILE.replace("/", "").encode() + b"\xff\x9b.png"  # not UTF-8 either
STYLE = re.compile(r"\r?\x1b\[\??[0-9;]*[A-Za-z]|\r(?=\x1b)")  # what Rich writes for styles and progress bars


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 猫, 🐈", "plain, é, 猫, 🐈"),
        ("\x1b[2J\x07\r", r"\x1b[2J\x07\r"),
        ("\x7f\x9b\u202e\u2066\u2028\u200b\ufeff", r"\u007f\u009b\u202e\u2066\u2028\u200b\ufeff"),
        (os.fsdecode(b"\xff\x9b"), r"\xff\x9b"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
        (Path("a\nb\tc"), r"a\nb\tc"),
    ],
)
def test_printable_is_one_line_without_control_characters(text, shown):
    assert printable(text) == shown


def test_an_escape_in_json_is_the_same_character():
    assert json.loads(escape('"\x7f\x9b\u2028"')) == "\x7f\x9b\u2028"
    assert escape("two\nlines\t1") == "two\nlines\t1"


def hostile(value):
    """Return a value with every text made hostile, except numbers and the names that the code compares."""
    if isinstance(value, dict):
        return {name: hostile(one) for name, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return value + HOSTILE if isinstance(value, str) and value not in ("at most", "at least") else value


def put_hostile_text(file):
    """Make every text of a store hostile that a person or a program outside may have put there."""
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        for table, ids in (("ContextProperty", "context_id"), ("ArtifactProperty", "artifact_id")):
            rows = database.execute(f"SELECT {ids}, name, string_value FROM {table} WHERE string_value != ''")
            for id, name, text in rows.fetchall():
                if text.isdigit():
                    continue
                text = text.replace('"warn": 0.05', '"warn": 0.01')  # a finding that `why` prints
                new = json.dumps(hostile(json.loads(text))) if text[0] in "{[" else text + HOSTILE
                database.execute(f"UPDATE {table} SET string_value = ? WHERE {ids} = ? AND name = ?", (new, id, name))
        database.execute("UPDATE Artifact SET uri = uri || ?", (HOSTILE,))
    database.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Create a pipeline with a hostile name, whose runs, artifacts and pushed model have hostile texts."""
    runs = tmp_path_factory.mktemp("runs")
    name = "p" + HOSTILE.replace("/", "")
    make_store(runs / name / "metadata.db", name, runs=7)
    put_hostile_text(runs / name / "metadata.db")
    (runs / name / "root").mkdir()
    model = tmp_path_factory.mktemp("model")
    (model / HOSTILE.replace("/", "")).write_text("weights")
    record = ModelRecord(
        version=1,
        pushed_at=datetime(2026, 1, 1, tzinfo=UTC),
        run_id=HOSTILE,
        span=1,
        data_digest=HOSTILE,
        model=ModelId(uri=HOSTILE, created_ms=1),
        code_version=HOSTILE,
        settings_digest=HOSTILE,
        metrics={"accuracy": 0.9},
        signatures=[HOSTILE],
        classes=[HOSTILE, "b"],
    )
    push(model, runs / name / "serving", record)
    return runs


@pytest.fixture
def images(tmp_path_factory):
    """Create a folder of two classes in which the only file that is not an image has a hostile name."""
    folder = tmp_path_factory.mktemp("images")
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir()
        for number in range(60):
            (folder / name / f"{number}.png").write_bytes(encoded(picture(2 * number + label, 8)))
    Path(os.fsdecode(bytes(folder / "cat") + b"/" + FILE_NAME)).write_bytes(b"no image")
    return folder


@pytest.fixture
def vitpipe(monkeypatch, capsys):
    """Run a command, check all that it printed, and return its exit code and standard output."""

    def command(*arguments, terminal=False):
        for variable in ("FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(variable, raising=False)
        if terminal:
            monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setattr(sys, "argv", ["vitpipe", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        streams = capsys.readouterr()
        for text in streams.out, streams.err:
            assert_harmless(STYLE.sub("", text) if terminal else text)
        command.said = streams.err
        return ended.value.code, streams.out

    return command


def assert_harmless(text):
    assert escape(text) == text
    assert not any(line.startswith("FORGED") for line in text.splitlines())


READING = [
    "runs list",
    "runs show last",
    "runs diff NEWEST OLDEST",
    "runs export",
    "why last",
    "artifacts list",
    "artifacts show 1",
    "artifacts show 2",
    "artifacts show v0",
    "lineage 5",
    "lineage 1 --down",
    "lineage 5 --format mermaid",
    "lineage 5 --format dot",
    "lineage 5 --format json",
    "models list",
    "models verify",
    "gc --keep 1 --dry-run",
    "report last --no-open",
    "runs show HOSTILE",
    "artifacts show HOSTILE",
    "artifacts list --type HOSTILE",
    "artifacts list --property HOSTILE",
    "runs list --json",
    "runs show last --json",
    "why last --json",
    "artifacts list --json",
    "models list --json",
    "rollback",
    "bless last --reason why",
    "rollback --pipeline HOSTILE",
]


FAILING = ("report", "runs show H", "artifacts show H", "artifacts list --t", "artifacts list --p", "rollback", "bless")


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("line", READING)
def test_a_command_prints_hostile_texts_of_a_store_escaped(vitpipe, runs, line, terminal):
    [name] = [folder.name for folder in runs.iterdir()]
    words = {"HOSTILE": HOSTILE, "NEWEST": f"{name}-run-006", "OLDEST": f"{name}-run-000"}
    code, out = vitpipe(*(words.get(word, word) for word in line.split()), "--runs", runs, terminal=terminal)
    assert code == (2 if line.startswith(FAILING) else 0)
    if "json" in line:
        assert json.dumps(HOSTILE.replace("/", ""))[1:-1] in json.dumps(json.loads(out))


def test_preparing_names_a_hostile_file_on_one_line(vitpipe, images, tmp_path):
    for number in range(40):  # one file in a hundred may be rejected
        (images / "dog" / f"more{number}.png").write_bytes(encoded(picture(1000 + number, 8)))
    code, _ = vitpipe("data", "prepare", "images", "--source", images, "--out", tmp_path / "out")
    [line] = [line for line in vitpipe.said.splitlines() if line.startswith("rejected ")]
    assert code == 0
    assert line.endswith(
        r"(first: cat/x\x1b]0;owned\x07\r\u009b31m\u007f\u202e\u2028\u200b[bold][red]:smile:\nFORGED\xff\x9b.png)"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_rejected_data_name_a_hostile_file_on_one_line(vitpipe, images, tmp_path, terminal):
    for file in (images / "cat").glob("[1-5]?.png"):
        file.unlink()
    code, _ = vitpipe("data", "prepare", "images", "--source", images, "--out", tmp_path / "out", terminal=terminal)
    [error] = [line for line in vitpipe.said.splitlines() if "error:" in line]
    assert code == 3 and r"\nFORGED\xff\x9b.png); repair" in error


def test_verifying_names_a_hostile_file_on_one_line(vitpipe, images, tmp_path):
    prepare("images", tmp_path, str(images), recipe=Recipe(max_rejected=0.05))
    Path(os.fsdecode(bytes(tmp_path / "span-1" / "train") + b"/" + FILE_NAME)).touch()
    code, out = vitpipe("data", "verify", tmp_path)
    [line] = out.splitlines()
    assert code == 3 and r"\nFORGED\xff\x9b.png: not listed in the manifest" in line


HOSTILE_FILE = os.fsdecode(FILE_NAME)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["predict", HOSTILE_FILE], 2),
        (["explain", HOSTILE_FILE], 2),
        (["run", "-c", HOSTILE_FILE], 2),
        (["run", "--set", f"{HOSTILE_FILE}=1", "--set", f"name={HOSTILE_FILE}"], 2),
        (["run", "--data", HOSTILE_FILE], 2),
        (["data", "prepare", "images", "--source", HOSTILE_FILE], 2),
        (["data", "verify", HOSTILE_FILE], 2),
        (["augment", "--data", HOSTILE_FILE], 2),
        (["watch", "--data", HOSTILE_FILE], 2),
        (["study", "data-regime", "--data", HOSTILE_FILE], 2),
        (["kfp", "compile", "-c", HOSTILE_FILE], 2),
        (["kfp", "status", HOSTILE_FILE, "--set", f"kubeflow.endpoint={HOSTILE_FILE}"], 2),
        (["gc", "--keep", "1", "--pipeline", HOSTILE_FILE], 2),
        (["bless", HOSTILE_FILE, "--reason", HOSTILE_FILE], 2),
        (["why", "run", HOSTILE_FILE], 2),
        ([HOSTILE_FILE], 2),
    ],
)
def test_an_error_repeats_hostile_words_of_the_command_line_escaped(vitpipe, tmp_path, monkeypatch, words, code):
    monkeypatch.chdir(tmp_path)
    for terminal in False, True:
        assert vitpipe(*words, terminal=terminal)[0] == code


def test_a_settings_file_with_hostile_keys_and_values(vitpipe, tmp_path):
    file = tmp_path / "settings.yaml"
    for text in json.dumps({HOSTILE: 1, "name": HOSTILE, "training": {"epochs": HOSTILE}}), "a: [\x9b\u202e", "a: \x1b":
        file.write_text(text)
        code, _ = vitpipe("run", "-c", file)
        assert code == 2


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
def test_on_a_terminal_without_utf8_too(images, tmp_path, locale):
    for number in range(40):
        (images / "dog" / f"more{number}.png").write_bytes(encoded(picture(1000 + number, 8)))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vitpipe", "data", "prepare", "images", "--source", images, "--out", tmp_path]
    environment = {**os.environ, **locale, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[3])}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    printed = b""
    try:
        while part := os.read(ours, 4096):
            printed += part
    except OSError:  # Linux raises it at the end of a terminal
        pass
    os.close(ours)
    assert process.wait() == 0 and rb"\x1b]0;owned\x07\r\u009b31m" in printed
    assert b"\x1b]" not in printed and b"\x07" not in printed and b"\xff" not in printed

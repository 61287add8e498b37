import io
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = """
    import logging, os, sys
    from pathlib import Path
    from pipeline.console.logs import own_stderr, redirected
    print("before")
    with own_stderr() as terminal, redirected(Path("run.log")):
        print("python")
        os.write(2, b"a C library\\n")
        os.system("echo a child process")
        logging.getLogger("some.library").info("a log record")
        print("ours", file=terminal)
    print("after", file=sys.stderr)
"""


def test_library_output_goes_to_the_file_and_ours_to_the_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.stdout == "before\n"
    assert done.stderr == "ours\nafter\n"
    written = (tmp_path / "run.log").read_text()
    for line in ("python", "a C library", "a child process", "INFO some.library: a log record"):
        assert line in written


def test_logging_is_restored(tmp_path):
    from pipeline.console.logs import redirected

    before = logging.getLogger().handlers[:]
    with redirected(tmp_path / "log"):
        assert logging.getLogger().handlers != before
    assert logging.getLogger().handlers == before


def test_output_of_a_notebook_goes_to_the_file(tmp_path, monkeypatch):
    """A notebook has streams of its own, which do not write to the file descriptors."""
    from pipeline.console.logs import redirected

    stdout, stderr = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setattr(sys, "stderr", stderr)
    with redirected(tmp_path / "log"):
        print("python")
        print("a warning of a library", file=sys.stderr)
        logging.getLogger("some.library").info("a log record")
        logging.getLogger("some.library").info("class \x1b[2J")
    print("after")
    assert (stdout.getvalue(), stderr.getvalue()) == ("after\n", "")
    written = (tmp_path / "log").read_text()
    for line in ("python", "a warning of a library", "INFO some.library: a log record"):
        assert line in written
    assert "class " in written and "\x1b" not in written  # control characters are escaped

"""Processes that are killed right after a rename, or in the middle of a change of a store."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_KILL = """
    import os, signal
    from pathlib import Path
    left = {rename}
    def dying(real):
        def rename(self, target):
            global left
            answer = real(self, target)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        return rename
    Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
"""
# The change is larger than SQLite's cache, so one half of it is in the file and the other half in a journal.
_KILL_WRITER = """
import os, signal, sqlite3, sys
writer = sqlite3.connect(sys.argv[1], isolation_level=None)
writer.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
writer.execute("PRAGMA cache_size = 1")
writer.execute("BEGIN IMMEDIATE")
for table in "ContextProperty", "ExecutionProperty":
    writer.execute(f"UPDATE {table} SET string_value = 'half', int_value = 7")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_after(rename: int, code: str) -> bool:
    """Run code that is killed after a number of renames.

    Args:
        rename: the number of renames, from 1.
        code: Python code.

    Returns:
        False if the code ended before that rename.
    """
    script = textwrap.dedent(_KILL).format(rename=rename) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 2, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL


def kill_a_writer(store: Path, mode: str = "DELETE") -> None:
    """Kill a process in the middle of a change of a SQLite file.

    Args:
        store: the file.
        mode: its journal mode.
    """
    killed = subprocess.run([sys.executable, "-c", _KILL_WRITER, str(store), mode])
    assert killed.returncode == -signal.SIGKILL

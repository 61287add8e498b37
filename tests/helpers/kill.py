"""Run Python code in a process that is killed right after one of its renames."""

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


def killed_after(rename: int, code: str) -> bool:
    """Run `code`, and return whether it was killed after rename number `rename`, from 1."""
    script = textwrap.dedent(_KILL).format(rename=rename) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", script], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 2, -signal.SIGKILL), done.stderr
    return done.returncode == -signal.SIGKILL

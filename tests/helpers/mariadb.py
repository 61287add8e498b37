"""MariaDB server for tests, with a temporary data folder."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql

PASSWORD = "s3cret /'\"@:%#\\ ü"  # has characters that are special in shells, addresses, SQL and YAML, and not ASCII
_ACCOUNT = ["--user=mysql"] if os.getuid() == 0 else []  # the server does not run as root


def missing() -> str:
    """Return why no server can be started here; empty if it can."""
    programs = [name for name in ("mariadbd", "mariadb-install-db") if not _program(name)]
    return f"no {' and '.join(programs)}: apt-get install mariadb-server" if programs else ""


class Server:
    """Server with a user `vitpipe` with PASSWORD, who has all rights in databases named vitpipe_..."""

    def __init__(self) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="mariadb-")
        )  # short, because the path of a socket has at most 107 characters
        if _ACCOUNT:
            shutil.chown(self.folder, "mysql")
        with socket.socket() as any_port:
            any_port.bind(("127.0.0.1", 0))
            self.port = any_port.getsockname()[1]
        subprocess.run(
            [
                _program("mariadb-install-db"),
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
                *_ACCOUNT,
            ],
            check=True,
            capture_output=True,
        )
        self.start()
        with self._root() as root, root.cursor() as cursor:
            cursor.execute("CREATE USER vitpipe@'127.0.0.1' IDENTIFIED BY %s", [PASSWORD])
            cursor.execute(r"GRANT ALL ON `vitpipe\_%%`.* TO vitpipe@'127.0.0.1'", [])

    def start(self) -> None:
        command = [
            _program("mariadbd"),
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            *_ACCOUNT,
            f"--socket={self.folder / 'socket'}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            f"--port={self.port}",
        ]
        with (self.folder / "log").open("a") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        for _ in range(300):
            try:
                self._root().close()
                return
            except pymysql.OperationalError:
                time.sleep(0.1)
        raise TimeoutError((self.folder / "log").read_text())

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def database(self, name: str) -> str:
        """Create an empty database, in place of an existing one of that name. Returns its address."""
        with self._root() as root, root.cursor() as cursor:
            cursor.execute(f"CREATE OR REPLACE DATABASE vitpipe_{name}")
        return f"mysql://vitpipe@127.0.0.1:{self.port}/vitpipe_{name}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _root(self) -> pymysql.Connection:
        return pymysql.connect(unix_socket=str(self.folder / "socket"), user="root")


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""

"""Address of a store of ML Metadata, and connections to it: one SQLite file, or a MySQL or MariaDB server."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import tenacity

from components.errors import StoreError
from pipeline.console.terminal import print_line

if TYPE_CHECKING:
    from ml_metadata.proto import metadata_store_pb2 as mlmd

PASSWORD = "VITPIPE_METADATA__PASSWORD"
ADDRESS = "VITPIPE_METADATA__ADDRESS"  # the setting metadata.address
_SCHEMA = 10  # of the tables, since ml-metadata 1.9
_ATTEMPTS, _TIMEOUT = 4, 10  # tries, and seconds for each to connect
_MOST_VALUES = 30_000  # in a query: SQLite takes 32,766, where its builder has not said otherwise
# Errors of a reader if a writer was killed in the middle of a change, which must be undone before anything is read.
_UNFINISHED = {"SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT", "SQLITE_CANTOPEN"}
_MYSQL_GONE = {2003, 2006, 2013, 1040, 1205, 1213}  # away, went away, too many connections, lock waits, a deadlock


class NoStore(StoreError):
    """There is none yet: the first run makes it."""


@dataclass(frozen=True)
class Address:
    """A SQLite file, or a database on a server. The password is in no representation of it."""

    file: Path | None = None
    host: str = ""
    port: int = 3306
    database: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, password: str | None = None) -> Address:
        """A path, or `mysql://USER@HOST[:PORT]/DATABASE`; the password comes from the environment.

        Raises StoreError for another scheme, and for a password in the address, where every list of processes shows it.
        """
        if "://" not in text:
            return cls(file=Path(text))
        # No message shows the text: a password may stand in it, wrong as that is, and anywhere if it is not quoted.
        wanted = "write a path to a SQLite file or mysql://USER@HOST[:PORT]/DATABASE, without a password"
        try:
            url = urlsplit(text)
            port = url.port or 3306
        except ValueError:
            raise StoreError(f"the address has no host, or no port from 1 to 65535: {wanted}") from None
        if url.scheme != "mysql" or not url.hostname or not url.path.strip("/") or not url.username:
            raise StoreError(f"{url.scheme}://...: {wanted}")
        if url.password is not None:
            raise StoreError(f"mysql://{url.hostname}: a password does not belong there; put it in {PASSWORD}")
        return cls(
            host=url.hostname,
            port=port,
            database=unquote(url.path.strip("/")),
            user=unquote(url.username),
            password=os.environ.get(PASSWORD, "") if password is None else password,
        )

    def __str__(self) -> str:
        """As `parse` reads it again."""
        if self.file:
            return str(self.file)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{quote(self.user, safe='')}@{host}:{self.port}/{quote(self.database, safe='')}"

    def run_folder(self, runs: Path, pipeline: str) -> Path:
        """Return the run folder of a pipeline that this store knows.

        Args:
            runs: where the run folders are.
            pipeline: the pipeline's name in the store. The folder may have another name if the store lies in it.

        Raises:
            StoreError: if a server returns an invalid name, for example one with `..` in it.
        """
        if self.file:
            return self.file.parent.resolve()
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", pipeline):
            raise StoreError(
                f"{self}: {pipeline!r} is not the name of a pipeline: use lower-case letters, digits and hyphens"
            )
        return (runs / pipeline).resolve()

    def connection_config(self) -> mlmd.ConnectionConfig:
        """The same for `ml_metadata`, which makes a file that is missing."""
        from ml_metadata.proto import metadata_store_pb2 as mlmd

        config = mlmd.ConnectionConfig()
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            config.sqlite.filename_uri = str(self.file)
            config.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        else:
            config.mysql.host, config.mysql.port, config.mysql.database = self.host, self.port, self.database
            config.mysql.user, config.mysql.password = self.user, self.password
        return config


class Connection:
    """Reads, and nothing else."""

    def __init__(self, raw: Any, marker: str):
        self._raw, self._marker = raw, marker
        self.calls = 0  # of the store, so far

    def rows(self, sql: str, *values: object) -> list[Any]:
        """The rows of a query, each a tuple. `?` in it is a value; one that is a list or tuple takes one `?` a member.

        A list must not be empty. One that is longer than SQLite takes is asked for in parts, one after the other.

        SQLAlchemy's `bindparam(expanding=True)` would write the list, too, but not ask in parts. Its import takes 0.8 s
        of processor time, and all of `vitpipe runs list` takes 0.6 s. PyMySQL writes lists itself, `sqlite3` does not.
        """
        for place, value in enumerate(values):
            if isinstance(value, list | tuple) and len(value) > _MOST_VALUES:
                parts_of = [value[start : start + _MOST_VALUES] for start in range(0, len(value), _MOST_VALUES)]
                return [row for part in parts_of for row in self.rows(sql, *values[:place], part, *values[place + 1 :])]
        flat: list[object] = []
        parts = sql.split("?")
        query = parts[0]
        for value, rest in zip(values, parts[1:], strict=True):
            members = list(value) if isinstance(value, list | tuple) else [value]
            flat += members
            query += ",".join([self._marker] * len(members)) + rest
        self.calls += 1
        cursor = self._raw.cursor()
        cursor.execute(query, flat)
        return list(cursor.fetchall())


@contextlib.contextmanager
def connect(address: Address) -> Iterator[Connection]:
    """Open a read-only connection.

    If the last writer was killed in the middle of a change, SQLite first undoes the change, and a note is printed.

    Raises StoreError if the store is missing, not one of ML Metadata, damaged, locked or unreachable.
    """
    raw = _open(address)
    connection = Connection(raw, "?" if address.file else "%s")
    try:
        _check(address, connection)
        yield connection
    except _errors() as error:
        raise _explained(address, error) from error
    finally:
        raw.close()


@contextlib.contextmanager
def write(address: Address) -> Iterator[sqlite3.Connection]:
    """Open a transaction on a store's file, for changes that ml-metadata could only make together with changed times.

    Raises StoreError if the file is locked, or if this user may not write it.
    """
    assert address.file is not None
    try:
        raw = sqlite3.connect(
            f"{address.file.resolve().as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT, isolation_level=None
        )
        with contextlib.closing(raw):
            raw.execute("BEGIN IMMEDIATE")
            yield raw
            raw.execute("COMMIT")
    except sqlite3.Error as error:
        raise _explained(address, error) from error


def check_server(address: Address) -> None:
    """Raises StoreError where a server is away or lets us not in. A database without tables is fine, as is any file."""
    if address.file:
        return
    _open(address).close()


def _open(address: Address) -> Any:
    if address.file and not address.file.is_file():
        if os.path.lexists(address.file):
            raise StoreError(
                f"{address.file} is no SQLite file, but a folder, a device or a link that leads to no file: move it "
                "away and put a copy of the store there; the pushed models and the artifacts do not depend on it"
            )
        raise NoStore(f"no store at {address.file}: `vitpipe run` makes one")
    try:
        return _opened(address)
    except StoreError:
        raise
    except Exception as error:
        raise _explained(address, error) from error


def _opened(address: Address) -> Any:
    if address.file:
        return _opened_file(address.file)
    import pymysql  # a tenth of a second that a SQLite file need not wait for

    def gone(error: BaseException) -> bool:
        return isinstance(error, pymysql.OperationalError) and error.args[0] in _MYSQL_GONE

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=0.25),
        retry=tenacity.retry_if_exception(gone),
        reraise=True,
    )
    def server() -> Any:
        return pymysql.connect(
            # As bytes: pymysql takes a text for Latin-1, the server and ml_metadata for UTF-8.
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password.encode(),
            database=address.database,
            connect_timeout=_TIMEOUT,
            read_timeout=60,
            charset="latin1",
        )

    raw = server()
    raw.encoding = "utf8"  # ml_metadata sends UTF-8 and tells the server that it is Latin-1; so do we
    with raw.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    return raw


def _opened_file(file: Path) -> sqlite3.Connection:
    """Open a connection that only reads, once SQLite has undone the change of a writer that was killed."""
    try:
        return _begun(file, "ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in _UNFINISHED or not _leftovers(file):
            raise
    try:
        raw = _begun(file, "rw")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        raise StoreError(
            f"{file} cannot be read yet: its last writer was killed in the middle of a change, which "
            f"{' and '.join(_leftovers(file))} holds, and this user cannot undo it ({error}). As a user with write "
            f"permission in {file.parent}, start `vitpipe runs list --runs {file.parent.parent}`, or any other "
            "command that reads the store"
        ) from None
    raw.execute("PRAGMA query_only = 1")
    print_line(
        f"note: the last writer of {file} was killed in the middle of a change; the change was undone, and the store "
        "is intact",
        sys.stderr,
    )
    return raw


def _begun(file: Path, mode: str) -> sqlite3.Connection:
    # The timeout lets a short write end. Neither mode creates a missing file.
    raw = sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=_TIMEOUT)
    raw.text_factory = lambda text: text.decode("utf-8", "backslashreplace")  # one bad text must not hide all others
    try:
        raw.execute("BEGIN")  # every query of a question sees the same moment
        raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # BEGIN alone does not open the file yet
    except BaseException:
        raw.close()
        raise
    return raw


def _leftovers(file: Path) -> list[str]:
    """Return the files beside a database that hold an unfinished change."""
    return [f"{file}{suffix}" for suffix in ("-journal", "-wal") if Path(f"{file}{suffix}").exists()]


def _check(address: Address, connection: Connection) -> None:
    try:
        versions = connection.rows("SELECT schema_version FROM MLMDEnv")
    except _errors() as error:
        if "MLMDEnv" in str(error):  # "no such table" and "doesn't exist"
            raise NoStore(f"{address} is not a store of ML Metadata: it has no table MLMDEnv") from None
        raise
    if versions != [(_SCHEMA,)]:
        found = ", ".join(str(version) for (version,) in versions) or "none"
        raise StoreError(
            f"{address} has the tables of ML Metadata's schema version {found}, this reads {_SCHEMA}: "
            "migrate it with the ml-metadata that is installed here (its MetadataStore takes "
            "enable_upgrade_migration=True), after a copy"
        )


def _errors() -> tuple[type[Exception], ...]:
    """What a query can raise; of pymysql only where it is in use."""
    pymysql = sys.modules.get("pymysql")
    return (sqlite3.Error, pymysql.MySQLError) if pymysql else (sqlite3.Error,)


def _explained(address: Address, error: Exception) -> StoreError:
    text = str(error)
    if address.file and "locked" in text:
        return StoreError(f"{address} is locked by another process for more than {_TIMEOUT} s: try again, or see who")
    if address.file:
        if not os.access(address.file, os.R_OK):
            return StoreError(f"{address} may not be read by this user ({text}): ask its owner for read permission")
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            return StoreError(f"{address} may not be written by this user ({text}): ask its owner for write permission")
        leftovers = " and ".join(_leftovers(address.file))
        together = f", after moving {leftovers} away, which belongs to the damaged file" if leftovers else ""
        return StoreError(
            f"{address} is damaged or no SQLite file ({text}): put a copy of it back{together}; the pushed models and "
            "the artifacts do not depend on it"
        )
    return StoreError(
        f"{address}: {text} (tried {_ATTEMPTS} times where the server was away; password from {PASSWORD})"
    )

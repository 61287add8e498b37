"""Address of a store of ML Metadata, and connections to it. A store is a SQLite file, or a MySQL or MariaDB server."""

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
    import pymysql
    from ml_metadata.proto import metadata_store_pb2 as mlmd

PASSWORD = "VITPIPE_METADATA__PASSWORD"
ADDRESS = "VITPIPE_METADATA__ADDRESS"  # the setting metadata.address
_SCHEMA = 10  # version of the tables, since ml-metadata 1.9
_ATTEMPTS, _TIMEOUT = 4, 10  # number of attempts to connect, and seconds for each
_MOST_VALUES = 30_000  # values in one query; the default limit of SQLite is 32,766
# Errors of a reader if a writer was killed during a change. The change must be undone before anything can be read.
_UNFINISHED = {"SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY", "SQLITE_READONLY_CANTINIT", "SQLITE_CANTOPEN"}
# Errors that a later attempt may not have: server unreachable, connection lost, too many connections, lock timeout,
# deadlock.
_MYSQL_TEMPORARY = {2003, 2006, 2013, 1040, 1205, 1213}


class NoStoreError(StoreError):
    """The store does not exist yet. The first run creates it."""


@dataclass(frozen=True)
class Address:
    """Address of a store: a SQLite file, or a database on a server. Its text forms leave out the password."""

    file: Path | None = None
    host: str = ""
    port: int = 3306
    database: str = ""
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str, password: str | None = None) -> Address:
        """Parse an address.

        Args:
            text: a path, or `mysql://USER@HOST[:PORT]/DATABASE`.
            password: password for the server; None to read it from the environment.

        Raises:
            StoreError: if the text is not such an address, or contains a password, which process lists would show.
        """
        if "://" not in text:
            return cls(file=Path(text))
        # Messages do not repeat the text, because the user may have put a password anywhere in it.
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

    @classmethod
    def of(cls, config: mlmd.ConnectionConfig) -> Address:
        """Return the address of a store from the form of `ml_metadata`."""
        if config.HasField("sqlite"):
            return cls(file=Path(config.sqlite.filename_uri))
        server = config.mysql
        return cls(None, server.host, server.port, server.database, server.user, server.password)

    def __str__(self) -> str:
        """Return the address in the form that `parse` reads."""
        if self.file:
            return str(self.file)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{quote(self.user, safe='')}@{host}:{self.port}/{quote(self.database, safe='')}"

    def run_folder(self, runs: Path, pipeline: str) -> Path:
        """Return the run folder of a pipeline that this store knows.

        Args:
            runs: folder of the run folders.
            pipeline: name of the pipeline. It is ignored if the store is a file, whose folder is the run folder even if
                it was renamed.

        Raises:
            StoreError: if a server returned an invalid name, for example with `..` in it.
        """
        if self.file:
            return self.file.parent.resolve()
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", pipeline):
            raise StoreError(
                f"{self}: {pipeline!r} is not the name of a pipeline: use lower-case letters, digits and hyphens"
            )
        return (runs / pipeline).resolve()

    def connection_config(self) -> mlmd.ConnectionConfig:
        """Return the address in the form of `ml_metadata`, which creates a missing file."""
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
    """Read-only connection to a store.

    Args:
        raw: connection of the database driver.
        marker: the driver's placeholder for a value in a query.
    """

    def __init__(self, raw: sqlite3.Connection | pymysql.Connection[Any], marker: str) -> None:
        self._raw, self._marker = raw, marker
        self.calls = 0  # number of queries so far

    def rows(self, sql: str, *values: object) -> list[Any]:
        """Return the rows of a query as tuples.

        A list that is too long for one query is split over several queries.

        SQLAlchemy's `bindparam(expanding=True)` could expand lists, too, but not split them. Its import takes 0.8 s of
        processor time, and all of `vitpipe runs list` takes 0.6 s. PyMySQL expands lists itself, `sqlite3` does not.

        Args:
            sql: the query, with a `?` for each value.
            *values: the values. A list or tuple stands for all its members, for example in `id IN (?)`, and must not be
                empty.
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

    If the last writer was killed during a change, SQLite first undoes the change, and a note is printed.

    Raises:
        NoStoreError: if the store does not exist yet.
        StoreError: if the store has tables of another version, or is damaged, locked or unreachable.
    """
    raw = _open(address)
    connection = Connection(raw, "?" if address.file else "%s")
    try:
        _check(address, connection)
        yield connection
    except _errors() as error:
        raise _store_error(address, error) from error
    finally:
        raw.close()


@contextlib.contextmanager
def write(address: Address) -> Iterator[sqlite3.Connection]:
    """Open a transaction on a store's file, for changes that keep the recorded times.

    ml-metadata's own interface would update the times.

    Raises:
        StoreError: if the file is locked, or if this user may not write it.
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
        raise _store_error(address, error) from error


def check_server(address: Address) -> None:
    """Check that a server can be reached. A database without tables passes, and so does any file.

    Raises:
        StoreError: if the server is unreachable or rejects the login.
    """
    if address.file:
        return
    _open(address).close()


def _open(address: Address) -> sqlite3.Connection | pymysql.Connection[Any]:
    if address.file and not address.file.is_file():
        if os.path.lexists(address.file):
            raise StoreError(
                f"{address.file} is not a SQLite file, but a folder, a device or a broken link: move it away and "
                "restore a backup of the store; the pushed models and the artifacts do not depend on it"
            )
        raise NoStoreError(f"no store at {address.file}: `vitpipe run` creates it")
    try:
        return _open_file(address.file) if address.file else _open_server(address)
    except StoreError:
        raise
    except Exception as error:
        raise _store_error(address, error) from error


def _open_server(address: Address) -> pymysql.Connection[Any]:
    import pymysql  # takes a tenth of a second, which only a server needs

    def is_temporary(error: BaseException) -> bool:
        return isinstance(error, pymysql.OperationalError) and error.args[0] in _MYSQL_TEMPORARY

    @tenacity.retry(
        stop=tenacity.stop_after_attempt(_ATTEMPTS),
        wait=tenacity.wait_exponential(multiplier=0.25),
        retry=tenacity.retry_if_exception(is_temporary),
        reraise=True,
    )
    def connect_to_server() -> pymysql.Connection[Any]:
        return pymysql.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            # The password is passed as bytes: pymysql would encode a text as Latin-1, but the server expects UTF-8.
            password=address.password.encode(),
            database=address.database,
            connect_timeout=_TIMEOUT,
            read_timeout=60,
            charset="latin1",
        )

    raw = connect_to_server()
    raw.encoding = "utf8"  # like ml_metadata, which sends UTF-8 although it declares Latin-1 to the server
    with raw.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    return raw


def _open_file(file: Path) -> sqlite3.Connection:
    """Open a read-only connection, after SQLite has undone an unfinished change of a writer that was killed."""
    try:
        return _begin(file, "ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in _UNFINISHED or not _leftovers(file):
            raise
    try:
        raw = _begin(file, "rw")
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise
        raise StoreError(
            f"{file} cannot be read yet: its last writer was killed during a change, which is recorded in "
            f"{' and '.join(_leftovers(file))}, and this user cannot undo it ({error}). As a user with write "
            f"permission in {file.parent}, start `vitpipe runs list --runs {file.parent.parent}`, or any other "
            "command that reads the store"
        ) from None
    raw.execute("PRAGMA query_only = 1")
    print_line(
        f"note: the last writer of {file} was killed during a change; the change was undone, and the store is intact",
        sys.stderr,
    )
    return raw


def _begin(file: Path, mode: str) -> sqlite3.Connection:
    """Open a file and begin a transaction. Neither the mode "ro" nor "rw" creates a missing file."""
    # The timeout allows a short write of another process to end.
    raw = sqlite3.connect(f"{file.resolve().as_uri()}?mode={mode}", uri=True, timeout=_TIMEOUT)
    raw.text_factory = lambda text: text.decode("utf-8", "backslashreplace")  # an invalid text must not hide the others
    try:
        raw.execute("BEGIN")  # all queries see the store at the same moment
        raw.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # BEGIN alone does not open the file
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
            raise NoStoreError(f"{address} is not a store of ML Metadata: it has no table MLMDEnv") from None
        raise
    if versions != [(_SCHEMA,)]:
        version = ", ".join(str(version) for (version,) in versions) or "unknown"
        raise StoreError(
            f"{address} has tables of ML Metadata's schema version {version}, but this version reads {_SCHEMA}: make a "
            "copy, then migrate the store with the installed ml-metadata (open it with "
            "MetadataStore(..., enable_upgrade_migration=True))"
        )


def _errors() -> tuple[type[Exception], ...]:
    """Return the errors that a query can raise. Those of pymysql count only if it was imported."""
    pymysql = sys.modules.get("pymysql")
    return (sqlite3.Error, pymysql.MySQLError) if pymysql else (sqlite3.Error,)


def _store_error(address: Address, error: Exception) -> StoreError:
    """Return the error for a failed connection or query, with what to do about it."""
    text = str(error)
    if address.file and "locked" in text:
        return StoreError(
            f"{address} has been locked by another process for more than {_TIMEOUT} s: try again, or end that process"
        )
    if address.file:
        if not os.access(address.file, os.R_OK):
            return StoreError(f"{address} cannot be read by this user ({text}): ask its owner for read permission")
        if getattr(error, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            return StoreError(f"{address} cannot be written by this user ({text}): ask its owner for write permission")
        leftovers = " and ".join(_leftovers(address.file))
        first = f"move {leftovers} away, which belongs to the damaged file, and then " if leftovers else ""
        return StoreError(
            f"{address} is damaged or not a SQLite file ({text}): {first}restore a backup of it; the pushed models and "
            "the artifacts do not depend on it"
        )
    return StoreError(
        f"{address}: {text} (a server that does not answer is tried {_ATTEMPTS} times). Check that the server is "
        f"running, and that {PASSWORD} holds the password of the user"
    )

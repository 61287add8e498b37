"""Reader of a store. Each method makes a fixed number of queries, independent of the size of the store and the answer.

The tables are read directly: ml-metadata's own interface can return the executions of one run, but not those of many
runs in one call, and its filters need a library that its wheels are built without.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from components.model.serving_folder import version_by_run
from pipeline.metadata import relocation
from pipeline.metadata.address import Address, Connection, connect
from pipeline.metadata.records import COMPARED, RESOLVER, Artifact, Edge, Execution, Lineage, Run, Value

# Numbers of ml-metadata for types and states.
_ARTIFACT, _CONTEXT = 1, 2
_ARTIFACT_STATES = {
    0: "unknown",
    1: "pending",
    2: "live",
    3: "marked for deletion",
    4: "deleted",
    5: "abandoned",
    6: "reference",
}
_EXECUTION_STATES = {0: "unknown", 1: "new", 2: "running", 3: "complete", 4: "failed", 5: "cached", 6: "canceled"}
_CACHED = 5
_LAST_MS = 253_402_300_799_999  # end of the year 9999, the last time that datetime can represent
_INTO, _OUT = (2, 3, 5), (1, 4, 6)  # types of events: declared, plain and internal inputs; and outputs
_ARTIFACT_COLUMNS = "a.id, t.name, a.uri, a.state, a.name, a.create_time_since_epoch, a.last_update_time_since_epoch"
_EXECUTION_COLUMNS = "e.id, t.name, e.last_known_state, e.create_time_since_epoch, e.last_update_time_since_epoch"
_PROPERTY_COLUMNS = "p.name, p.int_value, p.double_value, p.string_value, p.byte_value, p.bool_value"


def _has_key(event: str, keys: Sequence[str]) -> str:
    """Return the SQL condition that an event belongs to a channel in `keys`."""
    names = ", ".join(f"'{key}'" for key in keys)
    return f"EXISTS (SELECT 1 FROM EventPath k WHERE k.event_id = {event}.id AND k.step_key IN ({names}))"


def _is_channel(event: str) -> str:
    """Return the SQL condition that an event belongs to a channel, and not only to a condition of the graph.

    TFX names the inputs of conditions with a leading underscore.
    """
    return (
        f"EXISTS (SELECT 1 FROM EventPath k WHERE k.event_id = {event}.id AND k.step_key IS NOT NULL "
        "AND SUBSTR(k.step_key, 1, 1) <> '_')"
    )


_RAN = "e.last_known_state <> ? AND e.type_id NOT IN (SELECT x.id FROM Type x WHERE x.name = ?)"
# Joins the execution `e` that made an artifact: the first one with it as an output. Cached executions of later runs
# have the same output.
_MADE = f"""
    JOIN Event n ON n.id = (
        SELECT m.id FROM Event m JOIN Execution e ON e.id = m.execution_id
        WHERE m.artifact_id = {{artifact}} AND m.type IN (?) AND {_RAN} ORDER BY m.execution_id LIMIT 1
    )
    JOIN Execution e ON e.id = n.execution_id"""
# Joins the executions `e` that read an artifact, except for a comparison or a condition of the graph.
_USED = f"""
    JOIN Event n ON n.artifact_id = {{artifact}} AND n.type IN (?)
    AND NOT {_has_key("n", COMPARED)} AND {_is_channel("n")}
    JOIN Execution e ON e.id = n.execution_id AND {_RAN}"""


@contextlib.contextmanager
def reader(address: Address) -> Iterator[Reader]:
    """Open a store for reading. The reader sees the store at one moment, even if others write to it.

    Raises:
        NoStoreError: if the store does not exist yet.
        StoreError: if the store cannot be read.
    """
    with connect(address) as connection:
        # The path is resolved after `connect`, which rejects a link that leads to itself.
        folder = address.file.resolve().parent if address.file else None
        yield Reader(connection, folder)


class Reader:
    """Queries on a store at one moment, see `reader`.

    Args:
        connection: connection to the store.
        folder: the run folder that contains the store; None for a server. If the folder was moved, artifacts are
            returned with their current paths, which the next run records in the store.
    """

    def __init__(self, connection: Connection, folder: Path | None = None) -> None:
        self._connection = connection
        self._folder = folder if folder and (folder / "root").is_dir() else None
        self._serving = folder / "serving" if folder else None

    @functools.cached_property
    def _versions(self) -> dict[str, str]:
        """Version that each run pushed, by the name of the run, according to the records of the versions."""
        return version_by_run(self._serving) if self._serving else {}

    def runs(
        self,
        pipeline: str | None = None,
        since_ms: int = 0,
        limit: int | None = None,
        offset: int = 0,
        details: bool = True,
    ) -> list[Run]:
        """Return runs, the newest first.

        Args:
            pipeline: runs of this pipeline only; None for all.
            since_ms: runs that started at this time or later, in milliseconds since 1970.
            limit: number of runs; None for all.
            offset: number of runs to skip; has an effect only with `limit`.
            details: read the artifacts and properties of the executions, too. Without them, the query is faster, and
                pushes that a run did not record itself are missing.
        """
        condition = "c.create_time_since_epoch >= ?"
        values: list[object] = [since_ms]
        if pipeline is not None:
            # A run is not in the context of its pipeline, but its executions are in both contexts. EXISTS would be
            # slow: MariaDB evaluates it for all runs first, which takes minutes for 2,000 runs.
            condition += """ AND (
                SELECT q.name FROM Association a JOIN Association b ON b.execution_id = a.execution_id
                JOIN Context q ON q.id = b.context_id JOIN Type s ON s.id = q.type_id
                WHERE a.context_id = c.id AND s.name = 'pipeline' LIMIT 1) = ?"""
            values.append(pipeline)
        return self._runs(condition, values, limit, offset, details)

    def runs_without(self, fact: str) -> list[Run]:
        """Return the runs that have not recorded a fact, the newest first, without details (see `runs`)."""
        condition = "NOT EXISTS (SELECT 1 FROM ContextProperty p WHERE p.context_id = c.id AND p.name = ?)"
        return self._runs(condition, [fact], details=False)

    def run(self, name: str) -> Run | None:
        """Return the run with a name; None if there is no such run."""
        return next(iter(self._runs("c.name = ?", [name])), None)

    def runs_named(self, names: Sequence[str]) -> list[Run]:
        """Return the runs with these names, the newest first."""
        return self._runs("c.name IN (?)", [names]) if names else []

    def run_names(self) -> list[str]:
        """Return the names of all runs, the newest first."""
        return [name for _, name, _ in self._run_rows("1 = 1", [])]

    def artifacts(
        self,
        type_name: str | None = None,
        state: str | None = None,
        since_ms: int = 0,
        until_ms: int | None = None,
        properties: Sequence[tuple[str, str]] = (),
        limit: int | None = None,
        offset: int = 0,
        pipeline: str | None = None,
    ) -> list[Artifact]:
        """Return the artifacts that satisfy all conditions, the newest first.

        Args:
            type_name: artifacts of this type only; None for all.
            state: artifacts in this state only, such as `live` or `deleted`; None for all.
            since_ms: artifacts created at this time or later, in milliseconds since 1970.
            until_ms: artifacts created before this time, in milliseconds since 1970; None for no bound.
            properties: names and values of properties. A value is a text, and also matches an equal number.
            limit: number of artifacts; None for all.
            offset: number of artifacts to skip; has an effect only with `limit`.
            pipeline: artifacts of this pipeline only; None for all.
        """
        conditions = ["a.create_time_since_epoch >= ?"]
        values: list[object] = [since_ms]
        if pipeline is not None:
            conditions.append(
                "a.id IN (SELECT b.artifact_id FROM Attribution b JOIN Context q ON q.id = b.context_id "
                "JOIN Type s ON s.id = q.type_id WHERE s.name = 'pipeline' AND q.name = ?)"
            )
            values.append(pipeline)
        if type_name is not None:
            conditions.append("t.name = ?")
            values.append(type_name)
        if state is not None:
            conditions.append("a.state = ?")
            values.append(next((number for number, name in _ARTIFACT_STATES.items() if name == state), -1))
        if until_ms is not None:
            conditions.append("a.create_time_since_epoch < ?")
            values.append(until_ms)
        for name, text in properties:
            # One part for each index of the table.
            parts = [
                f"SELECT p.artifact_id FROM ArtifactProperty p WHERE p.name = ? AND p.is_custom_property IN (0, 1) "
                f"AND p.{column} = ?"
                for column in ("string_value", "int_value", "double_value")
            ]
            conditions.append(f"a.id IN ({' UNION '.join(parts)})")
            number = _number(text)
            values += [name, text, name, number, name, number]
        rows = self._connection.rows(
            f"SELECT {_ARTIFACT_COLUMNS} FROM Artifact a JOIN Type t ON t.id = a.type_id "
            f"WHERE {' AND '.join(conditions)} ORDER BY a.create_time_since_epoch DESC, a.id DESC"
            f"{_limit(limit, offset)}",
            *values,
        )
        return list(self._artifacts(rows).values())

    def artifact(self, artifact_id: int) -> Artifact | None:
        """Return the artifact with an id; None if there is no such artifact."""
        return self._artifacts_by_id([artifact_id]).get(artifact_id)

    def pipelines(self) -> list[str]:
        """Return the names of all pipelines in the store, in alphabetical order."""
        return [
            name
            for (name,) in self._connection.rows(
                "SELECT q.name FROM Context q JOIN Type s ON s.id = q.type_id WHERE s.name = 'pipeline' ORDER BY q.name"
            )
        ]

    def artifact_types(self) -> dict[str, int]:
        """Return the number of artifacts of each type."""
        return dict(
            self._connection.rows(
                "SELECT t.name, count(*) FROM Artifact a JOIN Type t ON t.id = a.type_id "
                "GROUP BY t.name ORDER BY t.name"
            )
        )

    def lineage(self, start: int, direction: Literal["up", "down"] = "up") -> Lineage:
        """Return everything that an artifact was made from, or everything that was made from it.

        An artifact that a step used only for a comparison, such as the model that served, ends its branch. Otherwise
        the lineage of a model would contain all models before it. In place of cached executions, the lineage has the
        execution that ran.

        Args:
            start: id of the artifact.
            direction: `up` for what the artifact was made from, `down` for what was made from it.

        Raises:
            ValueError: if there is no such artifact.
        """
        # The walk goes from an artifact by an event `n` to an execution `e`, and by an event `f` to other artifacts.
        # An artifact that was used only for a comparison is a dead end upwards, and such an execution is one downwards.
        if direction == "up":
            near, far = _MADE, _INTO
            near_values: list[object] = [_OUT, _CACHED, RESOLVER]
        else:
            near, far = _USED, _OUT
            near_values = [_INTO, _CACHED, RESOLVER]
        walk = f"""
            WITH RECURSIVE walk(artifact_id, continues) AS (
                SELECT a.id, 1 FROM Artifact a WHERE a.id = ?
                UNION
                SELECT f.artifact_id, CASE WHEN f.type IN (?) AND {_has_key("f", COMPARED)} THEN 0 ELSE 1 END
                FROM walk w
                {near.format(artifact="w.artifact_id")}
                JOIN Event f ON f.execution_id = e.id AND f.type IN (?)
                WHERE w.continues = 1 AND {_is_channel("f")}
            )
            SELECT artifact_id, MAX(continues) FROM walk GROUP BY artifact_id"""
        visited = self._connection.rows(walk, start, _INTO, *near_values, far)
        if not visited:
            raise ValueError(f"no artifact {start} in the store")
        artifacts = self._artifacts_by_id([artifact for artifact, _ in visited])
        # The executions of the lineage are those next to an artifact at which the walk did not stop.
        walked = [artifact for artifact, continues in visited if continues]
        rows = self._connection.rows(
            f"SELECT DISTINCT {_EXECUTION_COLUMNS} FROM Artifact a {near.format(artifact='a.id')} "
            "JOIN Type t ON t.id = e.type_id WHERE a.id IN (?)",
            *near_values,
            walked,
        )
        executions = self._executions(rows)
        edges = []
        if executions:
            for _, artifact, execution, kind, key in self._events("v.execution_id IN (?)", [list(executions)]):
                if artifact in artifacts and not key.startswith("_"):
                    edges.append(Edge(artifact, execution, kind in _INTO, key))
        return Lineage(start, artifacts, executions, tuple(dict.fromkeys(edges)), self._runs_of(list(executions)))

    def around(self, artifact_id: int) -> Lineage:
        """Return an artifact and all executions that had it as an input or output, cached ones and resolvers included.

        Raises:
            ValueError: if there is no such artifact.
        """
        artifacts = self._artifacts_by_id([artifact_id])
        if not artifacts:
            raise ValueError(f"no artifact {artifact_id} in the store")
        rows = self._connection.rows(
            f"SELECT DISTINCT {_EXECUTION_COLUMNS} FROM Event v JOIN Execution e ON e.id = v.execution_id "
            f"JOIN Type t ON t.id = e.type_id WHERE v.artifact_id = ? AND {_is_channel('v')}",
            artifact_id,
        )
        edges = [
            Edge(artifact_id, execution, kind in _INTO, key)
            for _, _, execution, kind, key in self._events("v.artifact_id = ?", [artifact_id])
            if not key.startswith("_")
        ]
        executions = self._executions(rows)
        return Lineage(artifact_id, artifacts, executions, tuple(dict.fromkeys(edges)), self._runs_of(list(executions)))

    def _run_rows(
        self, condition: str, values: Sequence[object], limit: int | None = None, offset: int = 0
    ) -> list[Any]:
        # The plus sign keeps SQLite from using the index by type, for which it would sort all runs to find one page.
        type_id = "c.type_id" if limit is None else "+c.type_id"
        return self._connection.rows(
            f"SELECT c.id, c.name, c.create_time_since_epoch FROM Context c WHERE {type_id} "
            f"= (SELECT t.id FROM Type t WHERE t.name = 'pipeline_run' AND t.type_kind = {_CONTEXT}) AND {condition} "
            f"ORDER BY c.create_time_since_epoch DESC, c.id DESC{_limit(limit, offset)}",
            *values,
        )

    def _runs(
        self, condition: str, values: Sequence[object], limit: int | None = None, offset: int = 0, details: bool = True
    ) -> list[Run]:
        """Return the runs that satisfy a condition, with at most eight queries."""
        rows = self._run_rows(condition, values, limit, offset)
        if not rows:
            return []
        ids = [run_id for run_id, _, _ in rows]
        facts = self._properties("Context", "p.context_id IN (?)", ids)
        of_run = defaultdict(list)
        execution_rows = []
        for run_id, *row in self._connection.rows(
            f"SELECT s.context_id, {_EXECUTION_COLUMNS} FROM Association s JOIN Execution e ON e.id = s.execution_id "
            "JOIN Type t ON t.id = e.type_id WHERE s.context_id IN (?) ORDER BY e.id",
            ids,
        ):
            of_run[run_id].append(row[0])
            execution_rows.append(row)
        executions = self._executions(execution_rows, with_artifacts=details, with_properties=details)
        pipelines = self._contexts_of(list(executions), "pipeline")
        runs = []
        for run_id, name, created in rows:
            own = [executions[execution_id] for execution_id in of_run[run_id]]
            pipeline = next((pipelines[execution.id] for execution in own if execution.id in pipelines), "")
            version = self._versions.get(name) if details else None
            runs.append(Run(run_id, name, pipeline, _ms(created), facts[run_id], tuple(own), version))
        return runs

    def _executions(
        self, rows: Sequence[Any], with_artifacts: bool = False, with_properties: bool = True
    ) -> dict[int, Execution]:
        ids = list(dict.fromkeys(row[0] for row in rows))
        if not ids:
            return {}
        properties = (
            self._properties("Execution", "p.execution_id IN (?)", ids) if with_properties else defaultdict(dict)
        )
        nodes = self._contexts_of(ids, "node")
        sides: dict[bool, dict[int, dict[str, list[Artifact]]]] = {True: defaultdict(dict), False: defaultdict(dict)}
        if with_artifacts:
            events = self._events("v.execution_id IN (?)", [ids])
            artifacts = self._artifacts_by_id([artifact for _, artifact, _, _, _ in events])
            for _, artifact, execution, kind, key in events:
                if not key.startswith("_") and kind in (*_INTO, *_OUT):  # the underscore marks an input of a condition
                    sides[kind in _INTO][execution].setdefault(key, []).append(artifacts[artifact])
        return {
            execution_id: Execution(
                id=execution_id,
                # The context is named `<pipeline>.<node>`. A pipeline's name may contain dots, but not a node's id.
                node=nodes.get(execution_id, type_name).rpartition(".")[2],
                type=type_name,
                state=_EXECUTION_STATES.get(state or 0, str(state)),
                started_ms=_ms(created),
                updated_ms=_ms(updated),
                properties=properties[execution_id],
                inputs={key: tuple(members) for key, members in sides[True][execution_id].items()},
                outputs={key: tuple(members) for key, members in sides[False][execution_id].items()},
            )
            for execution_id, type_name, state, created, updated in rows
        }

    def _events(self, condition: str, values: Sequence[object]) -> list[Any]:
        """Return rows of event, artifact, execution, type and channel. An event with two channels has two rows."""
        return self._connection.rows(
            "SELECT v.id, v.artifact_id, v.execution_id, v.type, p.step_key FROM Event v "
            f"JOIN EventPath p ON p.event_id = v.id AND p.step_key IS NOT NULL WHERE {condition} ORDER BY v.id",
            *values,
        )

    def _contexts_of(self, executions: Sequence[int], type_name: Literal["pipeline", "node"]) -> dict[int, str]:
        """Return the name of each execution's context of a type."""
        # The query starts from the few contexts, because the table of associations has an index by context and none by
        # execution. It is a subquery for each execution, because MariaDB would otherwise read all executions.
        rows = self._connection.rows(
            "SELECT e.id, (SELECT c.name FROM Type t JOIN Context c ON c.type_id = t.id "
            "JOIN Association s ON s.context_id = c.id AND s.execution_id = e.id WHERE t.name = ? LIMIT 1) "
            "FROM Execution e WHERE e.id IN (?)",
            type_name,
            executions,
        )
        return {execution: name for execution, name in rows if name is not None}

    def _runs_of(self, executions: Sequence[int]) -> dict[int, str]:
        """Return the name of each execution's run."""
        if not executions:
            return {}
        # This is the only query that reads all runs. It takes one or two microseconds for each.
        return dict(
            self._connection.rows(
                "SELECT s.execution_id, c.name FROM Type t JOIN Context c ON c.type_id = t.id "
                "JOIN Association s ON s.context_id = c.id AND s.execution_id IN (?) WHERE t.name = 'pipeline_run'",
                executions,
            )
        )

    def _artifacts_by_id(self, ids: Sequence[int]) -> dict[int, Artifact]:
        if not ids:
            return {}
        rows = self._connection.rows(
            f"SELECT {_ARTIFACT_COLUMNS} FROM Artifact a JOIN Type t ON t.id = a.type_id WHERE a.id IN (?)",
            list(dict.fromkeys(ids)),
        )
        return self._artifacts(rows)

    def _artifacts(self, rows: Sequence[Any]) -> dict[int, Artifact]:
        if not rows:
            return {}
        properties = self._properties("Artifact", "p.artifact_id IN (?)", [row[0] for row in rows])
        if folder := self._folder:
            for artifact_id, _, uri, *_ in rows:
                for name, value in properties[artifact_id].items():
                    if isinstance(value, str):
                        properties[artifact_id][name] = relocation.current_property(value, uri or "", folder)
            rows = [(id, kind, relocation.current_uri(uri or "", folder), *rest) for id, kind, uri, *rest in rows]
        return {
            artifact_id: Artifact(
                artifact_id,
                type_name,
                uri or "",
                _ARTIFACT_STATES.get(state or 0, str(state)),
                name or "",
                _ms(created),
                _ms(updated),
                properties[artifact_id],
            )
            for artifact_id, type_name, uri, state, name, created, updated in rows
        }

    def _properties(self, of: str, condition: str, ids: Sequence[int]) -> dict[int, dict[str, Value]]:
        properties: dict[int, dict[str, Value]] = defaultdict(dict)
        for owner, name, *values in self._connection.rows(
            f"SELECT p.{of.lower()}_id, {_PROPERTY_COLUMNS} FROM {of}Property p WHERE {condition}", ids
        ):
            value = next((value for value in values if value is not None), None)
            properties[owner][name] = value.hex() if isinstance(value, bytes) else value
        return properties


def _limit(limit: int | None, offset: int = 0) -> str:
    return "" if limit is None else f" LIMIT {int(limit)} OFFSET {int(offset)}"


def _ms(value: object) -> int:
    """Return a valid time in milliseconds, or 0 for any other value: SQLite stores anything in any column."""
    return value if isinstance(value, int) and 0 <= value <= _LAST_MS else 0


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

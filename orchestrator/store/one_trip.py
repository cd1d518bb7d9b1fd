"""SQLite statements that cost one trip to the connection's thread each.

aiosqlite makes a trip for the cursor, one for the statement, one for its rows and one to close it.
Each costs more than most statements themselves, and a job takes dozens of them in its life.
"""

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import aiosqlite

_ROWS_AT_A_TIME = 64


def connect(path: str, **arguments: Any) -> "OneTripConnection":
    """A connection that is not open yet; SQLAlchemy awaits it."""
    return OneTripConnection(partial(sqlite3.connect, path, **arguments), _ROWS_AT_A_TIME)


class OneTripConnection(aiosqlite.Connection):
    """A connection whose cursors fetch all rows while they execute, as SQLAlchemy asks them to."""

    def __init__(self, connector: Callable[[], sqlite3.Connection], rows_at_a_time: int) -> None:
        super().__init__(connector, rows_at_a_time)
        # a process that is torn out of its work must still end
        self._thread.daemon = True

    def cursor(self) -> "OneTripCursor":  # type: ignore[override]  # used as SQLAlchemy uses it
        """A cursor, at no trip."""
        return OneTripCursor(self)

    async def run(
        self, cursor: sqlite3.Cursor | None, method: str, *statement: Any
    ) -> tuple[sqlite3.Cursor, list[Any]]:
        """Runs a statement with its rows, all in one trip; on a new cursor, where none is given."""

        def work() -> tuple[sqlite3.Cursor, list[Any]]:
            used = self._conn.cursor() if cursor is None else cursor
            getattr(used, method)(*statement)
            return used, used.fetchall() if used.description else []

        # the library leaves it untyped
        done: tuple[sqlite3.Cursor, list[Any]] = await self._execute(work)  # type: ignore[no-untyped-call]
        return done


class OneTripCursor:
    """What SQLAlchemy's adapter needs of an aiosqlite cursor."""

    def __init__(self, connection: OneTripConnection) -> None:
        self._connection = connection
        self._cursor: sqlite3.Cursor | None = None
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    @property
    def description(self) -> Any:
        """Of the columns, where the statement gives rows."""
        return None if self._cursor is None else self._cursor.description

    @property
    def rowcount(self) -> int:
        """Rows that were changed."""
        return -1 if self._cursor is None else self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """Of the row inserted last."""
        return None if self._cursor is None else self._cursor.lastrowid

    async def execute(self, *statement: Any) -> Self:
        """Runs one statement."""
        return await self._run("execute", *statement)

    async def executemany(self, *statement: Any) -> Self:
        """Runs one statement, once for each set of parameters."""
        return await self._run("executemany", *statement)

    async def fetchall(self) -> list[Any]:
        """The rows."""
        return self._rows

    async def close(self) -> None:
        """Nothing is left open: every row has been fetched."""

    async def _run(self, method: str, *statement: Any) -> Self:
        self._cursor, self._rows = await self._connection.run(self._cursor, method, *statement)
        return self

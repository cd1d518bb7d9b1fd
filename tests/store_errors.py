"""Store errors for tests, as the drivers and SQLAlchemy raise them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import PoolProxiedConnection

from orchestrator.store import Database


def sqlite_error(message: str, code: int) -> OperationalError:
    """Return an error as the sqlite3 module raises it, with its result code."""
    original = sqlite3.OperationalError(message)
    original.sqlite_errorcode = code
    return OperationalError("BEGIN", None, original)


def server_error(sqlstate: str | None, message: str = "no") -> DBAPIError:
    """Return an error as psycopg raises it, with or without a SQLSTATE of the server."""
    original = psycopg.OperationalError(message)
    original.sqlstate = sqlstate
    return OperationalError("BEGIN", None, original)


def misuse_error() -> DBAPIError:
    """Return an error of the sqlite3 module itself, without a result code of SQLite."""
    return InterfaceError("BEGIN", None, sqlite3.InterfaceError("Cursor needed to be reset"))


@contextmanager
def uncertain_commit(database: Database, during: str = "") -> Iterator[None]:
    """Apply one commit, and then raise the error of a commit that may be lost.

    The error is that of a lost connection on PostgreSQL, and of a failed fsync on SQLite.

    Args:
        during: the beginning of a statement; only a transaction that executes such a statement
            is affected.
    """
    engine = database._writer.sync_engine
    commit = engine.dialect.do_commit
    affected: set[PoolProxiedConnection] = set()

    def note(connection: sa.Connection, _cursor: object, statement: str, *_more: object) -> None:
        if statement.startswith(during):
            affected.add(connection.connection)

    def apply_and_fail(dbapi_connection: PoolProxiedConnection) -> None:
        commit(dbapi_connection)
        if dbapi_connection in affected:
            engine.dialect.do_commit = commit  # type: ignore[method-assign]
            raise _lost_connection(engine.dialect.name)

    sa.event.listen(engine, "before_cursor_execute", note)
    engine.dialect.do_commit = apply_and_fail  # type: ignore[method-assign]
    try:
        yield
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
        is_used = engine.dialect.do_commit is not apply_and_fail
        engine.dialect.do_commit = commit  # type: ignore[method-assign]
    assert is_used, "no such transaction was committed"


def _lost_connection(dialect: str) -> Exception:
    """Return the driver's error when it does not know whether a commit was applied."""
    if dialect == "postgresql":
        return psycopg.OperationalError("the connection is lost")
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    return error

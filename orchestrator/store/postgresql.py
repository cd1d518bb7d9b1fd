"""What a PostgreSQL server needs: connection settings, permissions, and sessions of our own."""

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.errors import StoreError

_MIN_VERSION = 110_000
"""PostgreSQL 11: triggers with EXECUTE FUNCTION."""

_CONNECTION = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    # else PGCLIENTENCODING or the server's own encoding decides what can be stored
    "client_encoding": "utf8",
}
"""Seconds, except ``tcp_user_timeout`` (milliseconds). Without these a broken network is noticed
only after minutes or hours (libpq's defaults)."""

_NO_TIMEOUTS = (
    "SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE setting <> '0' AND name "
    "IN ('statement_timeout', 'idle_session_timeout', 'idle_in_transaction_session_timeout', "
    "'transaction_timeout')"
)
"""As pg_dump does: a limit that the role or the database has for other programs would end our
statements while they wait for a lock, and the idle session that shows that this process lives."""

_SERVER = """
SELECT current_setting('server_version_num')::int AS version,
       current_setting('server_version') AS version_name,
       current_setting('server_encoding') AS encoding,
       current_setting('default_transaction_read_only') = 'on' AS is_read_only,
       pg_is_in_recovery() AS is_standby,
       current_user AS role,
       has_table_privilege(to_regclass('jobs'), 'INSERT')
         AND has_table_privilege(to_regclass('jobs'), 'UPDATE') AS may_write
"""
"""``may_write`` is NULL where there are no tables yet."""

_OWN_SESSION = sa.text("SELECT pg_backend_pid()")
_TAKE_LOCK = sa.text("SELECT pg_backend_pid(), pg_try_advisory_lock(:key)")
_TRY_LOCK = sa.text("SELECT pg_backend_pid(), pg_try_advisory_xact_lock(:key)")
_RELEASE_LOCK = sa.text("SELECT pg_advisory_unlock(:key)")

_Transaction = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

_HIDDEN_TABLES = """
SELECT n.nspname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n
    ON n.oid = c.relnamespace
WHERE c.relname IN ('jobs', 'attempts', 'instances') AND c.relkind = 'r'
GROUP BY n.nspname HAVING count(*) = 3 LIMIT 1
"""


def connection_arguments(url: sa.URL) -> dict[str, object]:
    """Return our arguments of psycopg's ``connect`` that the URL does not set.

    Raises:
        StoreError: the URL has a parameter that libpq does not know.
    """
    from psycopg import pq  # noqa: PLC0415 - only installed with the extra

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for number, name in enumerate(url.query, 1):
        if name not in known:
            # its name is not shown: it may be the rest of a password that contains &
            raise StoreError(
                f"Parameter {number} in the database's URL is not one of PostgreSQL's.",
                "Remove it, or write & in a password as %26; what can be set is listed in "
                "PostgreSQL's manual, libpq, 'Parameter Key Words'.",
            )
    return {name: value for name, value in _CONNECTION.items() if name not in url.query}


def silence_cancellations() -> None:
    """Keep psycopg's warnings from stderr, unless its log level was changed.

    psycopg warns of each statement that is cancelled, as some are at the end of every run.
    """
    log = logging.getLogger("psycopg")
    if log.level in {logging.NOTSET, logging.WARNING}:  # psycopg sets the second when imported
        log.setLevel(logging.ERROR)


def set_up_connection(connection: DBAPIConnection) -> None:
    """Apply our settings to a new connection."""
    cursor = connection.cursor()
    cursor.execute(_NO_TIMEOUTS)
    # psycopg reads times in the session's zone, where the last one may be after the year 9999
    cursor.execute("SET TIME ZONE 'UTC'")
    cursor.close()
    connection.commit()


async def check_server(connection: AsyncConnection, name: str, *, read_only: bool) -> None:
    """Check that the server can hold a store, and that this role may use it.

    Args:
        connection: a transaction.
        name: of the store, for messages.
        read_only: whether nothing will be written.

    Raises:
        StoreError: names what is wrong and who can change it.
    """
    server = (await connection.execute(sa.text(_SERVER))).one()
    for message, remedy in _faults_for_all(server):
        raise StoreError(f"The store {name} cannot be used: {message}.", remedy)
    for message, remedy in () if read_only else _faults_for_writers(server):
        raise StoreError(f"The store {name} cannot be written: {message}.", remedy)


def _faults_for_all(server: sa.Row[tuple[object, ...]]) -> Iterator[tuple[str, str]]:
    if server.version < _MIN_VERSION:
        yield (
            f"the server is PostgreSQL {server.version_name}",
            f"Use PostgreSQL {_MIN_VERSION // 10_000} or later.",
        )
    if server.encoding != "UTF8":
        yield (
            f"the database has the encoding {server.encoding}",
            "Create another one: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0.",
        )


def _faults_for_writers(server: sa.Row[tuple[object, ...]]) -> Iterator[tuple[str, str]]:
    if server.is_standby:
        yield (
            "the server is a standby (in recovery), which is read-only",
            "Name the primary server; status, history and show also work on a standby.",
        )
    if server.is_read_only:
        yield (
            "default_transaction_read_only is on",
            "Turn it off for this role and database, or name the primary server.",
        )
    if server.may_write is False:
        yield (
            f"the role {server.role} may not change the tables",
            "Use the role that created them; with SELECT alone, status, history and show work.",
        )


async def schema_with_tables(connection: AsyncConnection) -> str | None:
    """Return the schema that has our tables; ``None`` if there is none.

    It also finds a schema that is not in the search_path or that this role may not use.
    """
    schema: str | None = await connection.scalar(sa.text(_HIDDEN_TABLES))
    return schema


async def require_own_session(ours: AsyncConnection, transaction: _Transaction) -> None:
    """Check that a session keeps its advisory lock.

    The lock shows other processes that this process is alive.

    A pooler in transaction mode, as PgBouncer often is, gives each transaction another session:
    locks stay with sessions that nobody has any more, and prepared statements collide. Such a
    pooler gives a session to another transaction as soon as it is free: the first one finds our
    session, or takes another one of two, and then the second finds ours.

    Args:
        ours: a connection in autocommit mode.
        transaction: begins a transaction on another connection.

    Raises:
        StoreError: the connections do not have sessions of their own.
    """
    if not await _has_own_session(ours, transaction):
        raise StoreError(
            "The database's server does not keep a session for each connection, as behind "
            "PgBouncer in transaction mode; a run needs the locks of its session.",
            "Connect to the server itself, or set the pooler to session pooling (pool_mode = "
            "session).",
        )


async def _has_own_session(ours: AsyncConnection, transaction: _Transaction) -> bool:
    """Return whether a session keeps its lock during other transactions.

    It must also be able to release the lock.
    """
    key = {"key": secrets.randbits(63)}
    me, is_ours = (await ours.execute(_TAKE_LOCK, key)).one()
    if not is_ours:
        return False
    async with transaction() as first:
        if not await _is_held_by_other(first, me, key):
            return False
        if await ours.scalar(_OWN_SESSION) != me:
            return False
        async with transaction() as second:
            if not await _is_held_by_other(second, me, key):
                return False
    return bool(await ours.scalar(_RELEASE_LOCK, key))


async def _is_held_by_other(other: AsyncConnection, me: int, key: Mapping[str, int]) -> bool:
    session, is_free = (await other.execute(_TRY_LOCK, key)).one()
    return session != me and not is_free


def connection_remedy(url: sa.URL) -> str:
    """Return what to do if no connection can be made."""
    remedy = "Check the URL and its parameters, and that the server is running and reachable."
    if "options" in url.query or os.environ.get("PGOPTIONS"):
        remedy += " A pooler may refuse options: remove them from the URL, or unset PGOPTIONS."
    return remedy

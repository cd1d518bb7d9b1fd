"""Connections and transactions on SQLite or PostgreSQL."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from urllib.parse import quote

import anyio
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.clock import Clock
from orchestrator.database_url import without_secrets
from orchestrator.errors import StoreError
from orchestrator.store import postgresql as server
from orchestrator.store import sqlite
from orchestrator.store.file_lock import lock_file
from orchestrator.store.tables import UtcDateTime, current
from orchestrator.wording import how_to_install

LOCK_TIMEOUT_MS = 60_000
"""A statement waits this long for a lock of another process, and then fails."""

SHORT_LOCK_TIMEOUT_MS = 3_000
"""The same during a run. A run reports the lock and tries again, and must be able to stop
quickly."""

_READERS = 4


class Database:
    """One store, opened by one process.

    Args:
        url: SQLAlchemy URL with an async driver, ``sqlite+aiosqlite`` or ``postgresql+psycopg``.
        clock: the time for SQLite, which has no clock of its own.
        create: create the file of a SQLite database if it is missing.
        read_only: nothing is written; beside a SQLite database only its owner's SQLite may create
            the files that it needs for reading (see `sqlite.Reading`).
        allow_network: accept a SQLite file on a network file system.

    Raises:
        NoStoreError: the file of a SQLite database is missing, and is not to be created.
        StoreError: the database cannot be used.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        create: bool = True,
        read_only: bool = False,
        allow_network: bool = False,
    ) -> None:
        self.url = sa.make_url(url)
        # resolve symbolic links, so that all processes use the same lock files; unlike
        # `Path.resolve`, this leaves a loop of links for the check of the file
        self.path = Path(os.path.realpath(self.url.database or "")) if self.is_sqlite else None
        self.clock = clock
        self.read_only = read_only
        self._write_lock = anyio.Lock(fast_acquire=True)
        self._last_lock_error: OperationalError | None = None
        self._short_timeouts = 0
        self._reading: sqlite.Reading | None = None
        if self.path is not None:
            target = self.url
            if read_only:
                self._reading = sqlite.Reading(self.path, allow_network=allow_network)
                uri = f"file:{quote(str(self.path))}"
                target = self.url.set(database=uri, query=self._reading.parameters)
            else:
                sqlite.prepare_file(self.path, create=create, allow_network=allow_network)
            self._file = sqlite.DatabaseFile(self.path)
            # Take the write lock at the beginning. If a transaction reads first and another process
            # then writes, SQLite fails the transaction's own write immediately, without waiting.
            self._writer = self._sqlite_engine(target, 1, "BEGIN IMMEDIATE")
            self._reader = self._sqlite_engine(target, _READERS, "BEGIN")
        else:
            self._writer = self._server_engine()
            self._reader = self._writer.execution_options(**_ONE_SNAPSHOT)

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is a local file."""
        return self.url.get_backend_name() == "sqlite"

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Begin a write transaction; commit at the end, roll back on any exception.

        SQLite allows one writer at a time. The tasks of this process wait here in order, because
        SQLite does not serve waiting connections in order. If another process holds the lock too
        long, all waiting tasks fail together. If each waited for its own time-out, a hundred tasks
        would take minutes.
        """
        if self.read_only:
            raise StoreError("The store was opened for reading only.", "Open it for writing.")
        if not self.is_sqlite:
            async with _transaction(self._writer) as connection:
                yield connection
            return
        before = self._last_lock_error
        async with self._write_lock:
            if self._last_lock_error is not None and self._last_lock_error is not before:
                raise self._last_lock_error
            self._file.check()
            async with _transaction(self._writer) as connection:
                self._file.check(with_log=True)
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Begin a transaction that reads from one snapshot, concurrently with the writer."""
        if self.path is not None:
            # SQLite would create an empty file in place of a deleted one
            self._file.check()
        try:
            async with _transaction(self._reader) as connection:
                yield connection
        except DBAPIError:
            # without locks, a change halfway looks like a damaged file
            self._check_reading()
            raise
        self._check_reading()

    def _check_reading(self) -> None:
        """Check that a file that is only read is still the same one.

        Raises:
            StoreError: it was changed, deleted or replaced.
        """
        if self._reading is not None:
            self._file.check()
            self._reading.check()

    @contextmanager
    def short_lock_timeout(self) -> Iterator[None]:
        """Shorten the lock timeout of transactions that begin within the block.

        Used by a run: its `BusyRetry` reports the lock and repeats the transaction.
        """
        self._short_timeouts += 1
        try:
            yield
        finally:
            self._short_timeouts -= 1

    async def session(self) -> AsyncConnection:
        """Open a server session outside any transaction.

        Its locks last as long as the session. To end the session, invalidate the connection: a
        connection that returns to the pool keeps its locks.
        """
        connection = await self._writer.connect()
        return await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def check_sessions(self) -> None:
        """Check that each server connection has its own session, which keeps its locks.

        Raises:
            StoreError: a pooler shares the sessions.
        """
        if self.is_sqlite:
            return
        ours = await self.session()
        try:
            await server.require_own_session(ours, self.read)
        finally:
            with anyio.CancelScope(shield=True):
                # not back to the pool: a shared session may still hold the lock of the check
                await ours.invalidate()
                await ours.close()

    async def now(self, connection: AsyncConnection) -> datetime:
        """Return the time by the clock that all processes on the store share."""
        if self.is_sqlite:
            return self.clock.now()
        moment: datetime = (
            await connection.execute(sa.select(sa.func.clock_timestamp()))
        ).scalar_one()
        return moment

    def now_in_query(self, offset: timedelta = timedelta()) -> sa.ColumnElement[datetime]:
        """Return the time of `now`, moved by an offset, as an expression for queries."""
        if self.is_sqlite:
            return current(lambda: self.clock.now() + offset)
        # unlike clock_timestamp, it may be compared with an index
        return sa.func.statement_timestamp(type_=UtcDateTime()) + sa.literal(offset, sa.Interval())

    async def checkpoint(self) -> None:
        """Move SQLite's write-ahead log into the file.

        Nothing is done if another process is already doing it.
        """
        if self.path is None:
            return
        self._file.check()
        with lock_file(sqlite.lock_path(self.path), wait=False) as is_ours:
            if is_ours:
                # PASSIVE copies as much as the readers allow; if it fails, the log keeps everything
                statement = "PRAGMA wal_checkpoint(PASSIVE)"
                async with self._write_lock:
                    with anyio.CancelScope(shield=True):
                        async with self._reader.connect() as connection:
                            await connection.run_sync(sqlite.execute_directly, statement)

    async def close(self) -> None:
        """Close all connections."""
        with anyio.CancelScope(shield=True):
            await self._writer.dispose()
            await self._reader.dispose()

    @property
    def _lock_timeout_ms(self) -> int:
        return SHORT_LOCK_TIMEOUT_MS if self._short_timeouts else LOCK_TIMEOUT_MS

    def _set_lock_timeout(self, connection: sa.Connection, statement: str) -> None:
        """Set the lock timeout, unless this connection already has it."""
        timeout = self._lock_timeout_ms
        if connection.info.get("lock_timeout") != timeout:
            connection.exec_driver_sql(f"{statement} = {timeout}")
            connection.info["lock_timeout"] = timeout

    def _sqlite_engine(self, url: sa.URL, size: int, begin: str) -> AsyncEngine:
        engine = create_async_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=600,
            # saves a ROLLBACK per transaction: `_transaction` has ended it already
            pool_reset_on_return=None,
            # no automatic BEGIN by the sqlite3 module: the listener below sends it
            connect_args={"isolation_level": None},
        )

        @sa.event.listens_for(engine.sync_engine, "connect")
        def _connected(connection: DBAPIConnection, _record: object) -> None:
            sqlite.set_up_connection(connection, self._lock_timeout_ms, read_only=self.read_only)

        @sa.event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            self._set_lock_timeout(connection, "PRAGMA busy_timeout")
            try:
                sqlite.execute_directly(connection, begin)
            except OperationalError as error:
                self._last_lock_error = error
                raise

        return engine

    def _server_engine(self) -> AsyncEngine:
        server.silence_cancellations()
        try:
            engine = create_async_engine(
                self.url,
                pool_pre_ping=True,
                connect_args=server.connection_arguments(self.url),
                # whatever default_transaction_isolation the role or the database has
                isolation_level="READ COMMITTED",
            )
        except ImportError as error:  # psycopg without libpq is one, too
            package = error.name or "psycopg[binary]"
            raise StoreError(
                f"PostgreSQL needs the package {package}, which is not installed.",
                how_to_install("postgresql"),
            ) from error

        @sa.event.listens_for(engine.sync_engine, "connect")
        def _connected(connection: DBAPIConnection, _record: object) -> None:
            server.set_up_connection(connection)

        @sa.event.listens_for(engine.sync_engine, "handle_error")
        def _failed(context: sa.engine.ExceptionContext) -> None:
            for error in (context.original_exception, context.sqlalchemy_exception):
                if error is not None:
                    error.args = tuple(
                        without_secrets(part, self.url) if isinstance(part, str) else part
                        for part in error.args
                    )

        @sa.event.listens_for(engine.sync_engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            self._set_lock_timeout(connection, "SET lock_timeout")

        @sa.event.listens_for(engine.sync_engine, "rollback")
        def _rolled_back(connection: sa.Connection) -> None:
            # a rollback also undoes the SET, so it must be sent again
            if not connection.invalidated:
                connection.info.pop("lock_timeout", None)

        return engine


_ONE_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""By default each statement of a PostgreSQL transaction reads a snapshot of its own."""


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Begin a transaction; a cancellation does not interrupt its commit or rollback.

    On SQLite the whole block is shielded from cancellation, so it must be short. A cancelled
    aiosqlite statement may leave a task behind that never ends, and then the event loop cannot
    close.
    """
    with anyio.CancelScope(shield=engine.dialect.name == "sqlite") as scope:
        connection = await engine.connect()
        try:
            await connection.begin()
            yield connection
            scope.shield = True
            await connection.commit()
        finally:
            scope.shield = True
            await connection.close()


async def acquire_exclusive_lock(connection: AsyncConnection) -> None:
    """Wait until no other transaction holds this lock; keep it until this one ends.

    Needed by a transaction that reads first and then inserts, such as creating tables or adding
    jobs. On SQLite every transaction that may write excludes the others anyway.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('orchestrator'))"))


def insert_or_ignore(connection: AsyncConnection, table: sa.Table) -> sa.Insert:
    """Return an INSERT that does nothing if the row exists."""
    return _insert(connection.dialect.name, table).on_conflict_do_nothing()


def upsert(connection: AsyncConnection, table: sa.Table, *changed: str) -> sa.Insert:
    """Return an INSERT that updates these columns if the row exists."""
    return _upsert(connection.dialect.name, table, changed)


@cache  # building the statement takes longer than executing it
def _upsert(dialect: str, table: sa.Table, changed: tuple[str, ...]) -> sa.Insert:
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: statement.excluded[name] for name in changed},
    )


def _insert(dialect: str, table: sa.Table) -> sqlite_dialect.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite_dialect.insert(table)

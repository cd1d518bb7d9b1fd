"""Connections and transactions over SQLite or PostgreSQL, from one place."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path

import anyio
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from orchestrator.clock import Clock
from orchestrator.errors import StoreError
from orchestrator.store import one_trip, sqlite

_READERS = 4


class Database:
    """One store, opened by one process.

    Args:
        url: SQLAlchemy URL of an async driver, ``sqlite+aiosqlite`` or ``postgresql+psycopg``.
        clock: tells the time where the database has no clock of its own.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = sa.make_url(url)
        # by its real name: what lies beside it must be the same for whoever comes by a link
        self.path = Path(self.url.database or "").resolve() if self.is_sqlite else None
        self._turn = anyio.Lock(fast_acquire=True)
        self._lock_wait = sqlite.LockTimeout()
        self.clock = clock
        if self.path is not None:
            sqlite.prepare_file(self.path)
            self._file = sqlite.DatabaseFile(self.path)
            self._writer = self._sqlite_engine(1, self._lock_wait.begin_writing)
            self._reader = self._sqlite_engine(_READERS, self._lock_wait.begin_reading)
        else:
            self._writer = _server_engine(self.url, self._lock_wait)
            self._reader = self._writer.execution_options(**_ONE_SNAPSHOT)

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is a file of this machine."""
        return self.url.get_backend_name() == "sqlite"

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; committed at the end, rolled back on any exception.

        SQLite has one writer at a time: waiting here, in turn, is fairer than in its busy loop.
        """
        if not self.is_sqlite:
            async with _transaction(self._writer) as connection:
                yield connection
            return
        async with self._turn:
            self._file.check_exists()
            async with _transaction(self._writer) as connection:
                self._file.check_wal_exists()
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads, on one snapshot, beside the writer."""
        if self.path is not None:
            # a new connection would make an empty file in the place of one that is gone
            self._file.check_exists()
        async with _transaction(self._reader) as connection:
            yield connection

    @contextmanager
    def short_lock_timeout(self) -> Iterator[None]:
        """Wait for locks for a few seconds only, and then raise.

        For a run: its `BusyRetry` says that the store is locked, tries again, and ends in time.
        """
        with self._lock_wait.briefly():
            yield

    async def session(self) -> AsyncConnection:
        """A session with the server, outside any transaction: its locks last as long as it does.

        To end it, invalidate the connection: given back to the pool it would keep its locks.
        """
        connection = await self._writer.connect()
        return await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def now(self, connection: AsyncConnection) -> datetime:
        """The moment that leases are reckoned by: one clock for all who share the store."""
        if self.is_sqlite:
            return self.clock.now()
        moment: datetime = (
            await connection.execute(sa.select(sa.func.clock_timestamp()))
        ).scalar_one()
        return moment

    async def checkpoint(self) -> None:
        """Moves what SQLite's log holds into the file; one process at a time, others pass by."""
        if self.path is None:
            return
        self._file.check_exists()
        with sqlite.sole_checkpointer(self.path) as alone:
            if alone:
                async with self._turn, _connection(self._reader) as connection:
                    await connection.run_sync(sqlite.checkpoint)

    async def close(self) -> None:
        """Gives every connection back."""
        with anyio.CancelScope(shield=True):
            await self._writer.dispose()
            await self._reader.dispose()

    def _sqlite_engine(self, size: int, begin: Callable[[sa.Connection], object]) -> AsyncEngine:
        engine = create_async_engine(
            self.url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=600,
            # every transaction here is ended by whoever began it
            pool_reset_on_return=None,
            connect_args={"async_creator_fn": one_trip.connect},
        )
        sqlite.listen(engine.sync_engine, begin, self._lock_wait)
        return engine


_IMPATIENT = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "options": f"-c lock_timeout={sqlite.BUSY_TIMEOUT_MS}",
}
"""A server, a network or another's lock that is silent for long is trouble, and may be told."""

_ONE_SNAPSHOT = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""Of a server's transactions that only read; by itself each statement would see its own."""


def _server_engine(url: sa.URL, lock_wait: sqlite.LockTimeout) -> AsyncEngine:
    def begin(connection: sa.Connection) -> None:
        wanted = lock_wait.milliseconds
        if connection.info.get("lock_timeout", sqlite.BUSY_TIMEOUT_MS) != wanted:
            connection.exec_driver_sql(f"SET lock_timeout = {wanted}")
            connection.info["lock_timeout"] = wanted

    def rollback(connection: sa.Connection) -> None:
        # the server takes back what was set in the transaction, so nobody knows what is in force
        if not connection.invalidated:
            connection.info["lock_timeout"] = None

    try:
        engine = create_async_engine(url, pool_pre_ping=True, connect_args=_IMPATIENT)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"PostgreSQL needs the package {error.name}, which is not installed.",
            "Install it with: pip install 'orchestrator[postgresql]'",
        ) from error
    sa.event.listen(engine.sync_engine, "begin", begin)
    sa.event.listen(engine.sync_engine, "rollback", rollback)
    return engine


@asynccontextmanager
async def _transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction whose end is not torn by a cancellation."""
    async with _connection(engine) as connection:
        await connection.begin()
        yield connection
        with anyio.CancelScope(shield=True):
            await connection.commit()


@asynccontextmanager
async def _connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection that is given back whatever happens.

    What has begun on SQLite runs to its end, which is never far: a statement of aiosqlite that is
    cancelled may leave a task behind that nothing ends, and that holds up the event loop's end.
    """
    with anyio.CancelScope(shield=engine.dialect.name == "sqlite"):
        connection = await engine.connect()
        try:
            yield connection
        finally:
            with anyio.CancelScope(shield=True):
                await connection.close()


async def acquire_exclusive_lock(connection: AsyncConnection) -> None:
    """Until this transaction ends, whoever asks for the same waits, as SQLite's writers always do.

    For what looks first and inserts afterwards: the tables themselves, or jobs that are new.
    """
    if connection.dialect.name == "postgresql":
        await connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext('orchestrator'))"))


def insert_or_ignore(connection: AsyncConnection, table: sa.Table) -> sa.Insert:
    """An INSERT that does nothing where the row is there already."""
    return _insert(connection.dialect.name, table).on_conflict_do_nothing()


def upsert(connection: AsyncConnection, table: sa.Table, *changed: str) -> sa.Insert:
    """An INSERT that, where the row is there already, sets these columns of it instead."""
    return _upsert(connection.dialect.name, table, changed)


@cache  # made anew, it would cost more than its execution
def _upsert(dialect: str, table: sa.Table, changed: tuple[str, ...]) -> sa.Insert:
    statement = _insert(dialect, table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: statement.excluded[name] for name in changed},
    )


def _insert(dialect: str, table: sa.Table) -> sqlite_dialect.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite_dialect.insert(table)


def describe_url(url: str) -> str:
    """The store's name for a person: the file's path, or the URL without its password."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return parsed.database or ""
    # a query may hold a password, too
    return parsed.set(query={}).render_as_string(hide_password=True)

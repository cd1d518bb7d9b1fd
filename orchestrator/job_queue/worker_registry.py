"""Register worker processes: each start of a process holds a lock for as long as it lives."""

import glob
import hashlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, nullcontext, suppress
from enum import StrEnum
from pathlib import Path
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.database_url import describe_url
from orchestrator.errors import StoreError
from orchestrator.store import Database
from orchestrator.store.error_classification import STORE_ERRORS, classify_store_error
from orchestrator.store.file_lock import lock_file
from orchestrator.store.tables import instances


class GoneReason(StrEnum):
    """Why a registered process counts as gone."""

    DEAD = "its lock was free"
    """The process is dead, so nothing of it can still be sent."""
    SESSION_LOST = "its session with the server has ended"
    """The process may still run, and may still send a request."""


class Registration:
    """The registration of one start of a worker process.

    On PostgreSQL it also keeps the session that holds the liveness lock.

    Args:
        name: unique for each start: host, pid and random characters.
    """

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self._database = database
        self._session: AsyncConnection | None = None

    async def renew_lock(self) -> None:
        """Take the advisory lock, in a new session if the last one was lost.

        Another process may have recorded the end of this one meanwhile; that is withdrawn. While
        the server has not noticed yet that the last session is gone, that one holds the lock. The
        lock on a file cannot be lost.
        """
        if self._database.is_sqlite:
            return
        try:
            is_held = await self._try_lock()
        except DBAPIError:  # the session was lost; that says nothing about a new one
            await self.end_session()
            is_held = await self._try_lock()
        if is_held:
            wrong_end = (instances.c.id == self.name) & instances.c.ended_at.is_not(None)
            async with self._database.write() as connection:
                await connection.execute(instances.update().where(wrong_end).values(ended_at=None))

    async def _try_lock(self) -> bool:
        if self._session is None:
            self._session = await self._database.session()
        query = sa.select(sa.func.pg_try_advisory_lock(_lock_key(self.name)))
        return bool(await self._session.scalar(query))

    async def end_session(self) -> None:
        """End the session with the server, which frees its lock."""
        session, self._session = self._session, None
        if session is not None:
            with anyio.CancelScope(shield=True):
                await session.invalidate()
                await session.close()


@asynccontextmanager
async def register_worker(database: Database) -> AsyncIterator[Registration]:
    """Register this start of the process, and hold its lock until the block ends.

    On SQLite the lock is on a file beside the database, and the operating system frees it when the
    process ends, however that happens. On PostgreSQL it is a session's advisory lock, so no pooler
    that shares sessions may be used. If the block ends with an exception, no end is recorded, and
    what the process still holds can be recovered immediately.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    path, me = lock_path(database, name), Registration(database, name)
    with nullcontext() if path is None else lock_file(path):
        try:
            await me.renew_lock()
            async with database.write() as connection:
                started = await database.now(connection)
                row = {"id": name, "host": _machine(), "pid": os.getpid(), "started_at": started}
                await connection.execute(instances.insert().values(row))
            yield me
            await _record_end(database, name)
        finally:
            await me.end_session()


async def _record_end(database: Database, name: str) -> None:
    """Record the end of a process, unless the store cannot be written now.

    In that case its free lock shows the end to the next process; a shutdown does not wait.
    """
    try:
        with database.short_lock_timeout():
            async with database.write() as connection:
                ended = await database.now(connection)
                this = instances.update().where(instances.c.id == name)
                await connection.execute(this.values(ended_at=ended))
    except STORE_ERRORS as error:
        if not classify_store_error(error).is_temporary:
            raise
    else:
        if (path := lock_path(database, name)) is not None:
            path.unlink(missing_ok=True)


async def why_gone(database: Database, connection: AsyncConnection, row: Any) -> GoneReason | None:
    """Return why a registered process counts as gone; ``None`` while it may be alive.

    A lost session does not prove that its process is dead: the network may have failed. The process
    is certainly dead only if it ran on this machine, since this boot, and its pid does not exist.
    A standby server does not have the locks of its primary, so there any process may be alive.

    Args:
        row: of the table of instances.
    """
    if (path := lock_path(database, row.id)) is not None:
        try:
            is_dead = _is_free(path)
        except OSError:  # another user's file
            is_dead = _is_dead(row)
        # on PostgreSQL an end proves less: another process may have recorded it for a lost session
        return GoneReason.DEAD if row.ended_at is not None or is_dead else None
    is_free = sa.func.pg_try_advisory_xact_lock(_lock_key(row.id))
    query = sa.select(sa.not_(sa.func.pg_is_in_recovery()), is_free)
    if not all((await connection.execute(query)).one()):
        return None
    return GoneReason.DEAD if _is_dead(row) else GoneReason.SESSION_LOST


def _is_dead(row: Any) -> bool:
    is_ours = row.host == _machine() != socket.gethostname()
    return is_ours and not _runs(row.pid)


async def is_run_active(database: Database, *, besides: str = "") -> bool:
    """Return whether a registered process may be alive.

    Read access to the store is enough.

    Args:
        besides: name of a process that does not count.
    """
    async with database.read() as connection:
        at_work = instances.c.ended_at.is_(None) & (instances.c.id != besides)
        query = sa.select(instances).where(at_work)
        for row in (await connection.execute(query)).all():
            path = lock_path(database, row.id)
            # a copy of the file has the rows, but not the lock files
            has_lock = path is None or path.exists()
            if has_lock and await why_gone(database, connection, row) is None:
                return True
    return False


def remove_free_lock_files(database: Database, keep: Collection[str]) -> None:
    """Remove the lock files of processes that have ended.

    Files of processes that ended before they registered are removed too.

    Args:
        keep: names of processes whose files are not looked at.
    """
    for name, path in _lock_files(database):
        if name in keep:
            continue
        # removed while locked: a process that waits for the lock then notices it
        # those of another user stay
        with (
            suppress(FileNotFoundError, PermissionError),
            lock_file(path, create=False, wait=False) as is_free,
        ):
            if is_free:
                path.unlink()


async def refuse_while_in_use(database: Database) -> None:
    """Raise an error while a run of any version uses the store.

    Raises:
        StoreError: names the processes.
    """
    if database.path is not None:
        # not by the table: after a crash, or in a copy of the file, rows remain without a lock file
        files = _lock_files(database)
        names = [name for name, path in files if _is_locked(path) and path.exists()]
    else:
        async with database.read() as connection:
            query = sa.select(instances).where(instances.c.ended_at.is_(None))
            rows = (await connection.execute(query)).all()
            names = [row.id for row in rows if await why_gone(database, connection, row) is None]
    if names:
        found = [name.rsplit("-", 2) for name in names]
        processes = ", ".join(f"{host} (pid {pid})" for host, pid, _ in found)
        raise StoreError(
            f"The store {describe_url(str(database.url))} is in use by: {processes}.",
            "Action required: stop these runs with Ctrl-C or SIGTERM, wait until they have ended, "
            "and repeat the command.",
        )


def _lock_files(database: Database) -> list[tuple[str, Path]]:
    """Return the lock files beside the database, each with the name of its instance."""
    if database.path is None:
        return []
    prefix = f"{database.path.name}.alive-"
    paths = sorted(database.path.parent.glob(f"{glob.escape(prefix)}*"))
    return [(path.name.removeprefix(prefix), path) for path in paths]


def lock_path(database: Database, name: str) -> Path | None:
    """Return the file that a process keeps locked; ``None`` on PostgreSQL."""
    return None if database.path is None else Path(f"{database.path}.alive-{name}")


def _is_free(path: Path) -> bool:
    try:
        with lock_file(path, create=False, wait=False) as is_ours:
            return is_ours
    except FileNotFoundError:
        return False


def _is_locked(path: Path) -> bool:
    try:
        return not _is_free(path)
    except PermissionError:  # another user's file, whose process may be alive
        return True


def _lock_key(name: str) -> int:
    """Return the key of an advisory lock: PostgreSQL uses signed 64-bit numbers."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def _machine() -> str:
    """Return the host, the boot and the PID namespace of this process.

    A pid is meaningful only within these. If boot or namespace cannot be read, return only the
    host.
    """
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{host} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return host


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True

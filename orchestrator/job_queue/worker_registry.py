"""Who holds leases: one instance for each start of a process, alive as long as its lock is."""

import fcntl
import glob
import hashlib
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import anyio
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store import Database
from orchestrator.store.errors import STORE_ERRORS, classify_store_error
from orchestrator.store.private_files import is_still, open_private_file
from orchestrator.store.tables import instances


class GoneReason(StrEnum):
    """Why an instance counts as gone."""

    DEAD = "its lock was free"
    """Nothing of it can still be sent."""
    SESSION_LOST = "its session with the server has ended"
    """It records nothing more just now, but a request may still wait in it."""


class LivenessLock(Protocol):
    """The lock by which an instance shows that it lives."""

    async def keep(self) -> None:
        """Takes the lock again where it was lost."""
        ...

    async def release(self) -> None:
        """Gives it up."""
        ...


class Instance:
    """This start of the process.

    Args:
        name: never used by another.
    """

    def __init__(self, name: str, presence: LivenessLock) -> None:
        self.name = name
        self._presence = presence

    async def renew_lock(self) -> None:
        """Sees to it that others still know this process to be alive."""
        await self._presence.keep()


@asynccontextmanager
async def instance(database: Database) -> AsyncIterator[Instance]:
    """Registers this start of the process.

    On SQLite a locked file beside the database says that the process lives: the system frees the
    lock at the moment of death, however that came about. On PostgreSQL a session's advisory lock
    does (so no pooler that shares sessions out may stand in between). An instance that ends by an
    exception is gone like a dead one: whatever it still holds can be rescued at once.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    presence: LivenessLock
    if (path := lock_path(database, name)) is not None:
        presence = _FileLock(path)
    else:
        presence = await _SessionLock.taken(database, name)
    try:
        async with database.write() as connection:
            started = await database.now(connection)
            row = {"id": name, "host": _machine(), "pid": os.getpid(), "started_at": started}
            await connection.execute(instances.insert().values(row))
        yield Instance(name, presence)
        await _record_end(database, name)
    finally:
        await presence.release()


async def _record_end(database: Database, name: str) -> None:
    """Record the end of an instance, unless the store cannot be written just now.

    Then its free lock tells the next process: a run that is to end does not wait for that.
    """
    try:
        with database.short_lock_timeout():
            async with database.write() as connection:
                ended = await database.now(connection)
                this = instances.update().where(instances.c.id == name)
                await connection.execute(this.values(ended_at=ended))
    except STORE_ERRORS as error:
        if not classify_store_error(error).passes:
            raise
    else:
        forget(database, name)


class _FileLock:
    """A locked file beside the database."""

    def __init__(self, path: Path) -> None:
        self._handle = _locked(path)
        # another process that tidies up may remove the file before it is locked
        while not is_still(path, self._handle):
            os.close(self._handle)
            self._handle = _locked(path)

    async def keep(self) -> None:
        """The system keeps it."""

    async def release(self) -> None:
        """Closes the file, which frees it."""
        os.close(self._handle)


def _locked(path: Path) -> int:
    """Open a file and lock it; return its descriptor."""
    handle = open_private_file(path)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


class _SessionLock:
    """An advisory lock of a session with the server."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._key = _lock_key(name)
        self._session: AsyncConnection | None = None

    @classmethod
    async def taken(cls, database: Database, name: str) -> "_SessionLock":
        """The lock, held."""
        lock = cls(database, name)
        await lock.keep()
        return lock

    async def keep(self) -> None:
        """Asks for the lock, which the holder gets again, in a new session if need be.

        While the server still believes in a session that we have lost, that one holds it.
        """
        if self._session is None:
            self._session = await self._database.session()
        try:
            await self._session.execute(sa.select(sa.func.pg_try_advisory_lock(self._key)))
        except DBAPIError:
            await self.release()
            raise

    async def release(self) -> None:
        """Ends the session."""
        session, self._session = self._session, None
        if session is not None:
            with anyio.CancelScope(shield=True):
                await session.invalidate()
                await session.close()


async def why_gone(database: Database, connection: AsyncConnection, row: Any) -> GoneReason | None:
    """Why an instance counts as gone; ``None`` while it may be alive.

    A session that has ended does not prove that its process has: the network may have cut it. Only
    where the process would be one of this very machine, and is not there, is it dead for certain.

    Args:
        row: of the table of instances.
    """
    if (path := lock_path(database, row.id)) is not None:
        return GoneReason.DEAD if _can_be_locked(path) else None
    query = sa.select(sa.func.pg_try_advisory_xact_lock(_lock_key(row.id)))
    if not (await connection.execute(query)).scalar_one():
        return None
    is_ours = row.host == _machine() != socket.gethostname()
    return GoneReason.DEAD if is_ours and not _runs(row.pid) else GoneReason.SESSION_LOST


def forget(database: Database, name: str) -> None:
    """Takes away what a dead instance left behind beside the database."""
    if (path := lock_path(database, name)) is not None:
        path.unlink(missing_ok=True)


def remove_stale_lock_files(database: Database, registered: set[str]) -> None:
    """Takes away the locks of processes that died before they could register."""
    if database.path is None:
        return
    for path in database.path.parent.glob(f"{glob.escape(database.path.name)}.alive-*"):
        name = path.name.removeprefix(f"{database.path.name}.alive-")
        if name not in registered and _can_be_locked(path):
            path.unlink(missing_ok=True)


def lock_path(database: Database, name: str) -> Path | None:
    """The file that an instance keeps locked while it lives; on PostgreSQL there is none."""
    return None if database.path is None else Path(f"{database.path}.alive-{name}")


def _can_be_locked(path: Path) -> bool:
    try:
        handle = open_private_file(path, create=False)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(handle)


def _lock_key(name: str) -> int:
    """PostgreSQL knows its advisory locks by a signed 64-bit number."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def _machine() -> str:
    """This machine since it booted, and whose process numbers are meant; else just its name."""
    host = socket.gethostname()
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{host} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return host


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

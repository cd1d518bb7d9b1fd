"""Who holds leases: one instance for each start of a process, alive as long as its lock is."""

import fcntl
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.db import Database
from orchestrator.tables import instances


@asynccontextmanager
async def instance(database: Database) -> AsyncIterator[str]:
    """Registers this start of the process; yields its id, never used by another.

    On SQLite a locked file beside the database says that the process lives: the system frees the
    lock at the moment of death, however that came about. An instance that ends by an exception
    leaves the file too, unlocked: whatever it still holds can be rescued at once.
    """
    host = socket.gethostname()
    name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
    lock = _take(lock_path(database, name))
    try:
        async with database.write() as connection:
            started = await database.now(connection)
            row = {"id": name, "host": host, "pid": os.getpid(), "started_at": started}
            await connection.execute(instances.insert().values(row))
        yield name
        async with database.write() as connection:
            ended = await database.now(connection)
            this = instances.update().where(instances.c.id == name)
            await connection.execute(this.values(ended_at=ended))
        forget(database, name)
    finally:
        if lock is not None:
            os.close(lock)


def is_proven_gone(database: Database, name: str) -> bool:
    """Whether that instance's process is dead beyond doubt: its lock could be taken."""
    path = lock_path(database, name)
    if path is None or not path.exists():
        return False
    try:
        handle = os.open(path, os.O_RDWR)
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


def forget(database: Database, name: str) -> None:
    """Takes away what a dead instance left behind beside the database."""
    if (path := lock_path(database, name)) is not None:
        path.unlink(missing_ok=True)


def lock_path(database: Database, name: str) -> Path | None:
    """The file that an instance keeps locked while it lives."""
    return None if database.path is None else Path(f"{database.path}.alive-{name}")


def _take(path: Path | None) -> int | None:
    if path is None:
        return None
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle

"""What SQLite needs to keep its word: pragmas, file modes, one checkpointer."""

import errno
import fcntl
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import StoreError

BUSY_TIMEOUT_MS = 60_000
"""How long a statement waits for another process's write."""

_SHARED_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "fuse.vmhgfs-fuse"}
)


def has_wal_reset_race(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether two checkpoints at once can lose commits (sqlite.org, mended in 3.51.3)."""
    return version < (3, 51, 3) and version not in {(3, 44, 6), (3, 50, 7)}


def prepare_file(path: Path) -> None:
    """Makes folder and file, readable by the owner alone, where they are missing.

    Raises:
        StoreError: the place cannot be written, or lies on a file system without proper locks.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_shared_file_system(path)
        if path.exists() and path.stat().st_size:
            _see_that_it_can_be_written(path)
        else:
            _make_file(path)
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be opened: {error.strerror}.",
            "Name another place with --database-url or ORCHESTRATOR_DATABASE_URL.",
        ) from error


def _see_that_it_can_be_written(path: Path) -> None:
    # not by opening it: closing it again would drop the locks that this process holds on it
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _make_file(path: Path) -> None:
    """Makes the file, in the mode of its log: of several who switch at once all but one fail."""
    with _lock_file(path).open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


def refuse_shared_file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """SQLite's locks do not hold over a network; where the mounts can be read, say so.

    Raises:
        StoreError: the file would lie on a network or shared-folder file system.
    """
    if not mounts.exists():
        return
    folder = path.resolve().parent
    rows = [line.split() for line in mounts.read_text().splitlines()]
    holding = [row for row in rows if folder.is_relative_to(row[1].replace("\\040", " "))]
    if holding and (kind := max(holding, key=lambda row: len(row[1]))[2]) in _SHARED_FILE_SYSTEMS:
        raise StoreError(
            f"The database {path} lies on a {kind} file system, where SQLite's locks do not hold.",
            "Use a local disk, or PostgreSQL when several machines work together.",
        )


def listen(engine: sa.Engine, *, writes: bool) -> None:
    """Sets up every connection of an engine; a writing one takes the lock when it begins.

    ``BEGIN IMMEDIATE`` because a transaction that reads first and writes later is refused at
    once, whatever the busy timeout, when another has written in between.
    """
    begin = "BEGIN IMMEDIATE" if writes else "BEGIN"

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _pragmas():
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _began(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)


def _pragmas() -> Iterator[str]:
    yield f"busy_timeout = {BUSY_TIMEOUT_MS}"
    yield "journal_mode = WAL"
    yield "synchronous = FULL"  # a lost commit would be a lost TaskId
    yield "foreign_keys = ON"
    yield "case_sensitive_like = ON"  # as in PostgreSQL, and as plain comparisons are
    if sys.platform == "darwin":
        yield "fullfsync = ON"
    if has_wal_reset_race():
        yield "wal_autocheckpoint = 0"


@contextmanager
def sole_checkpointer(path: Path) -> Iterator[bool]:
    """Holds the right to checkpoint this file among all processes; false where another does."""
    with _lock_file(path).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lock_file(path: Path) -> Path:
    lock = Path(f"{path}.lock")
    lock.touch(0o600)
    return lock


def checkpoint(connection: sa.Connection) -> None:
    """Moves the log's pages into the file, as far as readers let it; outside a transaction."""
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
    cursor.close()

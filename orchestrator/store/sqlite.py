"""What SQLite needs to keep its word: pragmas, file modes, one checkpointer."""

import errno
import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.errors import StoreError, StoreGoneError
from orchestrator.store.private_files import make_private_folder, open_private_file, private_file

BUSY_TIMEOUT_MS = 60_000
"""How long a statement waits for another process's write."""

SHORT_TIMEOUT_MS = 3_000
"""The same for one who says what is going on and tries again."""

_QUEUED_TIMEOUT_MS = 50

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
        StoreError: the place cannot be written, lies on a file system without proper locks, or
            has a link in the place of the lock file.
    """
    try:
        make_private_folder(path.parent)
        refuse_shared_file_system(path)
        if path.exists() and path.stat().st_size:
            _see_that_it_can_be_written(path)
        else:
            _make_file(path)
    except OSError as error:
        raise StoreError(
            f"The database {path} cannot be opened: {error.strerror}.",
            "Make file and folder writable, or name another place with --database-url or "
            "ORCHESTRATOR_DATABASE_URL.",
        ) from error


def _see_that_it_can_be_written(path: Path) -> None:
    # not by opening it: closing it again would drop the locks that this process holds on it
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    # the folder too: the log is made beside the file
    if not all(os.access(place, os.R_OK | os.W_OK) for place in (path, path.parent)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # now, and not in the middle of a run
    with suppress(FileNotFoundError):
        os.close(open_private_file(_lock_file(path), create=False))


def _make_file(path: Path) -> None:
    """Makes the file, in the mode of its log: of several who switch at once all but one fail."""
    with private_file(_lock_file(path)) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not path.exists():
            os.close(open_private_file(path))
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


class LockTimeout:
    """Sets how long the transactions of one process wait for a lock.

    After the writer was refused once, those who wait for their turn behind it are not kept as long
    again.
    """

    def __init__(self) -> None:
        self._brief = 0
        self._refused = False

    @contextmanager
    def briefly(self) -> Iterator[None]:
        """Let transactions that begin within the block wait for a short time only."""
        self._brief += 1
        try:
            yield
        finally:
            self._brief -= 1

    @property
    def milliseconds(self) -> int:
        """The limit for a transaction that begins now."""
        return min(SHORT_TIMEOUT_MS, BUSY_TIMEOUT_MS) if self._brief else BUSY_TIMEOUT_MS

    def begin_writing(self, connection: sa.Connection) -> None:
        """Begin a transaction that may write, with the lock in hand.

        ``BEGIN IMMEDIATE`` because a transaction that reads first and writes later is refused at
        once, whatever the busy timeout, when another has written in between.
        """
        is_queued = self._brief and self._refused
        _set_busy_timeout(connection, _QUEUED_TIMEOUT_MS if is_queued else self.milliseconds)
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except sa.exc.OperationalError:
            self._refused = True
            raise
        self._refused = False

    def begin_reading(self, connection: sa.Connection) -> None:
        """Begin a transaction that only reads."""
        _set_busy_timeout(connection, self.milliseconds)
        connection.exec_driver_sql("BEGIN")


def _set_busy_timeout(connection: sa.Connection, milliseconds: int) -> None:
    """Set the limit of this connection, where it is another one."""
    if connection.info["busy_timeout"] != milliseconds:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {milliseconds}")
        connection.info["busy_timeout"] = milliseconds


def listen(
    engine: sa.Engine, begin: Callable[[sa.Connection], object], lock_wait: LockTimeout
) -> None:
    """Sets up every connection of an engine, and how its transactions begin."""

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: Any, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        # first: where another program holds the file for itself alone, the others wait as well
        limit = record.info["busy_timeout"] = lock_wait.milliseconds
        cursor.execute(f"PRAGMA busy_timeout = {limit}")
        for pragma in _pragmas():
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    sa.event.listen(engine, "begin", begin)


def _pragmas() -> Iterator[str]:
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
    with private_file(_lock_file(path)) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lock_file(path: Path) -> Path:
    return Path(f"{path}.lock")


def checkpoint(connection: sa.Connection) -> None:
    """Moves the log's pages into the file, as far as readers let it; outside a transaction.

    Raises:
        OperationalError: the file cannot be written; the log keeps what it has.
    """
    cursor = connection.connection.cursor()
    statement = "PRAGMA wal_checkpoint(PASSIVE)"
    try:
        cursor.execute(statement)
    except sqlite3.OperationalError as error:
        raise sa.exc.OperationalError(statement, None, error) from error
    finally:
        cursor.close()


class DatabaseFile:
    """The database's file as it was when it was opened, to notice when it is no longer there.

    The system lets a file be written that has been deleted or replaced: all goes well, and is lost.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity = _identity(path)

    def check_exists(self) -> None:
        """Looks at the file.

        Raises:
            StoreGoneError: it was taken away.
        """
        if (found := _identity(self._path)) != self._identity:
            raise self._gone("replaced by another file" if found else "deleted or moved away")

    def check_wal_exists(self) -> None:
        """Looks at the log, which is there as long as a transaction is open.

        Raises:
            StoreGoneError: it was taken away.
        """
        if not Path(f"{self._path}-wal").exists():
            self.check_exists()
            raise self._gone("robbed of its log, the file beside it that ends in -wal,")

    def _gone(self, what: str) -> StoreGoneError:
        return StoreGoneError(
            f"The database {self._path} was {what} while this process worked with it.",
            "Nothing more is sent. Put back the file itself, with its -wal, if it still is "
            "somewhere. An older copy does not know what was sent since, and would send that "
            "again: compare it with the buckets first.",
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino

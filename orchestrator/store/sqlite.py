"""What a SQLite file needs: file modes, working locks, settings, and one checkpoint at a time."""

import errno
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from orchestrator.errors import StoreError, StoreGoneError
from orchestrator.store.file_lock import lock_file, open_private_file

_SHARED_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"}
    | {"prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "fuse.vmhgfs-fuse"}
)
"""File systems shared by several machines, as /proc/self/mounts names them."""


def prepare_file(path: Path) -> None:
    """Create the file and its folder, readable by the owner only, if they are missing.

    Raises:
        StoreError: the path is not writable, is on a file system without reliable locks, or its
            lock file is a symbolic link.
    """
    try:
        # one by one, because `parents=True` makes the parents accessible to other users
        for folder in reversed(path.parents):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
        refuse_shared_file_system(path)
        if path.exists() and path.stat().st_size:
            _check_writable(path)
        else:
            _create_file(path)
    except OSError as error:
        is_below_file = error.errno in {errno.EEXIST, errno.ENOTDIR}
        problem = f"{error.filename} is not a folder" if is_below_file else error.strerror
        raise StoreError(
            f"The database {path} cannot be opened: {problem}.",
            "Make file and folder writable, or name another path with --database-url or "
            "ORCHESTRATOR_DATABASE_URL.",
        ) from error


def _check_writable(path: Path) -> None:
    # Do not open the file to find out: POSIX drops all locks of a process on a file when it closes
    # any descriptor of it, and SQLite may hold locks on this file already.
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    # the folder too: SQLite creates its write-ahead log beside the file
    if not all(os.access(name, os.R_OK | os.W_OK) for name in (path, path.parent)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # fail at the start, not in the middle of a run, if the lock file cannot be used
    with suppress(FileNotFoundError):
        os.close(open_private_file(lock_path(path), create=False))


def _create_file(path: Path) -> None:
    # With WAL mode on from the start: if several processes switch to it at the same time, all but
    # one fail.
    with lock_file(lock_path(path)):
        if not path.exists():
            os.close(open_private_file(path))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


def refuse_shared_file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Refuse a network file system: SQLite's locks are not reliable there.

    Where the list of mounts does not exist, as on macOS, nothing is checked.

    Raises:
        StoreError: the file is on a network or shared-folder file system.
    """
    if not mounts.exists():
        return
    folder = path.resolve().parent
    rows = [line.split() for line in mounts.read_text().splitlines()]
    holding = [row for row in rows if folder.is_relative_to(row[1].replace("\\040", " "))]
    if holding and (kind := max(holding, key=lambda row: len(row[1]))[2]) in _SHARED_FILE_SYSTEMS:
        raise StoreError(
            f"The database {path} is on a {kind} file system, where SQLite's locks do not work.",
            "Use a local disk, or PostgreSQL if several machines work together.",
        )


def set_up_connection(connection: DBAPIConnection, lock_timeout_ms: int) -> None:
    """Apply our settings to a new connection."""
    cursor = connection.cursor()
    for setting in (
        f"busy_timeout = {lock_timeout_ms}",  # first: the others may have to wait for a lock
        "journal_mode = WAL",
        "synchronous = FULL",  # a lost commit would be a lost TaskId
        "fullfsync = ON",  # for macOS, where fsync() leaves data in the disk's cache
        "foreign_keys = ON",
        "case_sensitive_like = ON",  # as in PostgreSQL
        # Before 3.51.3, two checkpoints at the same time can lose commits (sqlite.org/wal.html,
        # "The WAL-reset bug"), so no connection checkpoints by itself; see `Database.checkpoint`.
        "wal_autocheckpoint = 0",
    ):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


def lock_path(path: Path) -> Path:
    """Return the file that is locked to create the database, and for a checkpoint."""
    return Path(f"{path}.lock")


def execute_directly(connection: sa.Connection, statement: str) -> None:
    """Execute a statement on the driver's connection, below SQLAlchemy; its rows are dropped.

    This takes one call to the thread of aiosqlite instead of three, and begins no transaction.

    Raises:
        DBAPIError: SQLite's error, as SQLAlchemy would raise it.
    """
    try:
        connection.connection.run_async(lambda driver: driver.execute_fetchall(statement))
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError.instance(statement, None, error, sqlite3.Error) from error


class DatabaseFile:
    """Notices when the database file is deleted or replaced while it is open.

    The operating system lets a process write to a deleted file. Every commit would succeed, and
    everything would be lost when the process ends.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = Path(f"{path}-wal")
        self._opened = path.stat()

    def check(self, *, with_log: bool = False) -> None:
        """Check that the path still leads to the file that was opened.

        Args:
            with_log: also check that the write-ahead log exists, as it does in a transaction.

        Raises:
            StoreGoneError: one of them was deleted or replaced.
        """
        try:
            if not os.path.samestat(self._path.stat(), self._opened):
                raise self._gone("replaced by another file")
        except FileNotFoundError:
            raise self._gone("deleted or moved") from None
        if with_log and not self._log.exists():
            raise self._gone("left without its write-ahead log (the file that ends in -wal)")

    def _gone(self, what: str) -> StoreGoneError:
        return StoreGoneError(
            f"The database {self._path} was {what} while this process used it.",
            "Nothing more is sent. Action required: put back the original file with its -wal file. "
            "An older copy does not know what was sent since, and would send it again: compare it "
            "with the buckets first.",
        )

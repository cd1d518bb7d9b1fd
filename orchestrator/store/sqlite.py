"""What a SQLite file needs: file modes, working locks, settings, and one checkpoint at a time."""

import errno
import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPIConnection

from orchestrator.errors import NoStoreError, StoreError, StoreGoneError
from orchestrator.store.file_lock import lock_file, open_private_file
from orchestrator.store.file_systems import refuse_file_mount, refuse_network_file_system

_REMEDIES: Mapping[int | None, str] = {
    errno.EISDIR: "Name a file in this folder.",
    errno.ELOOP: "Its symbolic links lead to each other: remove them, or name another path.",
}


def prepare_file(path: Path, *, create: bool, allow_network: bool) -> None:
    """Check that the file can be written; create it if it is missing or empty.

    New files and folders are readable by their owner only.

    Args:
        allow_network: accept a file system without reliable locks.

    Raises:
        NoStoreError: it is missing or empty, and `create` is false.
        StoreError: the path is not writable, is on a file system without reliable locks, is mounted
            without its folder, or its lock file is a symbolic link.
    """
    try:
        if not create and not _size(path):
            raise NoStoreError(str(path))
        # one by one, because `parents=True` makes the parents accessible to other users
        for folder in reversed(path.parents):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
        refuse_file_mount(path)
        refuse_network_file_system(path, allowed=allow_network)
        if _size(path):
            _check_writable(path)
        else:
            _create_file(path)
    except OSError as error:
        is_below_file = error.errno in {errno.EEXIST, errno.ENOTDIR}
        problem = f"{error.filename} is not a folder" if is_below_file else error.strerror
        raise StoreError(
            f"The database {path} cannot be opened: {problem}.",
            _REMEDIES.get(error.errno)
            or "Make file and folder writable, or name another path with --database-url or "
            "ORCHESTRATOR_DATABASE_URL.",
        ) from error


def _size(path: Path) -> int:
    """Return the size of a file in bytes; 0 if it does not exist.

    Raises:
        OSError: it is a folder, or it cannot be seen.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return found.st_size


def _check_writable(path: Path) -> None:
    # Do not open the file to find out: POSIX drops all locks of a process on a file when it closes
    # any descriptor of it, and SQLite may hold locks on this file already.
    _check_permission_to_write(path)
    # fail at the start, not in the middle of a run, if the lock file cannot be used
    with suppress(FileNotFoundError):
        os.close(open_private_file(lock_path(path), create=False))


def _check_permission_to_write(path: Path) -> None:
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    # the folder too: SQLite creates its write-ahead log beside the file
    if not all(os.access(name, os.R_OK | os.W_OK) for name in (path, path.parent)):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class Reading:
    """How a file is read without changing it, also where nothing can be written.

    SQLite reads a file in WAL mode only together with its -wal and -shm files, and creates them if
    they are missing; a reader that cannot write the file leaves them behind, the -wal file empty.
    Only the owner of the file and root may let it do that: files of anybody else could keep the
    owner's processes from writing. For others, ``immutable=1`` makes SQLite read the
    file alone and without locks. That is right only while there is no -wal file with content and no
    writer; a writer has both files open, even if the -wal file is empty (sqlite.org/wal.html,
    "Read-Only Databases").

    Args:
        path: of the database.
        allow_network: read a log on a file system where its index may be out of date.

    Raises:
        NoStoreError: the file is missing or empty.
        StoreError: this user may not read it, or not without creating files; or it is mounted
            without its folder.
    """

    def __init__(self, path: Path, *, allow_network: bool) -> None:
        self._path = path
        self._index = Path(f"{path}-shm")
        # a rollback journal, as copies made by other programs may have, is a log too
        self._logs = (Path(f"{path}-wal"), Path(f"{path}-journal"))
        try:
            if not _size(path):
                raise NoStoreError(str(path))
            refuse_file_mount(path)
            self._before = path.stat()
            why_not = self._why_nothing_can_be_created()
            self.is_immutable = why_not is not None and not self._is_in_use()
            self._check_permissions(why_not, allow_network=allow_network)
        except OSError as error:
            raise StoreError(
                f"The database {error.filename or path} cannot be read: {error.strerror}.",
                _REMEDIES.get(error.errno)
                or "Ask its owner for permission to read the file, its -wal and -shm files, and to "
                "enter their folder.",
            ) from error

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of SQLite's URI."""
        return {"mode": "ro", "uri": "true"} | ({"immutable": "1"} if self.is_immutable else {})

    def check(self) -> None:
        """Check that what was read without locks was not being written.

        Raises:
            StoreError: the file has changed.
        """
        if not self.is_immutable:
            return
        now = self._path.stat()
        if self._is_in_use() or (now.st_mtime_ns, now.st_size, now.st_ino) != (
            self._before.st_mtime_ns,
            self._before.st_size,
            self._before.st_ino,
        ):
            raise StoreError(
                f"The database {self._path} was changed while it was read.", "Repeat the command."
            )

    def _is_in_use(self) -> bool:
        """Return whether there is a log with content, or perhaps a writer."""
        has_writer = self._index.exists() and self._logs[0].exists()
        return has_writer or any(_size(log) for log in self._logs)

    def _why_nothing_can_be_created(self) -> OSError | None:
        """Return why this user must not create files; ``None`` if it may."""
        if os.geteuid() not in {0, self._before.st_uid}:
            return PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        try:
            _check_permission_to_write(self._path)
        except OSError as error:
            return error
        return None

    def _check_permissions(self, why_not: OSError | None, *, allow_network: bool) -> None:
        """Check that each file can be read, and that a log has its index or can get one."""
        files = (self._path, *self._logs, self._index)
        for path in (file for file in files if file.exists()):
            if not os.access(path, os.R_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if not self.is_immutable:
            refuse_network_file_system(self._path, allowed=allow_network)
        has_index = self._index.exists() and not _size(self._logs[1])
        if self.is_immutable or has_index or why_not is None:
            return
        log = next(log for log in self._logs if _size(log))
        raise StoreError(
            f"The database {self._path} cannot be read: its newest changes are in {log.name}, and "
            f"SQLite cannot create a file beside it ({why_not.strerror}).",
            f"Copy {self._path.name} and {log.name} into a folder of your own, and name the copy "
            "with --database-url.",
        )


def _create_file(path: Path) -> None:
    # With WAL mode on from the start: if several processes switch to it at the same time, all but
    # one fail.
    with lock_file(lock_path(path)):
        if not path.exists():
            os.close(open_private_file(path))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


def set_up_connection(
    connection: DBAPIConnection, lock_timeout_ms: int, *, read_only: bool = False
) -> None:
    """Apply our settings to a new connection."""
    cursor = connection.cursor()
    for setting in (
        f"busy_timeout = {lock_timeout_ms}",  # first: the others may have to wait for a lock
        *(() if read_only else ("journal_mode = WAL",)),
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
    """Execute a statement on the driver's connection; drop its rows.

    This bypasses SQLAlchemy: it takes one call to the thread of aiosqlite instead of three, and
    begins no transaction.

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

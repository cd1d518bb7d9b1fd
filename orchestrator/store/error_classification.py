"""Classify store errors: can a retry succeed, and what can the user do?

Only exception types and error codes are used, never the words of a message. A message also contains
the user's names and values, such as a constraint ``ck_full`` or an image ``busy``.
"""

import errno
import sqlite3
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from orchestrator.errors import StoreGoneError


class StoreErrorClass(NamedTuple):
    """What the user can do, and whether the same transaction may succeed later."""

    remedy: str
    is_temporary: bool


_temporary = partial(StoreErrorClass, is_temporary=True)
_final = partial(StoreErrorClass, is_temporary=False)

_FILE_LOCKED = _temporary(
    "Another program has locked it: end that program; fuser or lsof on the file names it."
)
_DISK_FULL = _temporary("Free space on its disk: what is recorded is safe.")
_FILE_READ_ONLY = _temporary("Make the file, its folder and its disk writable for this user.")
_FILE_NOT_OPENED = _temporary(
    "If this process has too many open files, raise its limit (ulimit -n) or lower "
    "--concurrency; else check the permissions of the file and its folder."
)
_DISK_FAILS = _temporary("Check the disk for errors and free space.")
_NO_MEMORY = _temporary("Free memory on the machine.")
_FILE_DAMAGED = _final(
    "The file is damaged or not a database of this program: restore it from a backup."
)

_SESSION_LOCKED = _temporary(
    "Another session has locked it: end that session (see pg_stat_activity and pg_locks)."
)
_CONFLICT = _temporary("No action required: the transaction is repeated.")
_STATEMENT_CANCELLED = _temporary(
    "Check the server for locks and load (pg_stat_activity), or raise statement_timeout."
)
_SERVER_READ_ONLY = _temporary(
    "The server is read-only: connect to the primary server, and check "
    "default_transaction_read_only."
)
_SERVER_AT_LIMIT = _temporary("End sessions that are not needed, or raise the server's limits.")
_SERVER_DAMAGED = _final("The server reports damaged data: restore the database from a backup.")
_UNREACHABLE = _temporary("Check the URL, and that the server is running and reachable.")
_NO_ACCESS = _final("Check the URL, and the permissions of its user.")
_SESSIONS_SHARED = _final(
    "A pooler shares the server's sessions: connect to the server itself, or use session pooling "
    "(PgBouncer: pool_mode = session)."
)
_OTHER = _final(
    "The database rejected a statement: report a bug in this program, with this message."
)

_BY_ERRNO: Mapping[int, StoreErrorClass] = {
    errno.EAGAIN: _FILE_LOCKED,
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: _DISK_FULL,
    errno.EROFS: _FILE_READ_ONLY,
    errno.EACCES: _FILE_READ_ONLY,
    errno.EPERM: _FILE_READ_ONLY,
    errno.EMFILE: _FILE_NOT_OPENED,
    errno.ENFILE: _FILE_NOT_OPENED,
    errno.ENOMEM: _NO_MEMORY,
    errno.EIO: _DISK_FAILS,
}

_BY_SQLITE_CODE: Mapping[int, StoreErrorClass] = {
    sqlite3.SQLITE_BUSY: _FILE_LOCKED,
    sqlite3.SQLITE_LOCKED: _FILE_LOCKED,
    sqlite3.SQLITE_PROTOCOL: _FILE_LOCKED,
    sqlite3.SQLITE_FULL: _DISK_FULL,
    sqlite3.SQLITE_READONLY: _FILE_READ_ONLY,
    sqlite3.SQLITE_PERM: _FILE_READ_ONLY,
    sqlite3.SQLITE_CANTOPEN: _FILE_NOT_OPENED,
    sqlite3.SQLITE_IOERR: _DISK_FAILS,
    sqlite3.SQLITE_NOMEM: _NO_MEMORY,
    sqlite3.SQLITE_CORRUPT: _FILE_DAMAGED,
    sqlite3.SQLITE_NOTADB: _FILE_DAMAGED,
}
"""By primary result code (source: sqlite.org/rescode.html)."""

_PRIMARY = 0xFF
"""Mask for the primary result code; an extended code has further bits above it."""

_BY_SQLSTATE: Mapping[str, StoreErrorClass] = {
    "08": _UNREACHABLE,  # connection exception
    "26000": _SESSIONS_SHARED,  # prepared statement does not exist: it is in another session
    "25006": _SERVER_READ_ONLY,  # read-only transaction: a standby server, or a setting
    "25P03": _UNREACHABLE,  # idle in transaction for too long, session ended
    "25P04": _UNREACHABLE,  # transaction took too long, session ended
    "28": _NO_ACCESS,  # invalid authorization
    "3D": _NO_ACCESS,  # database does not exist
    "40001": _CONFLICT,  # serialization failure
    "40P01": _CONFLICT,  # deadlock
    "42P05": _SESSIONS_SHARED,  # duplicate prepared statement: of another client
    "42501": _NO_ACCESS,  # insufficient privilege
    "53": _SERVER_AT_LIMIT,  # insufficient resources: connections, or a configured limit
    "53100": _DISK_FULL,
    "53200": _NO_MEMORY,
    "55P03": _SESSION_LOCKED,  # lock not available, after lock_timeout
    "57014": _STATEMENT_CANCELLED,  # by an administrator, or after statement_timeout
    "57P01": _UNREACHABLE,  # server shut down by an administrator
    "57P02": _UNREACHABLE,  # server shut down after a crash
    "57P03": _UNREACHABLE,  # server starting or shutting down
    "57P04": _NO_ACCESS,  # the database was dropped
    "57P05": _UNREACHABLE,  # session idle for too long, ended
    "58030": _DISK_FAILS,
    "XX001": _SERVER_DAMAGED,  # data corrupted
    "XX002": _SERVER_DAMAGED,  # index corrupted
}
"""By SQLSTATE, or by its first two characters (source: PostgreSQL's manual, Appendix A).

Classes 40 and 57 are listed code by code: a violated constraint (40002) and a dropped database
(57P04) are not temporary.
"""

STORE_ERRORS = (DBAPIError, PoolTimeoutError, OSError, StoreGoneError)
"""The errors that a store raises when it cannot be used."""

StoreFailure = DBAPIError | PoolTimeoutError | OSError | StoreGoneError


def classify_store_error(error: StoreFailure) -> StoreErrorClass:
    """Return the class of a store error."""
    if isinstance(error, StoreGoneError):
        return _final(error.remedy)
    if isinstance(error, PoolTimeoutError):
        return _UNREACHABLE
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, _OTHER)
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return _BY_SQLITE_CODE.get(code & _PRIMARY, _OTHER)
    if state := getattr(error.orig, "sqlstate", None):
        return _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2], _OTHER)
    # without a code it is the driver that reports an error: of the connection, except in sqlite3
    is_remote = isinstance(error, OperationalError) and not isinstance(error.orig, sqlite3.Error)
    return _UNREACHABLE if error.connection_invalidated or is_remote else _OTHER


def store_error_text(error: StoreFailure) -> str:
    """Return the message of the database or operating system without a final period."""
    if isinstance(error, PoolTimeoutError):
        return "no connection became free"
    if isinstance(error, DBAPIError):
        # libpq adds lines with guesses, PostgreSQL with details
        return str(error.orig).partition("\n")[0].rstrip(".")
    return (isinstance(error, OSError) and error.strerror) or str(error)

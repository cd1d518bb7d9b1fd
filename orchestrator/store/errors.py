"""Classify store errors by their code: whether the condition may pass, and what a person can do.

Codes only, never the message: a message also contains names and values of the user, such as a
constraint called ``ck_full`` or an image called ``busy``.
"""

import errno
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


@dataclass(frozen=True, slots=True)
class StoreErrorClass:
    """One class of store errors.

    Args:
        passes: the same transaction may succeed later, without a change to the program or its data.
        remedy: what a person can do.
    """

    passes: bool
    remedy: str


_FILE_LOCKED = StoreErrorClass(
    passes=True,
    remedy="Another program holds it locked: end that; fuser or lsof on the file names it.",
)
_DISK_FULL = StoreErrorClass(passes=True, remedy="Make room on its disk: what is recorded is safe.")
_FILE_READ_ONLY = StoreErrorClass(
    passes=True, remedy="Make the file, its folder and its disk writable for this user."
)
_FILE_NOT_OPENED = StoreErrorClass(
    passes=True,
    remedy="If this process has too many files open, raise its limit (ulimit -n), or lower "
    "--concurrency; else look whether file and folder may be read and written.",
)
_DISK_FAILS = StoreErrorClass(passes=True, remedy="Look at the disk's health and room.")
_NO_MEMORY = StoreErrorClass(passes=True, remedy="FreePermits memory on its machine.")
_FILE_DAMAGED = StoreErrorClass(
    passes=False,
    remedy="The file is damaged or not a database of this program: restore it from a backup.",
)

_SESSION_LOCKED = StoreErrorClass(
    passes=True,
    remedy="Another session holds it locked: pg_stat_activity and pg_locks name it; end that.",
)
_CONFLICT = StoreErrorClass(passes=True, remedy="Nothing to do: the transaction is repeated.")
_STATEMENT_CANCELLED = StoreErrorClass(
    passes=True,
    remedy="Look for locks and load on the server (pg_stat_activity), or raise statement_timeout.",
)
_SERVER_READ_ONLY = StoreErrorClass(
    passes=True,
    remedy="The server takes no writes: connect to the primary, and check "
    "default_transaction_read_only.",
)
_SERVER_AT_LIMIT = StoreErrorClass(
    passes=True, remedy="End sessions that are not needed, or raise the server's limits."
)
_SERVER_DAMAGED = StoreErrorClass(
    passes=False, remedy="The server reports damaged data: restore it from a backup."
)
_UNREACHABLE = StoreErrorClass(passes=True, remedy="Check the URL, and that the server answers.")
_NO_ACCESS = StoreErrorClass(passes=False, remedy="Check the URL, and the rights of its user.")
_OTHER = StoreErrorClass(
    passes=False,
    remedy="The database rejected a statement: report this message as an error of the program.",
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
"""Bits of SQLite's result code that hold the primary one; the others only say more of it."""

_BY_SQLSTATE: Mapping[str, StoreErrorClass] = {
    "08": _UNREACHABLE,  # connection exception
    "25006": _SERVER_READ_ONLY,  # read-only transaction: a standby, or an administrator's setting
    "25P03": _UNREACHABLE,  # the session waited too long inside a transaction, and was ended
    "25P04": _UNREACHABLE,  # the transaction took too long, and the session was ended
    "28": _NO_ACCESS,  # invalid authorization
    "3D": _NO_ACCESS,  # no such database
    "40001": _CONFLICT,  # serialization failure
    "40P01": _CONFLICT,  # deadlock
    "42501": _NO_ACCESS,  # insufficient privilege
    "53": _SERVER_AT_LIMIT,  # insufficient resources: connections, or a configured limit
    "53100": _DISK_FULL,
    "53200": _NO_MEMORY,
    "55P03": _SESSION_LOCKED,  # lock not available, after lock_timeout
    "57014": _STATEMENT_CANCELLED,  # by an administrator, or after statement_timeout
    "57P01": _UNREACHABLE,  # shut down by an administrator
    "57P02": _UNREACHABLE,  # shut down after a crash
    "57P03": _UNREACHABLE,  # starting, or shutting down
    "57P04": _NO_ACCESS,  # the database was dropped
    "57P05": _UNREACHABLE,  # the session was idle too long, and was ended
    "58030": _DISK_FAILS,
    "XX001": _SERVER_DAMAGED,  # damaged data
    "XX002": _SERVER_DAMAGED,  # damaged index
}
"""By SQLSTATE, or by its class where all members mean the same (PostgreSQL's manual, Appendix A).

Of class 40 a constraint (40002) does not pass, of class 57P a dropped database does not.
"""

STORE_ERRORS = (DBAPIError, PoolTimeoutError, OSError)
"""What a store raises when it cannot be used."""


def classify_store_error(error: DBAPIError | PoolTimeoutError | OSError) -> StoreErrorClass:
    """Return the class of a store error."""
    if isinstance(error, PoolTimeoutError):
        return _UNREACHABLE
    if isinstance(error, OSError):
        return _BY_ERRNO.get(error.errno or 0, _OTHER)
    if (code := getattr(error.orig, "sqlite_errorcode", None)) is not None:
        return _BY_SQLITE_CODE.get(code & _PRIMARY, _OTHER)
    if state := getattr(error.orig, "sqlstate", None):
        return _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2], _OTHER)
    return _UNREACHABLE if _is_connection_error(error) else _OTHER


def _is_connection_error(error: DBAPIError) -> bool:
    """Return whether the driver, and not the database, says that there is no connection."""
    if error.connection_invalidated:
        return True
    is_local = isinstance(error.orig, sqlite3.Error)
    return isinstance(error, OperationalError) and not is_local


def store_error_text(error: DBAPIError | PoolTimeoutError | OSError) -> str:
    """Return the message of the database or of the system, in its own words."""
    if isinstance(error, PoolTimeoutError):
        return "no connection to it became free"
    return str(error.orig) if isinstance(error, DBAPIError) else error.strerror or str(error)

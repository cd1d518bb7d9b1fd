"""What a store says when it cannot be used: whether that may pass, and what to do about it."""

import errno
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


@dataclass(frozen=True, slots=True)
class Trouble:
    """One kind of trouble.

    Args:
        words: one of them is in what the database says, in small letters.
        numbers: what the system says, where a file beside the database is in trouble.
        passes: it may be over in a while, without anything being wrong with the store.
        remedy: what a person may do.
    """

    words: tuple[str, ...]
    numbers: tuple[int, ...]
    passes: bool
    remedy: str


_TROUBLES = (
    Trouble(
        ("locked", "busy", "lock timeout"),
        (errno.EAGAIN,),
        passes=True,
        remedy="Another program holds it locked: end that; fuser or lsof on the file names it.",
    ),
    Trouble(
        ("full", "no space left"),
        (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
        passes=True,
        remedy="Make room on its disk: what is recorded is safe.",
    ),
    Trouble(
        ("readonly", "read-only"),
        (errno.EROFS, errno.EACCES, errno.EPERM),
        passes=True,
        remedy="Make the file, its folder and its disk writable for this user.",
    ),
    Trouble(
        ("unable to open",),
        (errno.EMFILE, errno.ENFILE, errno.ENOMEM),
        passes=True,
        remedy="If this process has too many files open, raise its limit (ulimit -n), or lower "
        "--concurrency; else look whether file and folder may be read and written.",
    ),
    Trouble(("disk i/o",), (errno.EIO,), passes=True, remedy="Look at the disk's health and room."),
    Trouble(
        ("malformed", "not a database"),
        (),
        passes=False,
        remedy="The file is damaged or no database of ours: take it from a backup.",
    ),
)
FAULTS = (DBAPIError, PoolTimeoutError, OSError)
"""What a store in trouble raises."""

_PASSING_STATES = ("08", "53", "57P", "40")
"""Of PostgreSQL: connection, resources, shutdown and start, deadlock (source: its error codes)."""

_OTHER = Trouble((), (), passes=False, remedy="Check the URL, and that the server answers.")
_LOST_CONNECTION = Trouble((), (), passes=True, remedy=_OTHER.remedy)


def trouble_of(error: DBAPIError | PoolTimeoutError | OSError) -> Trouble:
    """The kind of trouble that an error tells of."""
    if isinstance(error, PoolTimeoutError):
        return _LOST_CONNECTION
    if isinstance(error, OSError):
        return next((kind for kind in _TROUBLES if error.errno in kind.numbers), _OTHER)
    said = str(error.orig).lower()
    found = (kind for kind in _TROUBLES if any(words in said for words in kind.words))
    return next(found, _LOST_CONNECTION if _is_out_of_reach(error) else _OTHER)


def _is_out_of_reach(error: DBAPIError) -> bool:
    """Whether a server cannot be reached, restarts, has no place free, or has had to give way."""
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # the server has not even said no
        return type(error.orig).__module__.startswith("psycopg") and isinstance(
            error, OperationalError
        )
    return str(state).startswith(_PASSING_STATES)


def said_by(error: DBAPIError | PoolTimeoutError | OSError) -> str:
    """What the database or the system said, in its own words."""
    if isinstance(error, PoolTimeoutError):
        return "no connection to it became free"
    return str(error.orig) if isinstance(error, DBAPIError) else error.strerror or str(error)

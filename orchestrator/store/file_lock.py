"""Private files, and locks on them: accessible only to their owner, never symbolic links."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StoreError

_NOT_A_FILE = {errno.ELOOP: "a symbolic link", errno.EISDIR: "a folder"}
"""Errors of open() with O_NOFOLLOW for something that is not a file."""


def open_private_file(path: Path, *, create: bool = True) -> int:
    """Open a file for locking and return its descriptor; its content is not changed.

    Args:
        create: create the file with mode 0600 if it does not exist.

    Raises:
        FileNotFoundError: it does not exist, and `create` is false.
        OSError: it cannot be opened.
        StoreError: the path is a symbolic link or something else that is not a regular file.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        handle = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno not in _NOT_A_FILE:
            raise
        raise _not_ours(path, _NOT_A_FILE[error.errno]) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_ours(path, "not a regular file")
    return handle


@contextmanager
def lock_file(path: Path, *, create: bool = True, wait: bool = True) -> Iterator[bool]:
    """Hold the lock on a file within the block.

    The operating system frees the lock when the process ends.

    Args:
        create: as in `open_private_file`; so are the errors.
        wait: whether to wait while another process holds the lock.

    Yields:
        Whether this process holds the lock; false only without ``wait``.
    """
    while True:
        handle = open_private_file(path, create=create)
        try:
            is_ours = _try_lock(handle, wait=wait)
            # another process may have removed the file before it was locked
            if not is_ours or _is_at(path, handle):
                yield is_ours
                return
        finally:
            os.close(handle)


def _try_lock(handle: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, handle: int) -> bool:
    """Return whether the path still leads to this open file."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _not_ours(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} is {what}, not a lock file of this program.",
        "Action required: find out who put it there, and remove it; the lock file is created when "
        "it is needed.",
    )

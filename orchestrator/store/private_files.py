"""Files beside the database that processes lock: readable by their owner alone, never a link."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StoreError

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_LINK = {errno.ELOOP, errno.EMLINK}
"""What open() gives for a link with O_NOFOLLOW: on Linux and macOS, on FreeBSD."""


def open_private_file(path: Path, *, create: bool = True) -> int:
    """Open a file for locking and return its descriptor; what it contains is left as it is.

    Args:
        create: make the file with mode 0600 where there is none.

    Raises:
        FileNotFoundError: there is none, and it was not to be made.
        OSError: it cannot be opened.
        StoreError: a link or something else that is not a regular file is in its place.
    """
    try:
        handle = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
    except OSError as error:
        if error.errno in _LINK:
            raise _not_ours(path, "a symbolic link") from error
        if isinstance(error, IsADirectoryError):
            raise _not_ours(path, "a folder") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_ours(path, "not a regular file")
    return handle


@contextmanager
def private_file(path: Path) -> Iterator[int]:
    """Open a file as `open_private_file` does, and close it at the end of the block."""
    handle = open_private_file(path)
    try:
        yield handle
    finally:
        os.close(handle)


def is_still(path: Path, handle: int) -> bool:
    """Return whether an open file still has this name: another process may have removed it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, with mode 0700; one that exists keeps its mode.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        if folder.parent != folder:
            make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _not_ours(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} is {what}, and not the file that this program locks.",
        "Find out who put it there, and remove it; the file is made when it is needed.",
    )

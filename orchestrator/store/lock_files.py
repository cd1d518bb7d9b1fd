"""Lock files beside the database: readable by their owner only, and never symbolic links."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StoreError

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_IS_LINK = {errno.ELOOP, errno.EMLINK}
"""Errors of open() with O_NOFOLLOW for a symbolic link: on Linux and macOS, on FreeBSD."""


def open_private_file(path: Path, *, create: bool = True) -> int:
    """Open a file for locking and return its descriptor; its content is not changed.

    Args:
        create: create the file with mode 0600 if it does not exist.

    Raises:
        FileNotFoundError: it does not exist, and `create` is false.
        OSError: it cannot be opened.
        StoreError: the path is a symbolic link or something else that is not a regular file.
    """
    try:
        handle = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
    except OSError as error:
        if error.errno in _IS_LINK:
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
    """Return whether the path still leads to this open file; another process may remove it."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def make_private_folder(folder: Path) -> None:
    """Create a folder and its parents with mode 0700; one that exists keeps its mode.

    Raises:
        OSError: it cannot be created.
    """
    if not folder.is_dir():
        if folder.parent != folder:
            make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _not_ours(path: Path, what: str) -> StoreError:
    return StoreError(
        f"{path} is {what}, not a lock file of this program.",
        "Action required: find out who put it there, and remove it; the lock file is created when "
        "it is needed.",
    )

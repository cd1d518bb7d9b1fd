"""Standard streams that are closed, broken or full: the work goes on without its audience."""

import os
import sys
from typing import Any, TextIO, cast


def prepare_streams() -> None:
    """Makes stdout and stderr usable, whatever the caller has done with them.

    The number of a stream that was closed would go to the next file that is opened, the database
    perhaps, and whatever is printed would land there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
    sys.stdin = sys.stdin or _opened(0, "r")
    sys.stdout = sys.stdout or _opened(1, "w")
    sys.stderr = RetryingStream(sys.stderr or _opened(2, "w"))


def _opened(number: int, mode: str) -> TextIO:
    return cast("TextIO", os.fdopen(number, mode, encoding="utf-8", closefd=False))


def silence(stream: TextIO) -> None:
    """Leads a stream that cannot be written nowhere: Python would try again when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class RetryingStream:
    """A stream that falls silent when it cannot be written.

    A pipe that was closed, a full disk behind a log file, a terminal that is gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, if it can be written."""
        try:
            self._stream.write(text)
        except OSError:
            silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flushes, if it can be written."""
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

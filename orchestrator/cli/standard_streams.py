"""Keep commands working when a standard stream is closed, broken, full or not Unicode."""

import io
import os
import sys
from typing import Any, TextIO


def prepare_streams() -> None:
    """Make stdin, stdout and stderr usable, however the caller has set them up.

    A closed stream is opened on the null device. Otherwise the next file that is opened, such as
    the database, would get the stream's number, and printed text would be written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An ASCII locale must not turn a character such as "…" into an exception.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = SilencingStream(sys.stderr)


def use_utf8(is_data: bool) -> bool:
    """Write stdout in UTF-8 in every locale if it is data; return ``is_data``.

    This is the callback of the options that ask for data, such as ``--json``. In UTF-8 the only
    character that must be escaped is a lone surrogate, and its escape is valid JSON.
    """
    if is_data and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    return is_data


def silence(stream: TextIO) -> None:
    """Redirect a stream that cannot be written to the null device.

    Otherwise Python would try to flush it again at exit and report the error once more.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class SilencingStream:
    """A text stream that is silenced when a write fails, instead of raising.

    Writes fail on a closed pipe, on a full disk behind a log file, and on a terminal that is gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; drop it if that fails."""
        try:
            self._stream.write(text)
        except OSError:
            silence(self._stream)
        return len(text)

    def flush(self) -> None:
        """Flush; drop what is buffered if that fails."""
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

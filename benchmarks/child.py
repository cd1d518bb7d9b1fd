"""What a child process took: its time, and its memory at the peak."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Start = Callable[[], subprocess.Popen[bytes]]

_BYTES_OF_RSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Taken:
    """By one child, from its start to its end."""

    seconds: float
    megabytes: float


def taken(start: Start, *, ends: int = 0) -> Taken:
    """Starts a child and waits for its end, which must be with this exit code."""
    began = time.monotonic()
    process = start()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != ends:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
    return Taken(seconds, used.ru_maxrss * _BYTES_OF_RSS / 1e6)


def quiet(command: Sequence[str], environ: Mapping[str, str]) -> Start:
    """Starts a command whose words are not wanted."""

    def start() -> subprocess.Popen[bytes]:
        nothing = subprocess.DEVNULL
        return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, env=environ)

    return start


def median_seconds(times: int, *starts: Start) -> list[float]:
    """Of each child's runs; they take turns, so that what else goes on meets them all."""
    for start in starts:
        taken(start)  # what is compiled or cached once is no part of it
    turns = [[taken(start).seconds for start in starts] for _ in range(times)]
    return [median(seconds) for seconds in zip(*turns, strict=True)]

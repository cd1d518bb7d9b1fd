"""One time for all processes on a SQLite file, whatever becomes of the machine's clock.

Each process counts on from the clock as it found it. Two that began before and after somebody set
that clock would disagree, and one would think the other's leases and times of grace long over. So
a file beside the database bears, as its time of change, the moment at which this machine booted by
the clock of the run that came first; whoever comes while it is held goes by that. Between runs it
tells whether the times in the store can still be compared with the clock.
"""

import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from orchestrator.clock import Clock, ShiftedClock, since_boot
from orchestrator.store.private_files import open_private_file, private_file

_TOLERANCE = timedelta(seconds=2)
_POLL = 0.05
_TRIES = 3
_MOMENT = 0.005


def in_force(path: Path, clock: Clock) -> Clock:
    """The clock to go by just now: that of the runs at work on this file, or one's own.

    Args:
        path: of the database.
    """
    try:
        handle = open_private_file(_file(path), create=False)
    except FileNotFoundError:
        return clock
    try:
        for _ in range(_TRIES):
            if _try(handle, fcntl.LOCK_EX):
                return clock
            # another command may be asking the same just now
            time.sleep(_MOMENT)
        return _shifted(handle, clock)
    finally:
        os.close(handle)


@asynccontextmanager
async def held(
    path: Path, clock: Clock, begin_anew: Callable[[], Awaitable[None]]
) -> AsyncIterator[Clock]:
    """Keeps one time in force until the block ends; yields the clock that tells it.

    Args:
        path: of the database.
        clock: one's own.
        begin_anew: what to do, alone, when the times in the store tell nothing by this clock: it
            was set, or the machine booted, since the last run.
    """
    with private_file(_file(path)) as handle:
        if await _is_first(handle):
            if abs(_error(handle, clock)) > _TOLERANCE:
                await begin_anew()
                booted_at = _booted_at(clock).timestamp()
                os.utime(handle, (booted_at, booted_at))
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield _shifted(handle, clock)


async def _is_first(handle: int) -> bool:
    """Waits until the time is in force; true where nobody else holds it, and one may set it."""
    while True:
        if _try(handle, fcntl.LOCK_EX):
            return True
        if _try(handle, fcntl.LOCK_SH):
            return False
        await anyio.sleep(_POLL)


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _shifted(handle: int, clock: Clock) -> Clock:
    error = _error(handle, clock)
    return ShiftedClock(clock, error) if abs(error) > _TOLERANCE else clock


def _error(handle: int, clock: Clock) -> timedelta:
    """The time in force minus what this clock tells."""
    return datetime.fromtimestamp(os.fstat(handle).st_mtime, UTC) - _booted_at(clock)


def _booted_at(clock: Clock) -> datetime:
    return clock.now() - since_boot()


def _file(path: Path) -> Path:
    return Path(f"{path}.clock")

"""The time of day, passed as a parameter so that tests can set it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Returns the time of day."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...


def _since_boot() -> timedelta:
    """Return the time since this machine booted, including sleep.

    This clock cannot be set.
    """
    clock = getattr(
        time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
    )  # macOS counts sleep in the latter
    return timedelta(seconds=time.clock_gettime(clock))


def _wall() -> datetime:
    return datetime.now(UTC)


class SystemClock:
    """This machine's time of day, unaffected if the clock is changed later.

    The clock is read once, when the object is made. After that only elapsed time is added.
    Otherwise a change of the clock during a run could end a lease immediately, so that a job is
    sent again too early, or make a wait last for hours.

    Args:
        wall: returns the machine's time of day.
    """

    def __init__(self, wall: Callable[[], datetime] = _wall) -> None:
        self._booted_at = wall() - _since_boot()

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return self._booted_at + _since_boot()


def iso(moment: datetime) -> str:
    """Format a time for people and scripts: UTC, ISO 8601, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

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
    """Return the time since this machine booted, including sleep; this clock cannot be set."""
    clock = getattr(
        time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
    )  # macOS counts sleep in the latter
    return timedelta(seconds=time.clock_gettime(clock))


def _wall() -> datetime:
    return datetime.now(UTC)


class SystemClock:
    """The machine's clock as it stood when this object was made, plus the time that passed since.

    Leases, waits and look-up periods are time spans. When the machine's clock is set during a run,
    they must neither end at once, which could send a job again too early, nor last for hours.

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

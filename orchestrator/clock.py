"""The time of day. Everything else gets a clock as a parameter and does not ask the system."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Returns the time of day."""

    def now(self) -> datetime:
        """Return the current time in UTC, aware."""
        ...


def since_boot() -> timedelta:
    """How long this machine has been up, its sleep included: what nobody can set."""
    clock = getattr(
        time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC
    )  # macOS counts sleep in the latter
    return timedelta(seconds=time.clock_gettime(clock))


def _wall() -> datetime:
    return datetime.now(UTC)


class SystemClock:
    """This machine's clock; later changes of the system's time do not affect it.

    Leases, delays and grace periods are computed with it. If the time were set forward, all of
    them would end at once and an unknown job could be sent again too early; if it were set back,
    the whole run would wait.

    Args:
        wall: returns the system's time of day; called once.
    """

    def __init__(self, wall: Callable[[], datetime] = _wall) -> None:
        self._booted_at = wall() - since_boot()

    def now(self) -> datetime:
        """Return the current time in UTC, aware."""
        return self._booted_at + since_boot()


class ShiftedClock:
    """Another clock, so much later.

    Args:
        clock: the other one.
        by: how much.
    """

    def __init__(self, clock: Clock, by: timedelta) -> None:
        self._clock = clock
        self._by = by

    def now(self) -> datetime:
        """The present moment, in UTC, aware."""
        return self._clock.now() + self._by


def iso(moment: datetime) -> str:
    """Return a time as people and scripts read it: UTC, ISO 8601, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

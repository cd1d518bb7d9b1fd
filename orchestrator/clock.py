"""The time of day, as a parameter: nothing else in the package asks for it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day."""

    def now(self) -> datetime:
        """The present moment, in UTC, aware."""
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
    """This machine's clock as it stands when this is made; set later, it goes on undisturbed.

    Leases, waits and times of grace are spans. A clock that is put forward would end them all at
    once, and a doubted export could be sent again too early; put back, it would hold all up.

    Args:
        wall: tells the machine's time of day.
    """

    def __init__(self, wall: Callable[[], datetime] = _wall) -> None:
        self._booted_at = wall() - since_boot()

    def now(self) -> datetime:
        """The present moment, in UTC, aware."""
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
    """A moment as people and scripts read it: UTC, ISO 8601, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

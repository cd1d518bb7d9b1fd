"""The wall clock, as a parameter: nothing else in the package asks for the time of day."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time of day."""

    def now(self) -> datetime:
        """The present moment, in UTC, aware."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The present moment, in UTC, aware."""
        return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """A moment as people and scripts read it: UTC, ISO 8601, milliseconds, ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

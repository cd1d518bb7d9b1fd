"""The arithmetic of one stream of requests: evenly spaced permits, and the shared slow-down.

Pure functions of what the store keeps and of the time. The vendor counts the arrivals of each
second; evenly spaced permits keep within that wherever a second begins.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

HORIZON = timedelta(milliseconds=110)
"""How far ahead permits are given away: a job that is claimed waits no longer than this."""

_MARGIN = 0.98
"""Part of the allowance that is used: exactly all of it is refused now and then, for the way to
the server is never equally long."""

_BEHIND = timedelta(milliseconds=100)
"""A claim may come so late for its permit and still use it; else each delay would be lost time."""

_LONGEST_AHEAD = timedelta(seconds=2)
"""No permit lies further ahead than this and an interval; if one does, a clock was set back."""

_DOCUMENTED = 20.0
"""Requests a second that the vendor's page allows: what a stream without a limit is slowed from."""

_SLOWEST = 0.5

_CUT = 0.03
"""Part of the pace that each refusal costs. One in a second may be chance; a second with many
refusals, because others use the account too, is cut as many times."""

_RECOVERY = 0.005
"""Part of the allowance that the pace gains each second."""


@dataclass(frozen=True, slots=True)
class PermitStream:
    """What is kept of a stream.

    Args:
        next_at: the next request leaves no sooner.
        pace: requests a second after the last slow-down; ``None`` before any.
        slowed_at: when that was.
    """

    next_at: datetime
    pace: float | None = None
    slowed_at: datetime | None = None

    def allowed(self, rate: float, now: datetime) -> float | None:
        """Requests a second just now; ``None`` is no limit.

        Args:
            rate: what the user allows; 0 is no limit.
        """
        # what seems to have been slowed in the future was told by another clock
        if self.pace is not None and self.slowed_at is not None and self.slowed_at <= now:
            full = rate or _DOCUMENTED
            pace = self.pace + full * _RECOVERY * (now - self.slowed_at).total_seconds()
            if pace < full:
                return pace
        return rate or None

    def interval(self, rate: float, now: datetime) -> timedelta:
        """Time between two requests."""
        allowed = self.allowed(rate, now)
        return timedelta(seconds=1 / (allowed * _MARGIN)) if allowed else timedelta()

    def permits(self, rate: float, now: datetime, limit: int) -> list[datetime]:
        """The moments that can be given away now, the earliest first."""
        first = self.begins(rate, now)
        step = self.interval(rate, now)
        if first > now + HORIZON:
            return []
        fitting = 1 + (now + HORIZON - first) // step if step else limit
        return [first + number * step for number in range(min(limit, fitting))]

    def begins(self, rate: float, now: datetime) -> datetime:
        """When the next permit begins: now, where the stream was idle."""
        furthest = now + _LONGEST_AHEAD + self.interval(rate, now)
        is_near = now - _BEHIND <= self.next_at <= furthest
        return self.next_at if is_near else now

    def without(self, last: datetime, rate: float, now: datetime) -> "PermitStream":
        """The stream once the permits up to this one are given away."""
        return replace(self, next_at=last + self.interval(rate, now))

    def slowed(self, rate: float, now: datetime) -> "PermitStream":
        """The stream once the vendor has refused a request for its rate."""
        allowed = self.allowed(rate, now) or _DOCUMENTED
        return replace(self, pace=max(_SLOWEST, allowed * (1 - _CUT)), slowed_at=now)

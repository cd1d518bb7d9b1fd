"""The arithmetic of one stream of requests: its slots, and how it slows down and recovers.

Pure functions of what the store keeps and of the time. The vendor counts the arrivals of each
second; evenly spaced slots keep within that wherever a second begins.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

HORIZON = timedelta(milliseconds=110)
"""How far ahead slots are given away: a job that is claimed waits no longer than this."""

_MARGIN = 0.98
"""Part of the allowance that is used: exactly all of it is refused now and then, for the way to
the server is never equally long."""

_BEHIND = timedelta(milliseconds=100)
"""A claim may come so late for its slot and still have it: else every delay were lost for good."""

_LONGEST_AHEAD = timedelta(seconds=2)
"""No slot lies further ahead than this and an interval; if one seems to, a clock was set back."""

_DOCUMENTED = 20.0
"""Requests a second that the vendor's page allows: what a stream without a limit is slowed from."""

_SLOWEST = 0.5

_TOGETHER = timedelta(seconds=1)
"""Refusals within a second tell of one excess; how many there are, how large it is."""

_CLOSE = timedelta(seconds=3)
_CUT, _CUT_MORE = 0.01, 0.035
_DEEPER, _DEEPEST_CUT = 3.0, 0.5
"""Part of the pace that a refusal costs: little for the first, since the way to the server may
have bunched a few; more for each that comes with it, and three times as much each time when the
next one follows closely: then others take a part of the allowance."""

_RECOVERY = 7e-5
"""Recovers with the cube of time, as CUBIC does (RFC 9438): slowly where others may have taken
the rest, then faster; from half of the allowance to all of it in some 20 seconds."""

_PAUSE, _LONG_PAUSE = timedelta(milliseconds=100), timedelta(milliseconds=500)
"""For the rest of a second that is overdrawn; long once that has happened again and again."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What is kept of a stream.

    Args:
        next_at: the next request leaves no sooner.
        pace: requests a second after the last slow-down; ``None`` before any.
        slowed_at: when that was.
        strikes: slow-downs that followed closely upon one another.
    """

    next_at: datetime
    pace: float | None = None
    slowed_at: datetime | None = None
    strikes: int = 0

    def allowed(self, rate: float, now: datetime) -> float | None:
        """Requests a second just now; ``None`` is no limit.

        Args:
            rate: what the user allows; 0 is no limit.
        """
        # what seems to have been slowed in the future was told by another clock
        if self.pace is not None and self.slowed_at is not None and self.slowed_at <= now:
            full = rate or _DOCUMENTED
            seconds = (now - self.slowed_at).total_seconds()
            pace = self.pace + full * _RECOVERY * seconds**3
            if pace < full:
                return pace
        return rate or None

    def interval(self, rate: float, now: datetime) -> timedelta:
        """Time between two requests."""
        allowed = self.allowed(rate, now)
        return timedelta(seconds=1 / (allowed * _MARGIN)) if allowed else timedelta()

    def slots(self, rate: float, now: datetime, most: int) -> list[datetime]:
        """The moments that can be given away now, the earliest first."""
        first = self.begins(rate, now)
        step = self.interval(rate, now)
        if first > now + HORIZON:
            return []
        fitting = 1 + (now + HORIZON - first) // step if step else most
        return [first + number * step for number in range(min(most, fitting))]

    def begins(self, rate: float, now: datetime) -> datetime:
        """When the next slot begins: now, where the stream was idle."""
        furthest = now + _LONGEST_AHEAD + self.interval(rate, now)
        is_near = now - _BEHIND <= self.next_at <= furthest
        return self.next_at if is_near else now

    def without(self, last: datetime, rate: float, now: datetime) -> "Stream":
        """The stream once the slots up to this one are given away."""
        return replace(self, next_at=last + self.interval(rate, now))

    def slowed(self, rate: float, now: datetime) -> "Stream":
        """The stream once the vendor has counted too many.

        What is refused in the same second counts to the first: it cuts more, and deepens nothing.
        """
        allowed = self.allowed(rate, now) or _DOCUMENTED
        since = None
        if self.slowed_at is not None and self.slowed_at <= now:
            since = now - self.slowed_at
        if since is not None and since < _TOGETHER:
            pause = _LONG_PAUSE if self.strikes > 1 else _PAUSE
            pace = max(_SLOWEST, allowed * (1 - _CUT_MORE))
            return replace(self, next_at=max(self.next_at, now + pause), pace=pace)
        strikes = self.strikes + 1 if since is not None and since < _CLOSE else 1
        cut = min(_DEEPEST_CUT, _CUT * _DEEPER ** (strikes - 1))
        pace = max(_SLOWEST, allowed * (1 - cut))
        return Stream(max(self.next_at, now + _PAUSE), pace, now, strikes)

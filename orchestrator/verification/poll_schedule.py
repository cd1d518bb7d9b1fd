"""When an accepted export is polled: often when its end is due, rarely when it is not.

Pure functions of the export's age. Where the concurrency limit is reached, an end that is seen late
leaves a slot empty; elsewhere a late poll costs nothing. Each poll costs a request or two to COS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.forecast import FinishedExport, earliest_end

_OFTEN = 0.02
"""Time between two polls, as a share of the age, where an end frees a needed slot."""
_MIN_OFTEN = timedelta(milliseconds=40)

_GUESSING = 0.05
"""The same where no export of a similar size has finished yet."""
_MIN_GUESSING = timedelta(milliseconds=200)

_RARELY = 0.1
"""The same where no slot is needed."""

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(minutes=5)
"""Limits of a reservation: shorter ones would write the store too often, and after a longer one of
a process that died the export would not be polled for too long."""

_OVERLAP = timedelta(milliseconds=500)
"""A reservation reaches this far beyond the first poll, so that it need not be renewed before."""


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The polls of one export.

    Args:
        first: age at the first poll.
        again: share of the age between two polls; ``None``: only one poll in each reservation.
        soonest: shortest time between two polls.
    """

    first: timedelta = timedelta()
    again: float | None = None
    soonest: timedelta = _MIN_OFTEN

    def due_again(self, age: timedelta) -> timedelta:
        """Return how long the process that polls at this age reserves the job for itself."""
        before_end = min(self.first - age + _OVERLAP, _LONGEST)
        return max(_SHORTEST, min(age * _RARELY, _LONGEST), before_end)

    def after(self, age: timedelta) -> timedelta | None:
        """Return the age at the next poll; ``None``: not before the next reservation."""
        return None if self.again is None else age + max(self.soonest, age * self.again)


def schedule(
    finished: Sequence[FinishedExport], size_gib: int, *, at_capacity: bool
) -> PollSchedule:
    """Return the polls of an export of this size.

    Args:
        finished: the newest finished exports of its scope.
        at_capacity: the concurrency limit of its scope is reached: its end frees a slot.
    """
    end = earliest_end(finished, size_gib)
    if not at_capacity:
        return PollSchedule(end.age)
    if end.is_reliable:
        return PollSchedule(end.age, _OFTEN, _MIN_OFTEN)
    return PollSchedule(end.age, _GUESSING, _MIN_GUESSING)

"""When an accepted export is polled: often when its end is due, rarely when it is not.

Pure functions of the export's age. Where the concurrency limit is reached, an end that is seen late
leaves a slot empty; elsewhere a late poll costs nothing. Each poll costs a request or two to COS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.export_durations import FinishedExport, earliest_end

_OFTEN = 0.02
"""Time between two polls, as a share of the age, where an end frees a needed slot."""
_MIN_OFTEN = timedelta(milliseconds=40)

_GUESSING = 0.05
"""The same where no export of a similar size has finished yet."""
_MIN_GUESSING = timedelta(milliseconds=200)

_RARELY = 0.1
"""The same where no slot is needed."""
_MIN_RARELY = timedelta(seconds=1)

_LEAD = timedelta(milliseconds=500)
"""A job is reserved for polling this long before its first poll, so that the poll is not late."""

_MIN_RESERVATION, _MAX_RESERVATION = timedelta(seconds=1), timedelta(minutes=5)
"""A shorter reservation would write the store too often; after a longer one of a process that died,
an export would not be polled for too long."""


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The polls of one export; by default those of a job whose end frees no needed slot.

    Args:
        first: age at the first poll.
        share: time between two polls, as a share of the age.
        shortest: minimum time between two polls.
    """

    first: timedelta = timedelta()
    share: float = _RARELY
    shortest: timedelta = _MIN_RARELY

    def is_due(self, age: timedelta) -> bool:
        """Return whether polling begins now, or within half a second."""
        return self.first - age <= _LEAD

    def interval(self, age: timedelta) -> timedelta:
        """Return the time between a poll at this age and the next one."""
        return max(self.shortest, min(age * self.share, _MAX_RESERVATION))

    def reservation(self, age: timedelta) -> timedelta:
        """Return how long a process that finds an export of this age reserves it for itself."""
        wait = self.first - age
        if not self.is_due(age):
            return min(wait - _LEAD, _MAX_RESERVATION)
        return max(wait, timedelta()) + max(self.interval(age), _MIN_RESERVATION)


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

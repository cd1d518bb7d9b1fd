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
_MIN_RARELY = timedelta(seconds=1)

_LONGEST = timedelta(minutes=5)
"""An export that a process polled before it died is not polled for this long at most."""


@dataclass(frozen=True, slots=True)
class NextPoll:
    """What to do with an export now.

    Args:
        is_due: whether to look it up now.
        wait: time until the next decision.
    """

    is_due: bool
    wait: timedelta


def next_poll(
    finished: Sequence[FinishedExport], size_gib: int, age: timedelta, *, at_capacity: bool
) -> NextPoll:
    """Return whether to poll an export of this size and age now, and when to decide again.

    Args:
        finished: the newest finished exports of its scope.
        at_capacity: the concurrency limit of its scope is reached: its end frees a slot.
    """
    end = earliest_end(finished, size_gib)
    if age < end.age:
        return NextPoll(is_due=False, wait=min(end.age - age, _LONGEST))
    if not at_capacity:
        return NextPoll(is_due=True, wait=rare_interval(age))
    share, shortest = (_OFTEN, _MIN_OFTEN) if end.is_reliable else (_GUESSING, _MIN_GUESSING)
    return NextPoll(is_due=True, wait=min(max(age * share, shortest), _LONGEST))


def rare_interval(age: timedelta) -> timedelta:
    """Return the time between two polls of a job of this age whose end frees no needed slot."""
    return min(max(age * _RARELY, _MIN_RARELY), _LONGEST)

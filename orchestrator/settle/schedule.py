"""When an export is looked for: often when its end is due, seldom when it is not.

Pure functions of ages. An end that is seen late leaves a place empty, but only where the cap has
been met; each look costs a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.pace.durations import Ended

_RECENT = 50
_EARLY = 0.97
"""Part of the shortest time that an export may take: the looks begin a little before, or the
times that they tell could never become shorter."""

_OFTEN = 0.02
_SOONEST = timedelta(milliseconds=40)
_GUESSING = 0.05
_SOONEST_GUESS = timedelta(milliseconds=100)
_SELDOM = 0.1
"""Part of its age after which an export is looked at again: where its end frees a place; where
nobody knows how long exports take; and else."""

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(minutes=5)
_OVERLAP = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The looks at one export.

    Args:
        first: the age at which its end may come.
        again: the part of its age after which it is looked at again, where that matters.
        soonest: the shortest time between two looks.
    """

    first: timedelta = timedelta()
    again: float | None = None
    soonest: timedelta = _SOONEST

    def due_again(self, age: timedelta) -> timedelta:
        """For how long the store may leave it to whoever asks at this age; others keep away."""
        before_end = min(self.first - age + _OVERLAP, _LONGEST)
        return max(_SHORTEST, min(age * _SELDOM, _LONGEST), before_end)

    def after(self, age: timedelta) -> timedelta | None:
        """The age at the look that follows one at this age; ``None`` when the store tells."""
        return None if self.again is None else age + max(self.soonest, age * self.again)


def schedule(ended: Sequence[Ended], size_gib: int, *, pressed: bool) -> Schedule:
    """The looks at an export of this size, after what the others took.

    Args:
        pressed: its end frees a place that is waited for.
    """
    took = [
        one.took * min(1.0, size_gib / one.size_gib if one.size_gib else 1.0)
        for one in ended[:_RECENT]
        if bool(one.size_gib) == bool(size_gib)
    ]
    if not took:
        return Schedule(again=_GUESSING if pressed else None, soonest=_SOONEST_GUESS)
    return Schedule(first=min(took) * _EARLY, again=_OFTEN if pressed else None)

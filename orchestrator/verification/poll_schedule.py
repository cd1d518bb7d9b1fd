"""When an export is looked for: often when its end is due, seldom when it is not.

Pure functions of ages. An end that is seen late leaves a place empty, but only where the cap has
been met; each look costs a request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from orchestrator.forecast import FinishedExport

_RECENT = 50
_EARLY = 0.98
"""Part of the time that nearly all exports take at least: the looks begin a little before, or the
times that they tell could never become shorter."""

_ALIKE = 0.8
"""Part of another's size from which on two are of about the same."""

_FEW = 20
"""One of so many may be quicker than that; its end is seen a little late."""

_OFTEN = 0.02
_SOONEST = timedelta(milliseconds=40)
_GUESSING = 0.05
_SOONEST_GUESS = timedelta(milliseconds=200)
_SELDOM = 0.1
"""Part of its age after which an export is looked at again: where its end frees a place; where
nobody knows how long exports take; and else."""

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(minutes=5)
_OVERLAP = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class PollSchedule:
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


def schedule(ended: Sequence[FinishedExport], size_gib: int, *, at_capacity: bool) -> PollSchedule:
    """The looks at an export of this size, after what the others took.

    Those of about the same size tell best. Where none has ended yet, a larger one may have taken
    longer in proportion, or just as long.

    Args:
        pressed: its end frees a place that is waited for.
    """
    shares = [(one, _share(one, size_gib)) for one in ended[:_RECENT]]
    alike = [one.shortest * share for one, share in shares if share > _ALIKE]
    took = sorted(alike or [one.shortest * share for one, share in shares if share])
    first = took[len(took) // _FEW] * _EARLY if took else timedelta()
    if not at_capacity:
        return PollSchedule(first)
    return (
        PollSchedule(first, _OFTEN, _SOONEST)
        if alike
        else PollSchedule(first, _GUESSING, _SOONEST_GUESS)
    )


def _share(one: FinishedExport, size_gib: int) -> float:
    """The least part of what another took that an export of this size takes; 0 is unknown."""
    if bool(one.size_gib) != bool(size_gib):
        return 0.0
    return min(1.0, size_gib / one.size_gib) if one.size_gib else 1.0

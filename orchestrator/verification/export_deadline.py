"""How long an accepted export may take before it counts as lost: learned from those that ended."""

from datetime import timedelta

from orchestrator.forecast import Experience, FinishedExport
from orchestrator.store import Database
from orchestrator.verification.expected_objects import TrackedJob

_SHORTEST = timedelta(minutes=1)
_GENEROSITY = 10
"""How many times slower than anything seen an export may be; more while few have been seen."""


class ExportDeadlines:
    """When exports of an account count as lost.

    Args:
        longest: how long an export may take while nothing is known, and at most.
    """

    def __init__(self, database: Database, experience: Experience, longest: timedelta) -> None:
        self._database = database
        self._experience = experience
        self._longest = longest

    async def has_passed(
        self, job: TrackedJob, age: timedelta, *, being_written: bool = False
    ) -> bool:
        """Whether an export of this age counts as lost by now.

        Args:
            being_written: an upload of its is open, or nobody may know: it gets twice the time.
        """
        if age < min(_SHORTEST, self._longest):
            return False
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            ended = await self._experience.ended(connection, job.profile, job.region, now)
        allowed = time_allowed(ended, job.size_gib)
        if allowed is None:
            return age >= self._longest
        return age >= min(allowed * (2 if being_written else 1), self._longest)


def time_allowed(ended: list[FinishedExport], size_gib: int) -> timedelta | None:
    """How long an export of this size may take, after what the others took; ``None``: who knows.

    The slowest counts, scaled up for a larger image but never down for a smaller one: much of the
    time is the vendor's queue.
    """
    examples = [
        one.took * max(1.0, size_gib / one.size_gib if one.size_gib else 1.0)
        for one in ended
        if bool(one.size_gib) == bool(size_gib)
    ]
    if not examples:
        return None
    generosity = _GENEROSITY * (1 + _GENEROSITY / len(examples))
    return max(_SHORTEST, generosity * max(examples))

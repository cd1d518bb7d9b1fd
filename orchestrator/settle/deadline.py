"""How long an accepted export may take before it counts as lost: learned from those that ended."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db import Database
from orchestrator.model import JobState
from orchestrator.settle.objects import Watched
from orchestrator.tables import events, jobs

_SHORTEST = timedelta(minutes=1)
_GENEROSITY = 10
"""How many times slower than anything seen an export may be; more while few have been seen."""

_SAMPLES = 200
_RELEARN = 10.0
"""Seconds for which what was learned of a region is not asked for again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """One export that came to its end.

    Args:
        took: from its acceptance until its objects were seen.
        size_gib: of all its disks; 0 is unknown.
    """

    took: timedelta
    size_gib: int


class Deadlines:
    """What is known of an account's exports, by region.

    Args:
        longest: how long an export may take while nothing is known, and at most.
    """

    def __init__(self, database: Database, longest: timedelta) -> None:
        self._database = database
        self._longest = longest
        self._known: dict[tuple[str, str], tuple[float, list[Ended]]] = {}

    async def have_passed(self, job: Watched, *, being_written: bool = False) -> bool:
        """Whether the export counts as lost by now.

        Args:
            being_written: an upload of its is open, or nobody may know: it gets twice the time.
        """
        if job.accepted_at is None:
            return False
        async with self._database.read() as connection:
            age = await self._database.now(connection) - job.accepted_at
            if age < min(_SHORTEST, self._longest):
                return False
            ended = await self._ended(connection, job.profile, job.region)
        allowed = time_allowed(ended, job.size_gib)
        if allowed is None:
            return age >= self._longest
        return age >= min(allowed * (2 if being_written else 1), self._longest)

    async def _ended(self, connection: AsyncConnection, profile: str, region: str) -> list[Ended]:
        moment = anyio.current_time()
        asked_at, ended = self._known.get((profile, region), (-_RELEARN, []))
        if moment - asked_at >= _RELEARN:
            ended = await _newest_ended(connection, profile, region)
            self._known[profile, region] = moment, ended
        return ended


def time_allowed(ended: list[Ended], size_gib: int) -> timedelta | None:
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


async def _newest_ended(connection: AsyncConnection, profile: str, region: str) -> list[Ended]:
    query = (
        sa.select(jobs.c.accepted_at, jobs.c.finished_at, jobs.c.size_gib)
        .where(
            jobs.c.state == JobState.VERIFIED,
            jobs.c.profile == profile,
            jobs.c.region == region,
            # an adopted one was accepted nobody knows when
            ~sa.exists().where(events.c.job_id == jobs.c.id, events.c.kind == "adopted"),
        )
        .order_by(jobs.c.id.desc())
        .limit(_SAMPLES)
    )
    rows = (await connection.execute(query)).all()
    return [Ended(_span(row.accepted_at, row.finished_at), row.size_gib) for row in rows]


def _span(start: datetime, end: datetime) -> timedelta:
    return max(timedelta(), end - start)

"""What exports took: the one experience from which gate, looks and deadlines reckon."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.tables import ENDED, events, jobs


@dataclass(frozen=True, slots=True)
class Ended:
    """One export that came to its end.

    Args:
        took: from its acceptance until its objects were seen.
        size_gib: of all its disks; 0 is unknown.
    """

    took: timedelta
    size_gib: int


async def newest_ended(
    connection: AsyncConnection, profile: str, region: str, *, most: int
) -> list[Ended]:
    """The exports of a scope that ended last, the newest first."""
    query = (
        sa.select(jobs.c.accepted_at, jobs.c.finished_at, jobs.c.size_gib)
        .where(
            sa.text(ENDED),
            jobs.c.profile == profile,
            jobs.c.region == region,
            # an adopted one was accepted nobody knows when
            ~sa.exists().where(events.c.job_id == jobs.c.id, events.c.kind == "adopted"),
        )
        .order_by(jobs.c.finished_at.desc())
        .limit(most)
    )
    rows = (await connection.execute(query)).all()
    return [Ended(_span(row.accepted_at, row.finished_at), row.size_gib) for row in rows]


def usual(ended: list[Ended]) -> timedelta | None:
    """What three of four exports take at most; ``None`` before any has ended."""
    took = sorted(one.took for one in ended)
    return took[len(took) * 3 // 4] if took else None


def _span(start: datetime, end: datetime) -> timedelta:
    return max(timedelta(), end - start)

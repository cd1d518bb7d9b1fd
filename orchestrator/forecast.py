"""What exports took: the one experience from which gate, looks and deadlines reckon."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store.tables import ENDED, UtcDateTime, events, jobs, objects


@dataclass(frozen=True, slots=True)
class FinishedExport:
    """One export that came to its end.

    Args:
        took: from its acceptance until its objects were seen.
        size_gib: of all its disks; 0 is unknown.
        lasted: until they were written, by the vendor's clock; no longer than it took, but that
            clock may differ from ours.
    """

    took: timedelta
    size_gib: int
    lasted: timedelta | None = None

    @property
    def shortest(self) -> timedelta:
        """What it may have taken at least: nobody may have looked for long."""
        return self.took if self.lasted is None else min(self.took, self.lasted)


_WRITTEN_WITHIN = timedelta(seconds=1)
"""Last-Modified has no parts of a second."""

_UNTIMED = ("adopted", "settled", "late answer")
"""Events after which nobody knows when the export was accepted."""

_ANSWERED_WITHIN = timedelta(minutes=2)
"""From the claim to an acceptance that its answer dates; later ones were dated anew."""


async def latest_finished_exports(
    connection: AsyncConnection, profile: str, region: str, now: datetime, *, limit: int
) -> list[FinishedExport]:
    """The exports of a scope that ended last, the newest first, as far as their times are known."""
    asked = {"profile": profile, "region": region, "now": now, "limit": limit}
    rows = (await connection.execute(_NEWEST, asked)).all()
    return [_ended(row) for row in rows if _is_timed(row)]


def _newest() -> sa.Select[Any]:
    written = sa.select(sa.func.max(objects.c.last_modified)).where(objects.c.job_id == jobs.c.id)
    times = (jobs.c.sent_at, jobs.c.accepted_at, jobs.c.finished_at)
    return (
        sa.select(*times, jobs.c.size_gib, written.scalar_subquery().label("written_at"))
        .where(
            sa.text(ENDED),
            jobs.c.profile == sa.bindparam("profile"),
            jobs.c.region == sa.bindparam("region"),
            # what seems to have ended in the future was told by another clock
            jobs.c.finished_at <= sa.bindparam("now", type_=UtcDateTime),
            ~sa.exists().where(events.c.job_id == jobs.c.id, events.c.kind.in_(_UNTIMED)),
        )
        .order_by(jobs.c.finished_at.desc())
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


_NEWEST = _newest()


def _ended(row: Any) -> FinishedExport:
    took = max(timedelta(), row.finished_at - row.accepted_at)
    if row.written_at is None:
        return FinishedExport(took, row.size_gib)
    lasted = row.written_at + _WRITTEN_WITHIN - row.accepted_at
    return FinishedExport(took, row.size_gib, max(timedelta(), lasted))


def _is_timed(row: Any) -> bool:
    return row.sent_at is None or row.accepted_at - row.sent_at <= _ANSWERED_WITHIN


def typical_duration(ended: list[FinishedExport]) -> timedelta | None:
    """What at least three of four exports take at most; ``None`` before any has ended."""
    took = sorted(one.took for one in ended)
    return took[len(took) * 3 // 4] if took else None


_SAMPLES = 200


_REMEMBERED = 2.0
"""Seconds for which what was learned of a region is not asked for again."""


class Experience:
    """The exports that ended last."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, list[FinishedExport]]] = {}

    async def ended(
        self, connection: AsyncConnection, profile: str, region: str, now: datetime
    ) -> list[FinishedExport]:
        """Those of a scope, the newest first."""
        moment = anyio.current_time()
        asked_at, ended = self._known.get((profile, region), (-_REMEMBERED, []))
        if moment - asked_at >= _REMEMBERED:
            ended = await latest_finished_exports(connection, profile, region, now, limit=_SAMPLES)
            self._known[profile, region] = moment, ended
        return ended

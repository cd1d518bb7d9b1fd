"""How things stand: counts, gates, and how long the rest will take."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.forecast import (
    Remaining,
    latest_finished_exports,
    seconds_left,
    typical_duration,
)
from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.limits.concurrency_limit import ConcurrencyLimit, concurrency_limits
from orchestrator.store import Database
from orchestrator.store.tables import jobs, scopes


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """One account in one region.

    Args:
        waiting: jobs in the queue.
        usual_seconds: from acceptance to the end, the median of the latest; ``None`` before any.
        seconds_left: what the rest may take at the learned ceiling, 0 where it is due already;
            ``None`` when unknown.
    """

    profile: str
    concurrency: ConcurrencyLimit
    waiting: int
    usual_seconds: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole store, or one batch, at a moment.

    Args:
        reasons: why jobs wait, in the queue or for a look, and how many for each.
        rests_until: when the next job falls due; ``None`` while something can move before.
    """

    at: datetime
    counts: Mapping[JobState, int]
    scopes: tuple[ScopeStatus, ...]
    reasons: Mapping[str, int]
    rests_until: datetime | None

    @property
    def total(self) -> int:
        """All jobs."""
        return sum(self.counts.values())

    @property
    def seconds_left(self) -> float | None:
        """What the slowest scope may still take; ``None`` while any of them cannot be told."""
        if self.rests_until is not None:
            return (self.rests_until - self.at).total_seconds()
        left = [scope.seconds_left for scope in self.scopes]
        return (
            None if not left or None in left else max(value for value in left if value is not None)
        )


async def status(database: Database, *, batch: str | None = None, rate: float = 0.0) -> Status:
    """Counts and gates; the counts of one batch, where one is named.

    Args:
        rate: requests a second that may be sent, for the time to expect; 0 is no limit.
    """
    async with database.read() as connection:
        now = await database.now(connection)
        everywhere = (await connection.execute(_KINDS)).all()
        shown = everywhere if batch is None else await _kinds_of(connection, batch)
        counts = _sums(shown, "state")
        return Status(
            at=now,
            counts={state: counts[state] for state in JobState},
            scopes=await _scopes(connection, everywhere, now, rate),
            reasons=_sums(_in_state(shown, JobState.QUEUED, JobState.UNKNOWN), "reason"),
            rests_until=await _rests_until(connection, counts, batch, now),
        )


_SORT = (jobs.c.state, jobs.c.profile, jobs.c.region, jobs.c.reason)
_KINDS = sa.select(*_SORT, sa.func.count().label("total")).group_by(*_SORT)
"""How many jobs agree in all of these: one pass over an index that has nothing else."""


async def _kinds_of(connection: AsyncConnection, batch: str) -> Sequence[Any]:
    """The same of one batch, all read off its index."""
    sort = (jobs.c.state, jobs.c.reason)
    query = sa.select(*sort, sa.func.count().label("total")).where(jobs.c.batch == batch)
    return (await connection.execute(query.group_by(*sort))).all()


def _sums(kinds: Iterable[Any], column: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for kind in kinds:
        sums[getattr(kind, column)] += kind.total
    return sums


def _in_state(kinds: Iterable[Any], *states: JobState) -> list[Any]:
    return [kind for kind in kinds if kind.state in states]


async def _rests_until(
    connection: AsyncConnection, counts: Mapping[str, int], batch: str | None, now: datetime
) -> datetime | None:
    if any(counts[state] for state in UNDER_WAY):
        return None
    of_batch = sa.true() if batch is None else jobs.c.batch == batch
    waiting = sa.and_(jobs.c.state == JobState.QUEUED, of_batch)
    due = sa.select(sa.literal(1)).where(waiting, jobs.c.due_at <= now).limit(1)
    if await connection.scalar(due) is not None:
        return None
    first: datetime | None = await connection.scalar(
        sa.select(sa.func.min(jobs.c.due_at)).where(waiting)
    )
    return first


async def _scopes(
    connection: AsyncConnection, kinds: Iterable[Any], now: datetime, rate: float
) -> tuple[ScopeStatus, ...]:
    waiting: Counter[tuple[str, str]] = Counter()
    for kind in _in_state(kinds, JobState.QUEUED):
        waiting[kind.profile, kind.region] += kind.total
    query = sa.select(scopes.c.profile).distinct().order_by(scopes.c.profile)
    found: list[ScopeStatus] = []
    for profile in (await connection.execute(query)).scalars().all():
        for concurrency in await concurrency_limits(connection, profile, now):
            region = concurrency.region
            finished = await latest_finished_exports(connection, profile, region, now)
            typical = typical_duration(finished)
            remaining = Remaining(
                profile,
                region,
                waiting=waiting[profile, region],
                running=concurrency.running,
                ceiling=concurrency.ceiling,
            )
            found.append(
                ScopeStatus(
                    profile,
                    concurrency,
                    remaining.waiting,
                    usual_seconds=None if typical is None else typical.total_seconds(),
                    seconds_left=await seconds_left(connection, remaining, typical, now, rate=rate),
                )
            )
    return tuple(found)

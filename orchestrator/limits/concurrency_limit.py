"""How many exports may run at the same time in one scope (account and region).

The vendor does not publish the limit, and other programs share it. Only one thing is certain: how
many of our own exports were running when one more was refused. That number is the ceiling. Running
exports are counted from the job rows, so a crash cannot leave a wrong counter behind.

A verified export frees its slot immediately. From time to time one job above the ceiling is sent as
a probe, to find out whether the vendor accepts more. There is one probe at a time in normal
operation: its claim delays the next probe until the lease ends, and its answer sets the time of the
next one. An answer that comes late can let a second probe be sent, which costs at most one refused
request.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.export_durations import latest_finished_exports, long_duration
from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.limits.backoff import backoff
from orchestrator.model import NOT_RULED_OUT, Lease
from orchestrator.store import insert_or_ignore
from orchestrator.store.tables import CLAIMABLE, UtcDateTime, jobs, scopes

_MAX_BACKOFF = 300.0
"""Maximum seconds between two probes where the ends of exports cannot be seen. There each refused
probe doubles the interval and each accepted one halves it, so that about half of the probes are
accepted."""

_MAX_BACKOFF_IF_SUSPECTED = 10.0
"""The same in a region that is suspected because of a job's refusal while no export of ours is
running: each probe may show that the refusal concerns the job alone."""

_FIRST_INTERVAL = timedelta(seconds=1)
"""Minimum interval between probes for a ceiling of one, where the ends of exports are seen but none
has finished yet."""


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The state of one scope.

    Args:
        ceiling: exports that may run at the same time; ``None`` before the first refusal.
        running: our own exports that may be running.
        full_since: time of the first refusal since the last accepted probe.
        probe_at: when the next probe is due.
    """

    region: str
    ceiling: int | None
    running: int
    full_since: datetime | None
    probe_at: datetime | None

    @property
    def has_free_slot(self) -> bool:
        """Whether a job may be sent without being a probe.

        True if the ceiling is not reached, or no ceiling has been learned.
        """
        return self.ceiling is None or self.running < self.ceiling

    def sendable(self, now: datetime, limit: int) -> int:
        """Return how many more requests may be sent now, at most ``limit``."""
        if self.ceiling is None:
            return limit
        if self.has_free_slot:
            return min(limit, self.ceiling - self.running)
        is_probe_due = self.probe_at is None or self.probe_at <= now
        return min(limit, 1) if is_probe_due else 0


async def open_scope(connection: AsyncConnection, profile: str, region: str) -> None:
    """Insert the row of a scope if it does not exist."""
    new = {"profile": profile, "region": region, "misses": 0}
    await connection.execute(insert_or_ignore(connection, scopes).values(new))


async def known_regions(connection: AsyncConnection, profile: str) -> list[str]:
    """Return every region in which this account has ever had a job."""
    return list((await connection.execute(_REGIONS, {"profile": profile})).scalars())


async def exporting_regions(connection: AsyncConnection, profile: str) -> frozenset[str]:
    """Return the regions in which a requested export of ours may be running.

    An unknown job that only an operator can resolve does not count: nothing of it was found.
    """
    return frozenset((await connection.execute(_EXPORTING, {"profile": profile})).scalars())


async def concurrency_limits(
    connection: AsyncConnection, profile: str, now: datetime
) -> list[ConcurrencyLimit]:
    """Return the limits of an account, ordered by region."""
    rows = (await connection.execute(_SCOPES, {"profile": profile})).all()
    running = await _running(connection, profile, [row.region for row in rows], now)
    return [_limit(row, running.get(row.region, 0)) for row in rows]


async def limits_with_waiting_jobs(
    connection: AsyncConnection, profile: str, regions: Sequence[str], now: datetime
) -> list[ConcurrencyLimit]:
    """Return the limits of the given regions with a job to send, in their order.

    Their rows are locked until the end of the transaction, so that on PostgreSQL only one process
    counts and claims at a time. Running exports are counted only where there is a ceiling.
    """
    values = {"profile": profile, "regions": regions, "now": now}
    rows = (await connection.execute(_WITH_WORK, values)).all()
    counted = [row.region for row in rows if row.ceiling is not None]
    running = await _running(connection, profile, counted, now) if counted else {}
    in_order = sorted(rows, key=lambda row: regions.index(row.region))
    return [_limit(row, running.get(row.region, 0)) for row in in_order]


def _limit(row: Any, running: int) -> ConcurrencyLimit:
    return ConcurrencyLimit(row.region, row.ceiling, running, row.full_since, row.probe_at)


async def regions_at_capacity(connection: AsyncConnection, profile: str) -> frozenset[str]:
    """Return the regions that have a ceiling.

    There a slot stays unused until the end of its export is seen.
    """
    return frozenset((await connection.execute(_AT_CAPACITY, {"profile": profile})).scalars())


async def begin_probe(connection: AsyncConnection, lease: Lease) -> None:
    """Delay the next probe until this probe's answer is recorded or its lease ends."""
    await connection.execute(
        scopes.update().where(_is_scope_of(lease)).values(probe_at=lease.expires_at)
    )


async def record_refusal(
    connection: AsyncConnection,
    lease: Lease,
    now: datetime,
    *,
    is_end_visible: bool,
    is_suspected: bool = False,
) -> None:
    """Record a refusal for capacity: our running exports become the ceiling.

    Args:
        is_end_visible: whether the ends of exports can be seen in the bucket. If not, only probes
            show that a slot is free.
        is_suspected: the code may concern the job instead of the region.
    """
    # Lock the row before counting: refused jobs of concurrent transactions are then already put
    # back, and do not count as running.
    scope = await _locked_row(connection, lease)
    running = await _running_here(connection, lease, now)
    full_since = scope.full_since or now
    if is_end_visible and running:
        interval = await _interval_of_probes(connection, lease, running, now, full_since)
    else:
        # no jitter: a scope has one probe at a time, so there is nothing to spread
        longest = _MAX_BACKOFF_IF_SUSPECTED if is_suspected and not running else _MAX_BACKOFF
        interval = backoff(scope.misses, 1.0, longest=longest)
    await connection.execute(
        scopes.update()
        .where(_is_scope_of(lease))
        .values(
            ceiling=running,
            misses=scope.misses + lease.probe,
            full_since=full_since,
            probe_at=now + interval,
        )
    )


async def _interval_of_probes(
    connection: AsyncConnection, lease: Lease, running: int, now: datetime, full_since: datetime
) -> timedelta:
    """Return the time between two probes where the ends of exports are seen.

    The interval grows with the square root of the ceiling. Short intervals cost refused probes;
    long ones leave slots empty, and an empty slot costs more where there are few. Before any export
    has finished, the time since the scope became full is used as the duration of an export.
    """
    finished = await latest_finished_exports(connection, lease.profile, lease.order.region, now)
    duration = long_duration(finished) or max(_FIRST_INTERVAL, now - full_since)
    return duration * math.sqrt(running)


async def record_answer(
    connection: AsyncConnection, lease: Lease, now: datetime, *, accepted: bool
) -> None:
    """Record that a probe was not refused for capacity.

    If it was accepted, raise the ceiling to the number of running exports. The next probe may
    follow immediately, so the ceiling grows by one for each round trip until a probe is refused.
    """
    if not lease.probe:
        return
    scope = await _locked_row(connection, lease)
    values: dict[str, Any] = {"probe_at": now}
    if accepted:
        running = await _running_here(connection, lease, now)
        values |= {
            "ceiling": max(running, scope.ceiling or 0),
            "misses": max(0, scope.misses - 1),
            "full_since": None,
        }
    await connection.execute(scopes.update().where(_is_scope_of(lease)).values(values))


async def _running(
    connection: AsyncConnection, profile: str, regions: list[str], now: datetime
) -> dict[str, int]:
    """Count our exports that may be running, by region.

    Accepted exports past their deadline do not count.
    """
    values = {"profile": profile, "regions": regions, "now": now}
    return dict((await connection.execute(_RUNNING, values)).all())


async def _running_here(connection: AsyncConnection, lease: Lease, now: datetime) -> int:
    region = lease.order.region
    return (await _running(connection, lease.profile, [region], now)).get(region, 0)


async def _locked_row(connection: AsyncConnection, lease: Lease) -> Any:
    query = sa.select(scopes).where(_is_scope_of(lease)).with_for_update()
    return (await connection.execute(query)).one()


def _is_scope_of(lease: Lease) -> sa.ColumnElement[bool]:
    return (scopes.c.profile == lease.profile) & (scopes.c.region == lease.order.region)


_PROFILE = sa.bindparam("profile", type_=sa.Text)
_NOW = sa.bindparam("now", type_=UtcDateTime)
_SOME_REGIONS = sa.bindparam("regions", type_=sa.Text, expanding=True)

# built once: building a statement takes longer than executing it
_SCOPES = sa.select(scopes).where(scopes.c.profile == _PROFILE).order_by(scopes.c.region)
_WAITS_HERE = (
    *(sa.text(CLAIMABLE), jobs.c.due_at <= _NOW),
    *(jobs.c.profile == scopes.c.profile, jobs.c.region == scopes.c.region),
)
_WITH_WORK = _SCOPES.where(
    scopes.c.region.in_(_SOME_REGIONS), sa.select(jobs.c.id).where(*_WAITS_HERE).exists()
).with_for_update()
_REGIONS = _SCOPES.with_only_columns(scopes.c.region)
_AT_CAPACITY = _REGIONS.where(scopes.c.ceiling.is_not(None))
_EXPORTING = _REGIONS.where(
    sa.select(jobs.c.id)
    .where(
        jobs.c.state.in_([JobState.ACCEPTED, JobState.UNKNOWN]),
        jobs.c.reason != NOT_RULED_OUT,
        *(jobs.c.profile == scopes.c.profile, jobs.c.region == scopes.c.region),
    )
    .exists()
)
_RUNNING = (
    sa.select(jobs.c.region, sa.func.count())
    .where(
        jobs.c.state.in_(sorted(UNDER_WAY)),
        jobs.c.profile == _PROFILE,
        jobs.c.region.in_(_SOME_REGIONS),
        sa.or_(
            jobs.c.state != JobState.ACCEPTED,
            jobs.c.deadline_at.is_(None),
            jobs.c.deadline_at > _NOW,
        ),
    )
    .group_by(jobs.c.region)
)

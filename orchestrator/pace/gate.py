"""The gate of a scope: how many exports may run at once, learned from the vendor's refusals.

The cap is published nowhere and shared with others. What is known for certain is how many of our
own exports ran when one was refused: that number is the ceiling. An end that was seen frees a
place at once; a single prober looks, now and then, whether others have freed more.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model import UNDER_WAY, JobState, Lease
from orchestrator.pace.backoff import backoff
from orchestrator.tables import jobs, scopes

_LONGEST_WAIT = 300.0


@dataclass(frozen=True, slots=True)
class Gate:
    """One scope's gate as it stands.

    Args:
        ceiling: exports that may run at once; ``None`` when no refusal has told yet.
        running: our own exports that may occupy a place.
        full_since: when the vendor first said that it was full, while it is.
        probe_at: when the next prober may leave.
    """

    region: str
    ceiling: int | None
    running: int
    full_since: datetime | None
    probe_at: datetime | None
    probing: bool

    def admits(self, now: datetime) -> bool:
        """Whether one more request may leave."""
        return self.has_room or self.admits_prober(now)

    @property
    def has_room(self) -> bool:
        """Whether a place is known to be free."""
        return self.ceiling is None or self.running < self.ceiling

    def admits_prober(self, now: datetime) -> bool:
        """Whether it is time to look for a place that nobody told us of."""
        return not self.probing and (self.probe_at is None or self.probe_at <= now)


async def open_scope(connection: AsyncConnection, profile: str, region: str) -> None:
    """Makes the row of a scope, if it is new."""
    known = sa.select(scopes.c.region).where(scopes.c.profile == profile, scopes.c.region == region)
    if (await connection.execute(known)).first() is None:
        await connection.execute(scopes.insert().values(profile=profile, region=region, misses=0))


async def known_regions(connection: AsyncConnection, profile: str) -> list[str]:
    """Every region in which this account has ever had a job."""
    query = sa.select(scopes.c.region).where(scopes.c.profile == profile)
    return list((await connection.execute(query.order_by(scopes.c.region))).scalars())


async def gates(
    connection: AsyncConnection, profile: str, now: datetime, *, lock: bool = False
) -> list[Gate]:
    """The gates of an account, by region.

    Args:
        lock: hold the rows until the end of the transaction, so that of several processes on
            PostgreSQL only one counts and claims at a time.
    """
    query = sa.select(scopes).where(scopes.c.profile == profile).order_by(scopes.c.region)
    rows = (await connection.execute(query.with_for_update() if lock else query)).all()
    running = await _running(connection, profile, now)
    return [
        Gate(
            region=row.region,
            ceiling=row.ceiling,
            running=running.get(row.region, 0),
            full_since=row.full_since,
            probe_at=row.probe_at,
            probing=row.probe_until is not None and row.probe_until > now,
        )
        for row in rows
    ]


async def begin_probe(connection: AsyncConnection, lease: Lease) -> None:
    """Elects the job of this lease as the one that probes; the election ends with the lease."""
    await connection.execute(
        _scope_of(lease).values(probe_job=lease.job_id, probe_until=lease.expires_at)
    )


async def refused(connection: AsyncConnection, lease: Lease, now: datetime) -> None:
    """The vendor is full: what we know to be running is the ceiling, and a prober waits."""
    # the row first: who waits for it then counts without the jobs that others have put back
    scope = await _locked_row(connection, lease)
    running = (await _running(connection, lease.profile, now)).get(lease.order.region, 0)
    misses = scope.misses + 1 if lease.probe else 0
    wait = backoff(misses, random.random(), longest=_LONGEST_WAIT)  # noqa: S311 - spreads load
    await connection.execute(
        _scope_of(lease).values(
            ceiling=running,
            misses=misses,
            full_since=scope.full_since or now,
            probe_at=now + wait,
            **_end_of_probe(scope, lease),
        )
    )


async def answered(
    connection: AsyncConnection, lease: Lease, now: datetime, *, accepted: bool
) -> None:
    """A prober came back without a refusal; accepted, it has found a place more."""
    if not lease.probe:
        return
    scope = await _locked_row(connection, lease)
    values = _end_of_probe(scope, lease)
    if accepted:
        running = (await _running(connection, lease.profile, now)).get(lease.order.region, 0)
        fewer = max(0, scope.misses - 2)
        values |= {
            "ceiling": max(running, scope.ceiling or 0),
            "misses": fewer,
            "full_since": None,
            "probe_at": now + (backoff(fewer, 0.0) if fewer else timedelta()),
        }
    if values:
        await connection.execute(_scope_of(lease).values(values))


async def _running(connection: AsyncConnection, profile: str, now: datetime) -> dict[str, int]:
    """Our exports that may occupy a place: an accepted one no longer than its deadline."""
    holds = sa.or_(
        jobs.c.state != JobState.ACCEPTED, jobs.c.deadline_at.is_(None), jobs.c.deadline_at > now
    )
    query = (
        sa.select(jobs.c.region, sa.func.count())
        .where(jobs.c.state.in_(sorted(UNDER_WAY)), jobs.c.profile == profile, holds)
        .group_by(jobs.c.region)
    )
    return dict((await connection.execute(query)).all())


async def _locked_row(connection: AsyncConnection, lease: Lease) -> Any:
    query = sa.select(scopes).where(
        scopes.c.profile == lease.profile, scopes.c.region == lease.order.region
    )
    return (await connection.execute(query.with_for_update())).one()


def _end_of_probe(scope: Any, lease: Lease) -> dict[str, object]:
    """The election of this lease's job is over; that of a successor is left alone."""
    return {"probe_job": None, "probe_until": None} if scope.probe_job == lease.job_id else {}


def _scope_of(lease: Lease) -> sa.Update:
    return scopes.update().where(
        scopes.c.profile == lease.profile, scopes.c.region == lease.order.region
    )

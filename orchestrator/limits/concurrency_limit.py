"""The gate of a scope: how many exports may run at once, learned from the vendor's refusals.

The cap is published nowhere and shared with others. What is known for certain is how many of our
own exports ran when one was refused: that number is the ceiling. An end that was seen frees a
place at once; a single prober looks, now and then, whether others have freed more.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.forecast import latest_finished_exports, typical_duration
from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.model import Lease
from orchestrator.store.tables import CLAIMABLE, UtcDateTime, jobs, scopes

_SEEN = 20
"""Ended exports from which the usual duration is taken."""

_SHARE = 0.75
"""Of the usual duration, times the root of the ceiling: the wait between probes. A refused probe
costs a request, a place not found the same part of the work the smaller the ceiling is; between
the two costs the root is the mean."""

_CONFIRMED_AFTER = 1 / 20
"""Of the usual duration: the wait after a place was found. If it was only that of an export whose
end had not been seen yet, that end is seen by then, and nothing more is built on it."""

_GROWTH = 1.118
"""Where no end is seen, what twice a refused probe adds to the wait (1.25 in all), and an accepted
one takes away: then one of three probes or so is refused, however long exports take."""

_CREDIT = -12
"""What acceptances take away at most: after many of them probes follow closely upon one another."""

_FIRST_BLIND, _LONGEST_BLIND = 1.0, 300.0
_LONGEST = timedelta(minutes=30)

_UNTIL_FIRST_END = timedelta(minutes=5)
"""The wait between probes where ends will be seen and none has been yet: the first tells more."""


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
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

    @property
    def has_room(self) -> bool:
        """Whether a place is known to be free."""
        return self.ceiling is None or self.running < self.ceiling

    def room(self, now: datetime, limit: int) -> int:
        """How many more requests may leave now; a single one where it is time for a prober."""
        if self.ceiling is None:
            return limit
        if self.has_room:
            return min(limit, self.ceiling - self.running)
        return min(limit, 1) if self.admits_prober(now) else 0

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
    return list((await connection.execute(_REGIONS, {"profile": profile})).scalars())


def has_job(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Scopes in which there is such a job, as a condition on the table of scopes."""
    here = (jobs.c.profile == scopes.c.profile) & (jobs.c.region == scopes.c.region)
    return sa.select(jobs.c.id).where(*conditions, here).exists()


async def concurrency_limits(
    connection: AsyncConnection, profile: str, now: datetime
) -> list[ConcurrencyLimit]:
    """The gates of an account, by region."""
    rows = (await connection.execute(_SCOPES, {"profile": profile})).all()
    running = await _running(connection, profile, [row.region for row in rows], now)
    return _as_they_stand(rows, running, now)


async def limits_with_waiting_jobs(
    connection: AsyncConnection, profile: str, regions: Sequence[str], now: datetime
) -> list[ConcurrencyLimit]:
    """The gates behind which a job waits that might be sent, in the order of these regions.

    Their rows are held until the end of the transaction, so that of several processes on
    PostgreSQL only one counts and claims at a time. What runs is counted where there is a ceiling
    to hold it against.
    """
    asked = {"profile": profile, "regions": regions, "now": now}
    rows = (await connection.execute(_WITH_WORK, asked)).all()
    counted = [row.region for row in rows if row.ceiling is not None]
    running = await _running(connection, profile, counted, now) if counted else {}
    turn = {region: number for number, region in enumerate(regions)}
    return _as_they_stand(sorted(rows, key=lambda row: turn[row.region]), running, now)


def _as_they_stand(
    rows: Sequence[Any], running: Mapping[str, int], now: datetime
) -> list[ConcurrencyLimit]:
    return [
        ConcurrencyLimit(
            region=row.region,
            ceiling=row.ceiling,
            running=running.get(row.region, 0),
            full_since=row.full_since,
            probe_at=row.probe_at,
            probing=row.probe_until is not None and row.probe_until > now,
        )
        for row in rows
    ]


async def regions_at_capacity(connection: AsyncConnection, profile: str) -> frozenset[str]:
    """The regions whose cap has been met: there an end that is seen late costs a place."""
    return frozenset((await connection.execute(_PRESSED, {"profile": profile})).scalars())


async def begin_probe(connection: AsyncConnection, lease: Lease) -> None:
    """Elects the job of this lease as the one that probes; the election ends with the lease."""
    await connection.execute(
        _scope_of(lease).values(probe_job=lease.job_id, probe_until=lease.expires_at)
    )


async def record_refusal(
    connection: AsyncConnection, lease: Lease, now: datetime, *, is_end_visible: bool
) -> None:
    """The vendor is full: what we know to be running is the ceiling, and a prober waits.

    Args:
        sighted: the ends of exports are seen; otherwise probes alone find out about them.
    """
    # the row first: who waits for it then counts without the jobs that others have put back
    scope = await _locked_row(connection, lease)
    running = await _running_beside(connection, lease, now)
    misses = scope.misses + 2 if lease.probe else min(0, scope.misses)
    wait = _blind_wait(misses)
    if is_end_visible and running:
        wait = await _sighted_wait(connection, lease.profile, lease.order.region, running, now)
    await connection.execute(
        _scope_of(lease).values(
            ceiling=running,
            misses=misses,
            streak=0,
            full_since=scope.full_since or now,
            probe_at=now + wait * random.uniform(0.95, 1.05),  # noqa: S311 - spreads load
            **_end_of_probe(scope, lease),
        )
    )


async def record_answer(
    connection: AsyncConnection,
    lease: Lease,
    now: datetime,
    *,
    accepted: bool,
    is_end_visible: bool = False,
) -> None:
    """A prober came back without a refusal; accepted, it has found a place more.

    The n-th success in a row opens n - 1 places beyond the one that it found.
    """
    if not lease.probe:
        return
    scope = await _locked_row(connection, lease)
    values = _end_of_probe(scope, lease)
    if accepted:
        running = await _running_beside(connection, lease, now)
        usually = None
        if is_end_visible:
            usually = await _typical_duration(connection, lease.profile, lease.order.region, now)
        streak = (scope.streak or 0) + 1
        values |= {
            "ceiling": max(running + streak - 1, scope.ceiling or 0),
            "misses": max(_CREDIT, scope.misses - 1),
            "streak": streak,
            "full_since": None,
            "probe_at": now + (usually or timedelta()) * _CONFIRMED_AFTER,
        }
    if values:
        await connection.execute(_scope_of(lease).values(values))


async def record_end(connection: AsyncConnection, profile: str, region: str, now: datetime) -> None:
    """An end was seen: no prober waits longer than the time that exports take calls for."""
    scope = {"profile": profile, "region": region}
    if (await connection.execute(_TO_BE_PROBED, {**scope, "now": now})).first() is None:
        return
    running = await _running(connection, profile, [region], now)
    probe_at = now + await _sighted_wait(connection, profile, region, running.get(region, 0), now)
    here = (scopes.c.profile == profile) & (scopes.c.region == region)
    this = scopes.update().where(here, scopes.c.probe_at > probe_at)
    await connection.execute(this.values(probe_at=probe_at))


def _blind_wait(misses: int) -> timedelta:
    # the exponent is capped: a float overflows
    return timedelta(seconds=min(_LONGEST_BLIND, _FIRST_BLIND * _GROWTH ** min(misses, 100)))


async def _sighted_wait(
    connection: AsyncConnection, profile: str, region: str, running: int, now: datetime
) -> timedelta:
    usually = await _typical_duration(connection, profile, region, now)
    if usually is None:
        return _UNTIL_FIRST_END
    return min(_LONGEST, usually * _SHARE * math.sqrt(max(1, running)))


async def _typical_duration(
    connection: AsyncConnection, profile: str, region: str, now: datetime
) -> timedelta | None:
    return typical_duration(
        await latest_finished_exports(connection, profile, region, now, limit=_SEEN)
    )


async def _running(
    connection: AsyncConnection, profile: str, regions: list[str], now: datetime
) -> dict[str, int]:
    """Our exports that may occupy a place: an accepted one no longer than its deadline."""
    asked = {"profile": profile, "regions": regions, "now": now}
    return dict((await connection.execute(_RUNNING, asked)).all())


async def _running_beside(connection: AsyncConnection, lease: Lease, now: datetime) -> int:
    region = lease.order.region
    return (await _running(connection, lease.profile, [region], now)).get(region, 0)


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


_PROFILE = sa.bindparam("profile", type_=sa.Text)
_NOW = sa.bindparam("now", type_=UtcDateTime)
_SOME_REGIONS = sa.bindparam("regions", type_=sa.Text, expanding=True)

# made anew, each would cost as much again as its execution
_SCOPES = sa.select(scopes).where(scopes.c.profile == _PROFILE).order_by(scopes.c.region)
_WITH_WORK = _SCOPES.where(
    scopes.c.region.in_(_SOME_REGIONS),
    has_job(sa.literal_column(CLAIMABLE, sa.Boolean), jobs.c.due_at <= _NOW),
).with_for_update()
_REGIONS = _SCOPES.with_only_columns(scopes.c.region)
_PRESSED = _REGIONS.where(scopes.c.ceiling.is_not(None))
_TO_BE_PROBED = _REGIONS.where(scopes.c.region == sa.bindparam("region"), scopes.c.probe_at > _NOW)
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

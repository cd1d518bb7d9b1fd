"""How things stand: counts, gates, and how long the rest will take."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db import Database
from orchestrator.model import UNDER_WAY, JobState
from orchestrator.pace.gate import Gate, gates
from orchestrator.tables import jobs, scopes

_RECENT = 50
"""Verified exports from which the usual duration is taken."""


@dataclass(frozen=True, slots=True)
class ScopeStatus:
    """One account in one region.

    Args:
        waiting: jobs in the queue.
        usual_seconds: from acceptance to the end, the median of the latest; ``None`` before any.
        seconds_left: what the rest may take at the learned ceiling; ``None`` when unknown.
    """

    profile: str
    gate: Gate
    waiting: int
    usual_seconds: float | None
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The whole store, or one batch, at a moment.

    Args:
        reasons: why jobs wait, and how many for each.
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
    of_batch = sa.true() if batch is None else jobs.c.batch == batch
    async with database.read() as connection:
        now = await database.now(connection)
        return Status(
            at=now,
            counts=await _counts(connection, of_batch),
            scopes=await _scopes(connection, now, rate),
            reasons=await _reasons(connection, of_batch),
            rests_until=await _rests_until(connection, of_batch, now),
        )


async def _counts(
    connection: AsyncConnection, condition: sa.ColumnElement[bool]
) -> dict[JobState, int]:
    query = sa.select(jobs.c.state, sa.func.count()).where(condition).group_by(jobs.c.state)
    found: dict[str, int] = dict((await connection.execute(query)).all())
    return {state: found.get(state, 0) for state in JobState}


async def _reasons(
    connection: AsyncConnection, condition: sa.ColumnElement[bool]
) -> dict[str, int]:
    """Why the waiting jobs wait."""
    query = (
        sa.select(jobs.c.reason, sa.func.count())
        .where(condition, jobs.c.state == JobState.QUEUED)
        .group_by(jobs.c.reason)
    )
    return dict((await connection.execute(query)).all())


async def _rests_until(
    connection: AsyncConnection, condition: sa.ColumnElement[bool], now: datetime
) -> datetime | None:
    open_ends = sa.select(sa.literal(1)).where(condition, jobs.c.state.in_(sorted(UNDER_WAY)))
    if (await connection.execute(open_ends.limit(1))).first() is not None:
        return None
    query = sa.select(sa.func.min(jobs.c.due_at)).where(condition, jobs.c.state == JobState.QUEUED)
    first = (await connection.execute(query)).scalar_one()
    return first if first is not None and first > now else None


async def _scopes(
    connection: AsyncConnection, now: datetime, rate: float
) -> tuple[ScopeStatus, ...]:
    query = sa.select(scopes.c.profile).distinct().order_by(scopes.c.profile)
    found: list[ScopeStatus] = []
    for profile in (await connection.execute(query)).scalars().all():
        here = await gates(connection, profile, now)
        found += [await _scope(connection, profile, gate, rate) for gate in here]
    return tuple(found)


async def _scope(connection: AsyncConnection, profile: str, gate: Gate, rate: float) -> ScopeStatus:
    here = sa.and_(jobs.c.profile == profile, jobs.c.region == gate.region)
    queued = sa.select(sa.func.count()).where(here, jobs.c.state == JobState.QUEUED)
    waiting = int((await connection.execute(queued)).scalar_one())
    usual = await _usual_seconds(connection, here)
    return ScopeStatus(profile, gate, waiting, usual, _seconds_left(gate, waiting, usual, rate))


async def _usual_seconds(
    connection: AsyncConnection, condition: sa.ColumnElement[bool]
) -> float | None:
    query = (
        sa.select(jobs.c.accepted_at, jobs.c.finished_at)
        .where(condition, jobs.c.state == JobState.VERIFIED, jobs.c.accepted_at.is_not(None))
        .order_by(jobs.c.id.desc())
        .limit(_RECENT)
    )
    rows = await connection.execute(query)
    lasted = sorted((ended - begun).total_seconds() for begun, ended in rows)
    return lasted[len(lasted) // 2] if lasted else None


def _seconds_left(gate: Gate, waiting: int, usual: float | None, rate: float) -> float | None:
    """What bounds the rest: rounds of a full gate, or the rate and the last export."""
    if waiting + gate.running == 0:
        return 0.0
    if usual is None:
        return None
    places = gate.ceiling if gate.ceiling is not None else waiting + gate.running
    rounds = -(-(waiting + gate.running) // max(places, 1))
    sending = waiting / rate if rate else 0.0
    return max(usual * rounds, sending + usual)

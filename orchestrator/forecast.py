"""How long exports take, learned from finished ones; and what follows: deadlines and the ETA."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median_high
from typing import Any

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.store import Database
from orchestrator.store.tables import CLAIMABLE, ENDED, UtcDateTime, events, jobs, objects

_SAMPLES = 50
"""Number of newest finished exports of a scope that are used: older ones predict less well."""

_SIMILAR = 0.8
"""Two images have a similar size if the smaller one has at least this share of the larger one."""

_LOW_QUANTILE = 20
"""One export in this many may finish before the earliest expected end."""

_MARGIN = 0.98
"""Polling starts this much before the earliest expected end. Otherwise an end would never be seen
earlier than the last ones were, and the learned duration could never become shorter."""

_MIN_DEADLINE = timedelta(minutes=1)
_DEADLINE_FACTOR = 10
"""An export counts as lost when it takes this many times as long as the slowest one so far. The
factor is larger while few exports have finished: twice as large with ten of them."""

_CACHE_SECONDS = 2.0

_UNTIMED = ("reconciled", "resolved", "late answer", "adopted", "settled")
"""Kinds of events after which the time of acceptance is not known; the last two are what stores
before revision 0004 call the first two."""

_MAX_ANSWER_DELAY = timedelta(minutes=2)
"""A job accepted later than this after it was sent has a new time of acceptance, set after a clock
jump; its duration is not known."""

_TIMESTAMP_PRECISION = timedelta(seconds=1)
"""Last-Modified has whole seconds."""


@dataclass(frozen=True, slots=True)
class FinishedExport:
    """The duration of one verified export.

    Args:
        seen_after: from its acceptance until its objects were seen.
        size_gib: all its disks; 0 is unknown.
        written_after: from its acceptance until its objects were written, by the clock of COS.
    """

    seen_after: timedelta
    size_gib: int
    written_after: timedelta | None = None

    @property
    def shortest(self) -> timedelta:
        """Return the shorter time: polling may have paused for hours, and clocks may differ."""
        return min(self.seen_after, self.written_after or self.seen_after)


async def latest_finished_exports(
    connection: AsyncConnection, profile: str, region: str, now: datetime
) -> list[FinishedExport]:
    """Return the newest finished exports of a scope whose duration is known, newest first."""
    values = {"profile": profile, "region": region, "now": now}
    rows = (await connection.execute(_LATEST, values)).all()
    return [
        _finished_export(row)
        for row in rows
        if row.sent_at is None or row.accepted_at - row.sent_at <= _MAX_ANSWER_DELAY
    ]


def _latest() -> sa.Select[Any]:
    written = sa.select(sa.func.max(objects.c.last_modified)).where(objects.c.job_id == jobs.c.id)
    times = (jobs.c.sent_at, jobs.c.accepted_at, jobs.c.finished_at)
    return (
        sa.select(*times, jobs.c.size_gib, written.scalar_subquery().label("written_at"))
        .where(
            sa.text(ENDED),
            jobs.c.profile == sa.bindparam("profile"),
            jobs.c.region == sa.bindparam("region"),
            # an end in the future was recorded by another clock
            jobs.c.finished_at <= sa.bindparam("now", type_=UtcDateTime),
            ~sa.exists().where(events.c.job_id == jobs.c.id, events.c.kind.in_(_UNTIMED)),
        )
        .order_by(jobs.c.finished_at.desc())
        .limit(_SAMPLES)
    )


# built once: building a statement takes longer than executing it
_LATEST = _latest()


def _finished_export(row: Any) -> FinishedExport:
    seen_after = max(timedelta(), row.finished_at - row.accepted_at)
    if row.written_at is None:
        return FinishedExport(seen_after, row.size_gib)
    written_after = row.written_at + _TIMESTAMP_PRECISION - row.accepted_at
    return FinishedExport(seen_after, row.size_gib, max(timedelta(), written_after))


def typical_duration(finished: Sequence[FinishedExport]) -> timedelta | None:
    """Return the median duration; ``None`` before any export has finished."""
    return median_high(one.seen_after for one in finished) if finished else None


async def long_duration(
    connection: AsyncConnection, profile: str, region: str, now: datetime
) -> timedelta | None:
    """Return the upper quartile of a scope's durations; ``None`` if no export is known.

    Before any export has finished it is the age of the oldest one: it takes at least that long.
    """
    finished = await latest_finished_exports(connection, profile, region, now)
    if finished:
        return sorted(one.seen_after for one in finished)[len(finished) * 3 // 4]
    oldest: datetime | None = await connection.scalar(
        sa.select(sa.func.min(jobs.c.accepted_at)).where(
            jobs.c.state == JobState.ACCEPTED, jobs.c.profile == profile, jobs.c.region == region
        )
    )
    return None if oldest is None else max(timedelta(), now - oldest)


@dataclass(frozen=True, slots=True)
class EarliestEnd:
    """The age at which an export may first be finished.

    Args:
        is_reliable: learned from exports of a similar size.
    """

    age: timedelta = timedelta()
    is_reliable: bool = False


def earliest_end(finished: Sequence[FinishedExport], size_gib: int) -> EarliestEnd:
    """Return the age at which an export of this size may first be finished.

    Exports of a similar size are the best examples. Without any, the duration of larger ones is
    scaled down in proportion to the size, that of smaller ones is used unchanged.
    """
    scaled = [(one, _share(one, size_gib)) for one in finished]
    similar = [one.shortest * share for one, share in scaled if share > _SIMILAR]
    durations = sorted(similar or [one.shortest * share for one, share in scaled if share])
    if not durations:
        return EarliestEnd()
    return EarliestEnd(durations[len(durations) // _LOW_QUANTILE] * _MARGIN, bool(similar))


def _share(one: FinishedExport, size_gib: int) -> float:
    """Return the least share of this export's duration that one of the given size may take."""
    if bool(one.size_gib) != bool(size_gib):
        return 0.0
    return min(1.0, size_gib / one.size_gib) if one.size_gib else 1.0


def learned_deadline(finished: Sequence[FinishedExport], size_gib: int) -> timedelta | None:
    """Return how long an export of this size may take; ``None`` without any example.

    The slowest example counts, scaled up for a larger image but never down for a smaller one: much
    of the time is spent in the vendor's queue.
    """
    examples = [
        one.seen_after * max(1.0, size_gib / one.size_gib if one.size_gib else 1.0)
        for one in finished
        if bool(one.size_gib) == bool(size_gib)
    ]
    if not examples:
        return None
    factor = _DEADLINE_FACTOR * (1 + _DEADLINE_FACTOR / len(examples))
    return max(_MIN_DEADLINE, factor * max(examples))


class Forecast:
    """The finished exports of each scope, cached briefly, and the deadlines they give.

    Args:
        max_deadline: the deadline while nothing was learned, and the longest one.
    """

    def __init__(self, database: Database, max_deadline: timedelta) -> None:
        self._database = database
        self._max_deadline = max_deadline
        self._cache: dict[tuple[str, str], tuple[float, list[FinishedExport]]] = {}

    async def finished_exports(
        self, connection: AsyncConnection, profile: str, region: str, now: datetime
    ) -> list[FinishedExport]:
        """Return the newest finished exports of a scope, newest first."""
        read_at, finished = self._cache.get((profile, region), (-_CACHE_SECONDS, []))
        if anyio.current_time() - read_at >= _CACHE_SECONDS:
            read_at = anyio.current_time()
            finished = await latest_finished_exports(connection, profile, region, now)
            self._cache[profile, region] = read_at, finished
        return finished

    async def is_overdue(
        self,
        profile: str,
        region: str,
        size_gib: int,
        age: timedelta,
        *,
        being_written: bool = False,
    ) -> bool:
        """Return whether an accepted export of this age counts as lost.

        Args:
            being_written: an upload of it is open, or uploads cannot be listed: twice the learned
                time is allowed.
        """
        if age < min(_MIN_DEADLINE, self._max_deadline):
            return False
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            finished = await self.finished_exports(connection, profile, region, now)
        learned = learned_deadline(finished, size_gib) or self._max_deadline
        return age >= min(learned * (2 if being_written else 1), self._max_deadline)


@dataclass(frozen=True, slots=True)
class Remaining:
    """The unfinished jobs of one scope.

    Args:
        waiting: jobs in the queue.
        running: exports that may be running.
        ceiling: exports that may run at once; ``None`` if no limit was learned.
    """

    profile: str
    region: str
    waiting: int
    running: int
    ceiling: int | None


async def seconds_left(
    connection: AsyncConnection,
    remaining: Remaining,
    typical: timedelta | None,
    now: datetime,
    *,
    rate: float,
) -> float | None:
    """Return the seconds until the last job of a scope is done; ``None`` is unknown.

    Args:
        typical: duration of one export.
        rate: requests per second; 0 is no limit.
    """
    if not remaining.waiting:
        return await _until_last_running(connection, remaining, typical, now)
    if typical is None:
        return None
    every = remaining.waiting + remaining.running
    slots = every if remaining.ceiling is None else max(remaining.ceiling, 1)
    rounds = -(-every // slots)
    sending = remaining.waiting / rate if rate else 0.0
    last_start = max(sending, await _until_last_due(connection, remaining, now))
    return max(typical.total_seconds() * rounds, last_start + typical.total_seconds())


async def _until_last_due(
    connection: AsyncConnection, remaining: Remaining, now: datetime
) -> float:
    """Return the seconds until the last waiting job may be sent.

    Jobs without a description are left out: no index holds their times.
    """
    query = sa.select(sa.func.max(jobs.c.due_at)).where(sa.text(CLAIMABLE), _in_scope(remaining))
    last: datetime | None = await connection.scalar(query)
    return 0.0 if last is None else max(0.0, (last - now).total_seconds())


async def _until_last_running(
    connection: AsyncConnection, remaining: Remaining, typical: timedelta | None, now: datetime
) -> float | None:
    """Return the seconds until the export that was accepted last is due to end.

    It is unknown while a job has no answer, because that job may be resolved at any time.
    """
    if not remaining.running:
        return 0.0
    accepted = (
        sa.select(jobs.c.state, sa.func.max(jobs.c.accepted_at))
        .where(_in_scope(remaining), jobs.c.state.in_(sorted(UNDER_WAY)))
        .group_by(jobs.c.state)
    )
    last = dict((await connection.execute(accepted)).all())
    if typical is None or set(last) != {JobState.ACCEPTED}:
        return None
    ends_at: datetime = last[JobState.ACCEPTED] + typical
    return max(0.0, (ends_at - now).total_seconds())


def _in_scope(remaining: Remaining) -> sa.ColumnElement[bool]:
    return (jobs.c.profile == remaining.profile) & (jobs.c.region == remaining.region)

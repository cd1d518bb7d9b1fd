"""How long exports take, learned from finished ones; and what follows: deadlines and the ETA."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median_high
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.store.tables import CLAIMABLE, ENDED, UtcDateTime, jobs, objects

_SAMPLES = 50
"""Number of newest finished exports of a scope that are used: older ones predict less well."""

_SIMILAR = 0.8
"""An example is similar if an image has at least this share of its size, however much larger."""

_MARGIN = 0.98
"""Polling starts this much before the earliest expected end. Otherwise an end would never be seen
earlier than the last ones were, and the learned duration could never become shorter."""

_MIN_DEADLINE = timedelta(minutes=1)
_DEADLINE_FACTOR = 10
"""An export counts as lost when it takes this many times as long as the slowest one so far."""

_FEW = 10
"""With so few finished exports this factor is twice as large; with fewer it is larger still."""

_EARLY = 0.05
"""Share of the exports that may finish before the earliest expected end."""

_MAX_ANSWER_DELAY = timedelta(seconds=30)
"""The duration of an export is not known if it was accepted later than this after it was sent: its
answer was recorded late, or the clock was changed. It would seem far too short, and such examples
would make good exports count as lost."""

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
        """The shorter of both times: polling may pause for hours, and clocks may differ."""
        return min(self.seen_after, self.written_after or self.seen_after)


async def latest_finished_exports(
    connection: AsyncConnection, profile: str, region: str, now: datetime
) -> list[FinishedExport]:
    """Return the latest finished exports of a scope, newest first.

    Exports whose duration is not known are left out.
    """
    values = {"profile": profile, "region": region, "now": now}
    return [
        _finished_export(row)
        for row in await connection.execute(_LATEST, values)
        if row.sent_at is None or row.accepted_at - row.sent_at <= _MAX_ANSWER_DELAY
    ]


_WRITTEN = sa.select(sa.func.max(objects.c.last_modified)).where(objects.c.job_id == jobs.c.id)
_LATEST = (
    sa.select(
        *(jobs.c.sent_at, jobs.c.accepted_at, jobs.c.finished_at, jobs.c.size_gib),
        _WRITTEN.scalar_subquery().label("written_at"),
    )
    .where(
        sa.text(ENDED),
        jobs.c.profile == sa.bindparam("profile"),
        jobs.c.region == sa.bindparam("region"),
        # without a TaskId it was accepted when it was found in the bucket, long after it began
        jobs.c.task_id.is_not(None),
        # an end in the future was recorded by another clock
        jobs.c.finished_at <= sa.bindparam("now", type_=UtcDateTime),
    )
    .order_by(jobs.c.finished_at.desc())
    .limit(_SAMPLES)
)


def _finished_export(row: Any) -> FinishedExport:
    seen_after = max(timedelta(), row.finished_at - row.accepted_at)
    if row.written_at is None:
        return FinishedExport(seen_after, row.size_gib)
    written_after = row.written_at + _TIMESTAMP_PRECISION - row.accepted_at
    return FinishedExport(seen_after, row.size_gib, max(timedelta(), written_after))


def typical_duration(finished: Sequence[FinishedExport]) -> timedelta | None:
    """Return the median duration; ``None`` before any export has finished."""
    return median_high(one.shortest for one in finished) if finished else None


def long_duration(finished: Sequence[FinishedExport]) -> timedelta | None:
    """Return the upper quartile of the durations; ``None`` without finished exports."""
    return sorted(one.shortest for one in finished)[len(finished) * 3 // 4] if finished else None


def earliest_end(
    finished: Sequence[FinishedExport], size_gib: int, *, share: float = _EARLY
) -> timedelta:
    """Return the earliest age at which an export of this size may end; 0 if unknown.

    Exports of a similar or smaller size are the best examples. Without any, the duration of larger
    ones is scaled down in proportion to the size.

    Args:
        share: of the exports that may finish before.
    """
    examples = _comparable(finished, size_gib)
    similar = [(one, ratio) for one, ratio in examples if ratio > _SIMILAR]
    durations = sorted(one.shortest * min(1.0, ratio) for one, ratio in similar or examples)
    return durations[int(len(durations) * share)] * _MARGIN if durations else timedelta()


def deadline(
    finished: Sequence[FinishedExport],
    size_gib: int,
    *,
    longest: timedelta,
    being_written: bool = False,
) -> timedelta:
    """Return the age at which an accepted export of this size counts as lost.

    The slowest example counts, scaled up for a larger image but never down for a smaller one: much
    of the time is spent in the vendor's queue.

    Args:
        longest: the longest deadline, and the one without any example.
        being_written: an upload of it is open, or uploads cannot be listed: twice the learned time
            is allowed.
    """
    durations = [one.seen_after * max(1.0, ratio) for one, ratio in _comparable(finished, size_gib)]
    if not durations:
        return longest
    factor = _DEADLINE_FACTOR * (1 + _FEW / len(durations))
    learned = max(_MIN_DEADLINE, factor * max(durations))
    return min(learned * (2 if being_written else 1), longest)


def _comparable(
    finished: Sequence[FinishedExport], size_gib: int
) -> list[tuple[FinishedExport, float]]:
    """Return the exports that say something about an export of this size.

    An export of unknown size says nothing about one of known size, and the reverse.

    Returns:
        Each export with the ratio of this size to its own size; 1 if the sizes are not known.
    """
    return [
        (one, size_gib / one.size_gib if size_gib else 1.0)
        for one in finished
        if bool(one.size_gib) == bool(size_gib)
    ]


async def seconds_left(
    connection: AsyncConnection,
    profile: str,
    region: str,
    typical: timedelta | None,
    now: datetime,
    *,
    waiting: int,
    running: int,
    ceiling: int | None,
    rate: float,
) -> float | None:
    """Return the seconds until the last job of a scope is done; ``None`` is unknown.

    Args:
        typical: duration of one export.
        waiting: jobs in the queue.
        running: exports that may be running.
        ceiling: exports that may run at once; ``None`` if no limit was learned.
        rate: requests per second; 0 is no limit.
    """
    every = waiting + running
    if not every or typical is None:
        return None if every else 0.0
    here = (jobs.c.profile == profile) & (jobs.c.region == region)
    if waiting:
        # jobs without a description are left out: no index holds their times
        query = sa.select(sa.func.max(jobs.c.due_at)).where(sa.text(CLAIMABLE), here)
        due_at: datetime | None = await connection.scalar(query)
        last_start = max((due_at or now) - now, timedelta(seconds=waiting / rate if rate else 0))
        rounds = -(-every // (every if ceiling is None else max(ceiling, 1)))
        return max(typical * rounds, last_start + typical).total_seconds()
    accepted = (
        sa.select(jobs.c.state, sa.func.max(jobs.c.accepted_at))
        .where(here, jobs.c.state.in_(sorted(UNDER_WAY)))
        .group_by(jobs.c.state)
    )
    last = dict((await connection.execute(accepted)).all())
    if set(last) != {JobState.ACCEPTED}:
        return None  # a job without an answer may be resolved at any time
    ends_at: datetime = last[JobState.ACCEPTED] + typical
    return max(0.0, (ends_at - now).total_seconds())

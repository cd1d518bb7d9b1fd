"""The objects of a job: which are expected, which the vendor named, what was seen of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model import ImageFormat, JobState, ObjectFacts
from orchestrator.tables import jobs, objects


@dataclass(frozen=True, slots=True)
class WatchedKey:
    """One key under which an object of the job is looked for."""

    key: str
    expected: bool
    cos_path: str | None = None
    baseline_etag: str | None = None
    disk_gib: int | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """A job whose objects are looked for.

    Args:
        is_part: it has taken over some images of another, whose names its own objects bear.
    """

    job_id: int
    attempt: int
    state: JobState
    profile: str
    region: str
    bucket: str
    object_prefix: str
    exact_names: bool
    is_part: bool
    format: ImageFormat
    image_ids: tuple[str, ...]
    size_gib: int
    adopted: bool
    spent: int
    sent_at: datetime | None
    clean_since: datetime | None
    fenced_until: datetime | None
    accepted_at: datetime | None
    keys: tuple[WatchedKey, ...]

    @property
    def required(self) -> tuple[WatchedKey, ...]:
        """The keys that must be there before the job counts as verified.

        The vendor's own list where it answered for one image. Otherwise also each key that
        DescribeImages let us expect: a list found in the bucket may not be whole yet.
        """
        if self.adopted and not any(key.expected for key in self.keys):
            return ()
        if self.adopted or len(self.image_ids) > 1:
            return self.keys
        return tuple(key for key in self.keys if key.cos_path is not None)


async def reserve_due(
    connection: AsyncConnection,
    conditions: sa.ColumnElement[bool],
    now: datetime,
    *,
    next_look: timedelta | None,
    limit: int,
) -> list[Watched]:
    """Jobs whose objects are to be looked for now; others leave them alone until the next look.

    Args:
        next_look: time until they are due again; ``None`` is a tenth of their age.
    """
    due = (
        sa.select(jobs)
        .where(
            jobs.c.state.in_([JobState.ACCEPTED, JobState.UNKNOWN]),
            jobs.c.due_at <= now,
            conditions,
        )
        .order_by(jobs.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = (await connection.execute(due)).all()
    if not rows:
        return []
    next_looks = [
        {"this": row.id, "then": now + (next_look or _a_tenth_of(now - _begun(row)))}
        for row in rows
    ]
    await connection.execute(_POSTPONE, next_looks)
    keys = await _keys_of(connection, [row.id for row in rows])
    return [_watched(row, keys.get(row.id, ())) for row in rows]


_POSTPONE = (
    jobs.update().where(jobs.c.id == sa.bindparam("this")).values(due_at=sa.bindparam("then"))
)


async def postpone(connection: AsyncConnection, job_id: int, then: datetime) -> None:
    """Puts off the next look at one job."""
    await connection.execute(_POSTPONE, [{"this": job_id, "then": then}])


def _begun(row: Any) -> datetime:
    begun: datetime = row.accepted_at or row.sent_at
    return begun


def _a_tenth_of(age: timedelta) -> timedelta:
    """Often while young, seldom when old: an end is seen at most a tenth too late."""
    return min(max(age / 10, timedelta(seconds=1)), timedelta(minutes=5))


async def watched(connection: AsyncConnection, job_id: int) -> Watched:
    """One job with its keys."""
    row = (await connection.execute(sa.select(jobs).where(jobs.c.id == job_id))).one()
    return _watched(row, (await _keys_of(connection, [job_id])).get(job_id, ()))


async def _keys_of(
    connection: AsyncConnection, job_ids: Sequence[int]
) -> dict[int, tuple[WatchedKey, ...]]:
    query = sa.select(objects).where(objects.c.job_id.in_(job_ids)).order_by(objects.c.key)
    found: dict[int, tuple[WatchedKey, ...]] = {}
    for row in await connection.execute(query):
        key = WatchedKey(row.key, row.expected, row.cos_path, row.baseline_etag, row.disk_gib)
        found[row.job_id] = (*found.get(row.job_id, ()), key)
    return found


def _watched(row: Any, keys: tuple[WatchedKey, ...]) -> Watched:
    return Watched(
        job_id=row.id,
        attempt=row.attempt,
        state=JobState(row.state),
        profile=row.profile,
        region=row.region,
        bucket=row.bucket,
        object_prefix=row.object_prefix,
        exact_names=row.exact_names,
        is_part=not row.exact_names and row.tag not in row.object_prefix,
        format=ImageFormat(row.format),
        image_ids=tuple(row.image_ids),
        size_gib=row.size_gib,
        adopted=row.task_id is None,
        spent=row.spent,
        sent_at=row.sent_at,
        clean_since=row.clean_since,
        fenced_until=row.fenced_until,
        accepted_at=row.accepted_at,
        keys=keys,
    )


async def keep_cos_paths(
    connection: AsyncConnection, job_id: int, cos_paths: Iterable[str]
) -> None:
    """Keeps each CosPath as the vendor wrote it; its key has no leading slash."""
    for path in cos_paths:
        await _put(connection, job_id, path.removeprefix("/"), {"cos_path": path})


async def keep_baseline(connection: AsyncConnection, job_id: int, key: str, etag: str) -> None:
    """Keeps what lay under an exact name before the request; empty when nothing did."""
    await _put(connection, job_id, key, {"baseline_etag": etag})


async def keep_seen(
    connection: AsyncConnection, job_id: int, found: Iterable[ObjectFacts], at: datetime
) -> None:
    """Keeps what was seen of the job's objects."""
    for facts in found:
        seen = {
            "size": facts.size,
            "etag": facts.etag,
            "crc64": facts.crc64,
            "storage_class": facts.storage_class,
            "last_modified": facts.last_modified,
            "seen_at": at,
        }
        await _put(connection, job_id, facts.key, seen)


async def _put(connection: AsyncConnection, job_id: int, key: str, values: dict[str, Any]) -> None:
    this = (objects.c.job_id == job_id) & (objects.c.key == key)
    if (await connection.execute(objects.update().where(this).values(values))).rowcount == 0:
        row = {"job_id": job_id, "key": key, "expected": False, **values}
        await connection.execute(objects.insert().values(row))

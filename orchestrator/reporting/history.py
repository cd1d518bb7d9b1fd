"""List jobs, newest first, and show one job with everything that is stored about it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_queue.job_filter import is_named, matches
from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat, JobFilter
from orchestrator.store import Database
from orchestrator.store.tables import attempts, events, job_images, jobs, objects


@dataclass(frozen=True, slots=True)
class Job:
    """One job as the history shows it; times are aware, in UTC.

    Args:
        attempts: attempts that count against the limit.
        cos_paths: paths of the objects as the vendor returned them, ordered by key.
    """

    id: int
    batch: str
    state: JobState
    region: str
    image_ids: tuple[str, ...]
    bucket: str
    format: ImageFormat
    prefix: str
    attempts: int
    task_id: int | None
    request_id: str | None
    cos_paths: tuple[str, ...]
    code: str | None
    message: str | None
    remedy: str | None
    created_at: datetime
    sent_at: datetime | None
    accepted_at: datetime | None
    finished_at: datetime | None
    reason: str
    tag: str
    warnings: tuple[str, ...]
    only_root_disk: bool
    role_name: str | None
    priority: int
    size_gib: int


_COLUMNS = tuple(
    jobs.c["attempts_charged" if field.name == "attempts" else field.name]
    for field in fields(Job)
    if field.name != "cos_paths"
)

_PAGE = 1000
"""Jobs that are read, and held in memory, at a time."""

_MAX_ID = 2**63 - 1


async def history(
    database: Database, wanted: JobFilter, limit: int | None = None
) -> AsyncIterator[Job]:
    """Yield the jobs that match a filter, newest first.

    Each page is one transaction that begins below the last id of the page before (keyset
    pagination). So memory stays flat, and a job that is enqueued meanwhile shifts no page.

    Args:
        limit: maximum number of jobs; ``None`` is all.
    """
    before, remaining = _MAX_ID, limit
    while remaining is None or remaining > 0:
        size = _PAGE if remaining is None else min(_PAGE, remaining)
        async with database.read() as connection:
            page = await _read_page(connection, wanted, before, size)
        for job in page:
            yield job
        if len(page) < size:
            return
        before = page[-1].id
        if remaining is not None:
            remaining -= size


async def _read_page(
    connection: AsyncConnection, wanted: JobFilter, before: int, size: int
) -> list[Job]:
    """Return the newest matching jobs with an id below ``before``."""
    newest = jobs.c.id.desc()
    # the ids first: they are found in ix_jobs_history, without reading the rows that do not match
    ids = sa.select(jobs.c.id).where(matches(wanted), jobs.c.id < before)
    query = sa.select(*_COLUMNS).where(jobs.c.id.in_(ids.order_by(newest).limit(size)))
    rows = (await connection.execute(query.order_by(newest))).all()
    cos_paths = await _cos_paths(connection, [row.id for row in rows])
    return [_job(row, cos_paths.get(row.id, ())) for row in rows]


async def _cos_paths(
    connection: AsyncConnection, job_ids: Sequence[int]
) -> dict[int, tuple[str, ...]]:
    """Return the CosPaths of each of these jobs that has any, ordered by key."""
    query = (
        sa.select(objects.c.job_id, objects.c.cos_path)
        .where(objects.c.job_id.in_(job_ids), objects.c.cos_path.is_not(None))
        .order_by(objects.c.job_id, objects.c.key)
    )
    found: dict[int, tuple[str, ...]] = {}
    for job_id, cos_path in await connection.execute(query):
        found[job_id] = (*found.get(job_id, ()), cos_path)
    return found


def _job(row: Any, cos_paths: tuple[str, ...]) -> Job:
    return Job(
        id=row.id,
        batch=row.batch,
        state=JobState(row.state),
        reason=row.reason,
        region=row.region,
        image_ids=tuple(row.image_ids),
        bucket=row.bucket,
        format=ImageFormat(row.format),
        prefix=row.prefix,
        tag=row.tag,
        attempts=row.attempts_charged,
        task_id=None if row.task_id is None else int(row.task_id),
        request_id=row.request_id,
        cos_paths=cos_paths,
        code=row.code,
        message=row.message,
        remedy=row.remedy,
        created_at=row.created_at,
        sent_at=row.sent_at,
        accepted_at=row.accepted_at,
        finished_at=row.finished_at,
        warnings=tuple(row.warnings or ()),
        only_root_disk=row.only_root_disk,
        role_name=row.role_name,
        priority=row.priority,
        size_gib=row.size_gib,
    )


@dataclass(frozen=True, slots=True)
class JobDetails:
    """One job with everything that is stored about it; rows are mappings of their columns.

    Args:
        settings: columns of the job that `Job` does not have.
    """

    job: Job
    settings: Mapping[str, Any]
    images: tuple[Mapping[str, Any], ...]
    attempts: tuple[Mapping[str, Any], ...]
    objects: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]


_MORE_COLUMNS = (
    "profile",
    "exact_names",
    "object_prefix",
    "size_gib",
    "due_at",
    "deadline_at",
    "maybe_applied",
    "owner",
)


async def job_details(database: Database, name: str) -> JobDetails | None:
    """Return one job, by its id or tag, with all its rows; ``None`` if there is no such job."""
    async with database.read() as connection:
        query = sa.select(jobs).where(is_named((name,)))
        if (row := (await connection.execute(query)).first()) is None:
            return None
        cos_paths = await _cos_paths(connection, [row.id])
        return JobDetails(
            job=_job(row, cos_paths.get(row.id, ())),
            settings={name: getattr(row, name) for name in _MORE_COLUMNS},
            images=await _rows(connection, job_images, row.id, job_images.c.position),
            attempts=await _rows(connection, attempts, row.id, attempts.c.number),
            objects=await _rows(connection, objects, row.id, objects.c.key),
            events=await _rows(connection, events, row.id, events.c.id),
        )


async def _rows(
    connection: AsyncConnection, table: sa.Table, job_id: int, order: sa.ColumnElement[Any]
) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of a job in another table, without the column ``job_id``."""
    columns = [column for column in table.c if column.name != "job_id"]
    query = sa.select(*columns).where(table.c.job_id == job_id).order_by(order)
    return tuple(dict(row) for row in (await connection.execute(query)).mappings())

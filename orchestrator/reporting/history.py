"""The jobs, newest first, and one of them with all that happened to it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_queue.job_filter import is_named
from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat, JobFilter
from orchestrator.reporting.lines import cos_paths
from orchestrator.reporting.search import pages
from orchestrator.store import Database
from orchestrator.store.tables import attempts, events, job_images, jobs, objects


@dataclass(frozen=True, slots=True)
class Job:
    """One job as history shows it; times are aware, in UTC."""

    id: int
    batch: str
    state: JobState
    reason: str
    region: str
    image_ids: tuple[str, ...]
    bucket: str
    format: ImageFormat
    prefix: str
    tag: str
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
    size_gib: int


_COLUMNS = tuple(
    jobs.c["attempts_charged" if field.name == "attempts" else field.name]
    for field in fields(Job)
    if field.name != "cos_paths"
)


async def history(
    database: Database, wanted: JobFilter, *, limit: int | None = None
) -> AsyncIterator[Job]:
    """Jobs that a filter lets through, newest first, page by page: memory stays flat."""
    columns = (*_COLUMNS, _cos_paths(database))
    async for page in pages(database, wanted, columns, limit=limit):
        for row in page:
            yield _job(row)


def _cos_paths(database: Database) -> sa.Label[list[str]]:
    paths = cos_paths(sqlite=database.is_sqlite)
    return sa.type_coerce(paths, sa.JSON).label("cos_paths")


def _job(row: Any) -> Job:
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
        cos_paths=tuple(row.cos_paths),
        code=row.code,
        message=row.message,
        remedy=row.remedy,
        created_at=row.created_at,
        sent_at=row.sent_at,
        accepted_at=row.accepted_at,
        finished_at=row.finished_at,
        size_gib=row.size_gib,
    )


@dataclass(frozen=True, slots=True)
class JobDetails:
    """One job with everything that is kept of it; rows as mappings of their columns."""

    job: Job
    settings: Mapping[str, Any]
    images: tuple[Mapping[str, Any], ...]
    attempts: tuple[Mapping[str, Any], ...]
    objects: tuple[Mapping[str, Any], ...]
    events: tuple[Mapping[str, Any], ...]


async def job_details(database: Database, name: str) -> JobDetails | None:
    """One job by its number or tag, with all that happened to it; ``None`` where there is none."""
    async with database.read() as connection:
        query = sa.select(jobs, _cos_paths(database)).where(is_named((name,)))
        if (row := (await connection.execute(query)).first()) is None:
            return None
        shown = ("profile", "priority", "role_name", "only_root_disk", "exact_names")
        more = (
            "object_prefix",
            "size_gib",
            "due_at",
            "deadline_at",
            "maybe_applied",
            "owner",
            "warnings",
        )
        return JobDetails(
            job=_job(row),
            settings={name: getattr(row, name) for name in shown + more},
            images=await _rows(connection, job_images, row.id, job_images.c.position),
            attempts=await _rows(connection, attempts, row.id, attempts.c.number),
            objects=await _rows(connection, objects, row.id, objects.c.key),
            events=await _rows(connection, events, row.id, events.c.id),
        )


async def _rows(
    connection: AsyncConnection, table: sa.Table, job_id: int, order: sa.ColumnElement[Any]
) -> tuple[Mapping[str, Any], ...]:
    columns = [column for column in table.c if column.name != "job_id"]
    query = sa.select(*columns).where(table.c.job_id == job_id).order_by(order)
    return tuple(dict(row) for row in (await connection.execute(query)).mappings())

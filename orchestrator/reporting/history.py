"""List jobs, newest first, and show one job with everything that is stored about it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

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
        evidence: what was seen of its objects: ``seen`` (each exists, with its size), or ``None``
            before it is verified.
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
    evidence: Literal["seen"] | None
    reason: str
    tag: str
    warnings: tuple[str, ...]
    only_root_disk: bool
    role_name: str | None
    priority: int
    not_before: datetime | None
    size_gib: int


_COLUMNS = tuple(
    jobs.c["attempts_charged" if field.name == "attempts" else field.name].label(field.name)
    for field in fields(Job)
    if field.name not in {"cos_paths", "evidence"}
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
    before, remaining = _MAX_ID, _MAX_ID if limit is None else limit
    while remaining > 0:
        size = min(_PAGE, remaining)
        # the ids first: they are found in ix_jobs_history, without reading rows that do not match
        ids = sa.select(jobs.c.id).where(matches(wanted), jobs.c.id < before)
        page_ids = ids.order_by(jobs.c.id.desc()).limit(size)
        async with database.read() as connection:
            page = await _read_jobs(connection, jobs.c.id.in_(page_ids))
        for job in page:
            yield job
        if len(page) < size:
            return
        before, remaining = page[-1].id, remaining - size


async def _read_jobs(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> list[Job]:
    """Return these jobs, newest first."""
    query = sa.select(*_COLUMNS).where(which).order_by(jobs.c.id.desc())
    rows = (await connection.execute(query)).mappings().all()
    cos_paths: dict[int, tuple[str, ...]] = {}
    paths = (
        sa.select(objects.c.job_id, objects.c.cos_path)
        .where(objects.c.job_id.in_([row["id"] for row in rows]), objects.c.cos_path.is_not(None))
        .order_by(objects.c.job_id, objects.c.key)
    )
    for job_id, cos_path in await connection.execute(paths):
        cos_paths[job_id] = (*cos_paths.get(job_id, ()), cos_path)
    return [
        Job(
            **{
                **row,
                "state": JobState(row["state"]),
                "evidence": "seen" if row["state"] == JobState.VERIFIED else None,
                "image_ids": tuple(row["image_ids"]),
                "format": ImageFormat(row["format"]),
                "task_id": None if row["task_id"] is None else int(row["task_id"]),
                "warnings": tuple(row["warnings"] or ()),
                "cos_paths": cos_paths.get(row["id"], ()),
            }
        )
        for row in rows
    ]


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


_SETTINGS = (
    *(jobs.c.profile, jobs.c.exact_names, jobs.c.object_prefix, jobs.c.size_gib, jobs.c.due_at),
    *(jobs.c.deadline_at, jobs.c.maybe_applied, jobs.c.owner),
)


async def job_details(database: Database, name: str) -> JobDetails | None:
    """Return one job by its id or tag, with all its rows; ``None`` if there is none."""
    async with database.read() as connection:
        if not (found := await _read_jobs(connection, is_named((name,)))):
            return None

        async def rows(order: sa.Column[Any]) -> tuple[Mapping[str, Any], ...]:
            """Return the rows of the job in the table of this column, without ``job_id``."""
            table = order.table
            columns = [column for column in table.c if column.name != "job_id"]
            query = sa.select(*columns).where(table.c.job_id == found[0].id).order_by(order)
            return tuple(dict(row) for row in (await connection.execute(query)).mappings())

        settings = sa.select(*_SETTINGS).where(jobs.c.id == found[0].id)
        return JobDetails(
            job=found[0],
            settings=dict((await connection.execute(settings)).mappings().one()),
            images=await rows(job_images.c.position),
            attempts=await rows(attempts.c.number),
            objects=await rows(objects.c.key),
            events=await rows(events.c.id),
        )

"""Jobs whose objects are looked up, and their keys: expected, named by the vendor, or seen."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat, ObjectFacts
from orchestrator.object_keys import names_job_or_image
from orchestrator.store import upsert
from orchestrator.store.tables import TRACKED, jobs, objects


@dataclass(frozen=True, slots=True)
class TrackedKey:
    """One key under which an object of the job is looked up."""

    key: str
    expected: bool
    cos_path: str | None = None
    baseline_etag: str | None = None
    disk_gib: int | None = None

    @property
    def form(self) -> str:
        """How the vendor has written its CosPath, compared with the documents."""
        path = self.cos_path or ""
        if path == f"/{self.key}":
            return "documented"
        if "://" in path:
            return "URL"
        return "no leading slash" if path == self.key else "percent-encoded or with the bucket"


@dataclass(frozen=True, slots=True)
class TrackedJob:
    """A job whose objects are looked up.

    Args:
        is_part: it was split off from a job of several images, and shares that job's key prefix.
        reconciled: it was accepted because of what the bucket holds, without an answer.
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
    reconciled: bool
    attempts_charged: int
    sent_at: datetime | None
    first_trace_at: datetime | None
    absent_since: datetime | None
    no_resend_before: datetime | None
    accepted_at: datetime | None
    warnings: tuple[str, ...]
    keys: tuple[TrackedKey, ...]

    @property
    def is_locatable(self) -> bool:
        """Whether a look-up has a prefix or a key to ask for."""
        return bool(self.keys) or not self.exact_names

    @property
    def began_at(self) -> datetime | None:
        """When its export began, as far as that is known."""
        return self.accepted_at or self.sent_at

    @property
    def needs_first_trace(self) -> bool:
        """Whether its first object or upload would show how soon exports become visible.

        If there was no answer, that object may belong to an earlier attempt; and objects under an
        exact name or a shared prefix to another job.
        """
        is_datable = not self.reconciled or self.attempt == 1
        has_own_tag = not self.exact_names and not self.is_part
        return is_datable and has_own_tag and self.first_trace_at is None

    @property
    def named(self) -> tuple[TrackedKey, ...]:
        """The keys that the vendor's answer named.

        Those with neither the job's tag nor an image id may belong to another job. The keys of a
        reconciled job were found in the bucket, which may not hold all of them yet.
        """
        return () if self.reconciled else self.known

    @property
    def known(self) -> tuple[TrackedKey, ...]:
        """The keys that an answer to any attempt named, or that were found in the bucket."""
        return tuple(key for key in self.keys if key.cos_path is not None and self._is_own(key))

    @property
    def expected(self) -> tuple[TrackedKey, ...]:
        """The keys that were computed from the description of the images."""
        return tuple(key for key in self.keys if key.expected)

    @property
    def required(self) -> tuple[TrackedKey, ...]:
        """The keys whose objects verify the job at once: all named or expected keys.

        What was found in the bucket is required too, but shows nothing where no key was expected.
        """
        if self.reconciled and not self.expected:
            return ()
        return tuple(key for key in self.keys if key.cos_path is None or self._is_own(key))

    def is_tagged(self, key: str) -> bool:
        """Return whether a key begins with the job's tag, so that no other job has it."""
        return not self.exact_names and key.startswith(self.object_prefix)

    def names_every_image(self, keys: Collection[str]) -> bool:
        """Return whether there is a key for each image, as far as keys contain image ids."""
        names = [key.removeprefix(self.object_prefix).lower() for key in keys]
        named = [any(image in name for name in names) for image in self.image_ids]
        if len(self.image_ids) > 1 and any(named):
            return all(named)
        return len(names) >= len(self.image_ids)

    def _is_own(self, key: TrackedKey) -> bool:
        return names_job_or_image(key.key, self.object_prefix, self.image_ids)


async def reserve_due_jobs(
    connection: AsyncConnection, conditions: sa.ColumnElement[bool], now: datetime, *, limit: int
) -> list[TrackedJob]:
    """Return jobs that are due for a look-up; lock their rows until the commit."""
    query = (
        sa.select(jobs)
        .where(sa.text(TRACKED), jobs.c.due_at <= now, conditions)
        .order_by(jobs.c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = (await connection.execute(query)).all()
    keys = await _keys_of(connection, [row.id for row in rows]) if rows else {}
    return [_tracked_job(row, keys.get(row.id, ())) for row in rows]


async def postpone(connection: AsyncConnection, then: Mapping[int, datetime]) -> None:
    """Set the time of the next look-up of some jobs.

    No other process takes them before that time. The time of a job that was queued again meanwhile
    is not changed.
    """
    if then:
        rows = [{"this": job_id, "then": moment} for job_id, moment in then.items()]
        await connection.execute(_POSTPONE, rows)


_POSTPONE = (
    jobs.update()
    .where(jobs.c.id == sa.bindparam("this"), sa.text(TRACKED))
    .values(due_at=sa.bindparam("then"))
)


async def load_tracked_job(connection: AsyncConnection, job_id: int) -> TrackedJob:
    """Return one job with its keys."""
    row = (await connection.execute(sa.select(jobs).where(jobs.c.id == job_id))).one()
    return _tracked_job(row, (await _keys_of(connection, [job_id])).get(job_id, ()))


async def _keys_of(
    connection: AsyncConnection, job_ids: Sequence[int]
) -> dict[int, tuple[TrackedKey, ...]]:
    query = sa.select(objects).where(objects.c.job_id.in_(job_ids)).order_by(objects.c.key)
    found: dict[int, tuple[TrackedKey, ...]] = {}
    for row in await connection.execute(query):
        key = TrackedKey(row.key, row.expected, row.cos_path, row.baseline_etag, row.disk_gib)
        found[row.job_id] = (*found.get(row.job_id, ()), key)
    return found


def _tracked_job(row: Any, keys: tuple[TrackedKey, ...]) -> TrackedJob:
    columns = {name: value for name, value in row._asdict().items() if name in _SAME_COLUMNS}
    return TrackedJob(
        **columns,
        job_id=row.id,
        state=JobState(row.state),
        is_part=not row.exact_names and row.tag not in row.object_prefix,
        format=ImageFormat(row.format),
        image_ids=tuple(row.image_ids),
        warnings=tuple(row.warnings or ()),
        reconciled=row.task_id is None,
        keys=keys,
    )


_SAME_COLUMNS = {one.name for one in fields(TrackedJob)} - {
    "state",
    "format",
    "image_ids",
    "warnings",
}


async def save_cos_paths(
    connection: AsyncConnection, paths: Iterable[tuple[int, str, str]]
) -> None:
    """Save CosPaths as the vendor wrote them: id of the job, key and path."""
    rows = [{"job_id": job_id, "key": key, "cos_path": path} for job_id, key, path in paths]
    await _put(connection, rows)


async def save_baselines(
    connection: AsyncConnection, job_id: int, etags: Mapping[str, str]
) -> None:
    """Save the ETag under each exact name before the request.

    Args:
        etags: by key; empty where there was no object.
    """
    rows = [{"job_id": job_id, "key": key, "baseline_etag": tag} for key, tag in etags.items()]
    await _put(connection, rows)


async def save_first_trace(
    connection: AsyncConnection, job: TrackedJob, column: Mapping[str, datetime]
) -> None:
    """Save when a job left its first trace.

    Nothing is saved if that time is known already, or if the job has a newer attempt.

    Args:
        column: what `first_trace_column` returns.
    """
    if column:
        this = jobs.update().where(
            jobs.c.id == job.job_id, jobs.c.attempt == job.attempt, jobs.c.first_trace_at.is_(None)
        )
        await connection.execute(this.values(column))


def first_trace_column(
    job: TrackedJob, now: datetime, age: timedelta | None
) -> dict[str, datetime]:
    """Return the column for the time of a job's first trace; empty without any.

    Args:
        age: time since the trace, which is not dated before its request; ``None`` without any.
    """
    if age is None:
        return {}
    return {"first_trace_at": now - age if job.sent_at is None else max(now - age, job.sent_at)}


async def save_seen_objects(
    connection: AsyncConnection, job: TrackedJob, seen: Iterable[ObjectFacts], at: datetime
) -> None:
    """Save what a look-up has seen of the objects of a job."""
    rows = [
        {
            "job_id": job.job_id,
            "key": facts.key,
            "size": facts.size,
            "etag": facts.etag,
            "crc64": facts.crc64,
            "storage_class": facts.storage_class,
            "last_modified": facts.last_modified,
            "seen_at": at,
        }
        for facts in seen
    ]
    await _put(connection, rows)


async def _put(connection: AsyncConnection, rows: list[dict[str, Any]]) -> None:
    """Insert or update rows of objects; a new row was not expected before sending."""
    if rows:
        changed = [name for name in rows[0] if name not in {"job_id", "key"}]
        statement = upsert(connection, objects, *changed)
        await connection.execute(statement, [{**row, "expected": False} for row in rows])

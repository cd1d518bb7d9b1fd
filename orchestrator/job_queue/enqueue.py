"""Add jobs for requests: one job for each, however often the same manifest is enqueued."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import LIVING, JobState
from orchestrator.limits.concurrency_limit import open_scope
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.store import Database, acquire_exclusive_lock
from orchestrator.store.tables import events, job_images, jobs

_CHUNK = 2000
"""Requests that are inserted together: few statements, and the memory for them stays small."""

_TAG_LENGTH = 12
_LETTER_OF_BYTE = b"abcdefghijklmnopqrstuvwxyz234567" * 8
_BLOCKING_STATES = LIVING | {JobState.VERIFIED}


@dataclass(frozen=True, slots=True)
class _Batch:
    """What all jobs of one enqueue have in common."""

    profile: str
    name: str
    created_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """The number of jobs that were added, and of requests that were not."""

    batch: str
    added: int = 0
    duplicates: int = 0


async def enqueue(
    database: Database,
    requests: Iterable[ExportRequest],
    *,
    profile: str,
    batch: str | None = None,
    again: bool = False,
    actor: str,
) -> EnqueueResult:
    """Add a job for each request that is not a duplicate, in one transaction.

    A request is a duplicate if a job for the same objects is not finished or is verified, or has
    failed in a way that may have left an export behind.

    Args:
        profile: the account that the jobs belong to.
        batch: name of the batch; by default it is made from the time.
        again: add duplicates too.
        actor: who is recorded in the events.
    """
    added = duplicates = 0
    async with database.write() as connection:
        # no other process may add the same request between our look-up and our insert
        await acquire_exclusive_lock(connection)
        now = await database.now(connection)
        name = batch or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        new_batch = _Batch(profile, name, now, actor)
        for chunk in _chunks(requests):
            fingerprints = [_fingerprint(profile, request) for request in chunk]
            blocked = await _blocked_fingerprints(connection, fingerprints)
            new_jobs = []
            for request, fingerprint, tag in zip(
                chunk, fingerprints, _new_tags(len(chunk)), strict=True
            ):
                if again or fingerprint not in blocked:
                    new_jobs.append(_job_values(request, fingerprint, tag, now))
                    blocked.add(fingerprint)
            await _insert_jobs(connection, new_batch, new_jobs)
            added += len(new_jobs)
            duplicates += len(chunk) - len(new_jobs)
    return EnqueueResult(name, added=added, duplicates=duplicates)


def _chunks(requests: Iterable[ExportRequest]) -> Iterator[list[ExportRequest]]:
    remaining = iter(requests)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


def _fingerprint(profile: str, request: ExportRequest) -> str:
    """Return what identifies the export; it is stored, so its input must never change."""
    return hashlib.sha256(json.dumps([profile, *request.identity]).encode()).hexdigest()


async def _blocked_fingerprints(
    connection: AsyncConnection, fingerprints: Sequence[str]
) -> set[str]:
    """Return those of the fingerprints whose export must not be enqueued again."""
    return {
        job.fingerprint
        for job in (await connection.execute(_with_fingerprint(fingerprints))).all()
        if job.state in _BLOCKING_STATES or (job.state == JobState.FAILED and job.maybe_applied)
    }


def _with_fingerprint(fingerprints: Sequence[str]) -> sa.Select[Any]:
    # without a condition on the state: SQLite would use the index of states, and read every job
    # that is not finished
    query = sa.select(jobs.c.fingerprint, jobs.c.state, jobs.c.maybe_applied)
    return query.where(jobs.c.fingerprint.in_(fingerprints))


def _new_tags(count: int) -> Iterator[str]:
    letters = secrets.token_bytes(count * _TAG_LENGTH).translate(_LETTER_OF_BYTE).decode()
    return (letters[at : at + _TAG_LENGTH] for at in range(0, len(letters), _TAG_LENGTH))


def _job_values(
    request: ExportRequest, fingerprint: str, tag: str, now: datetime
) -> dict[str, Any]:
    """Return the columns in which a new job differs from the others of its batch."""
    return {
        "tag": tag,
        "object_prefix": request.prefix if request.exact_names else append_tag(request.prefix, tag),
        "region": request.region,
        "bucket": request.bucket,
        "format": request.format,
        "prefix": request.prefix,
        "exact_names": request.exact_names,
        "only_root_disk": request.only_root_disk,
        "role_name": request.role_name,
        "priority": request.priority,
        "image_ids": request.image_ids,
        "fingerprint": fingerprint,
        "reason": "new" if request.not_before is None else "not before",
        "due_at": request.not_before or now,
    }


def append_tag(prefix: str, tag: str) -> str:
    """Return the prefix of a job's object keys: the user's prefix and the job's tag."""
    separator = "" if not prefix or prefix.endswith(("/", "-", "_", ".")) else "-"
    return f"{prefix}{separator}{tag}"


async def _insert_jobs(
    connection: AsyncConnection, batch: _Batch, new_jobs: Sequence[dict[str, Any]]
) -> None:
    """Insert jobs, and then their images and events from the rows of the jobs."""
    if not new_jobs:
        return
    max_id = sa.select(sa.func.coalesce(sa.func.max(jobs.c.id), 0))
    before: int = (await connection.execute(max_id)).scalar_one()
    await connection.execute(jobs.insert().values(_common_values(batch)), new_jobs)
    # on PostgreSQL a retry may have added a job meanwhile, together with its images and event
    is_new = sa.and_(jobs.c.id > before, ~sa.exists().where(events.c.job_id == jobs.c.id))
    for position in range(max(len(job["image_ids"]) for job in new_jobs)):
        await connection.execute(_insert_images(position, is_new))
    await connection.execute(_insert_events(batch, is_new))
    for region in {job["region"] for job in new_jobs}:
        await open_scope(connection, batch.profile, region)


def _common_values(batch: _Batch) -> dict[str, Any]:
    """Return the columns in which the new jobs of one batch do not differ."""
    return {
        "batch": batch.name,
        "profile": batch.profile,
        "state": JobState.QUEUED,
        "size_gib": 0,
        "attempt": 0,
        "attempts_charged": 0,
        "deferrals": 0,
        "maybe_applied": False,
        "created_at": batch.created_at,
    }


def _insert_images(position: int, is_new: sa.ColumnElement[bool]) -> sa.Insert:
    image = jobs.c.image_ids[position].as_string()
    values = {
        job_images.c.job_id: jobs.c.id,
        job_images.c.position: sa.literal(position),
        job_images.c.image_id: image,
    }
    found = sa.select(*values.values()).where(is_new, image.is_not(None))
    return job_images.insert().from_select(list(values), found)


def _insert_events(batch: _Batch, is_new: sa.ColumnElement[bool]) -> sa.Insert:
    values = {
        events.c.job_id: jobs.c.id,
        events.c.at: sa.literal(batch.created_at, events.c.at.type),
        events.c.kind: sa.literal("enqueued"),
        events.c.to_state: sa.literal(JobState.QUEUED),
        events.c.actor: sa.literal(batch.actor),
        events.c.details: sa.literal({"batch": batch.name}, events.c.details.type),
    }
    found = sa.select(*values.values()).where(is_new).order_by(jobs.c.id)
    return events.insert().from_select(list(values), found)

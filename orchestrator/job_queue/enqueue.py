"""Add jobs for requests: one job for each, however often the same manifest is enqueued."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import LIVING, JobState
from orchestrator.limits.concurrency_limit import open_scope
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.object_keys import append_tag
from orchestrator.store import Database, acquire_exclusive_lock
from orchestrator.store.tables import events, job_images, jobs

_CHUNK = 2000
"""Requests that are inserted together: few statements, and the memory for them stays small."""

_TAG_LENGTH = 12
_LETTER_OF_BYTE = b"abcdefghijklmnopqrstuvwxyz234567" * 8
_BLOCKING_STATES = LIVING | {JobState.VERIFIED}
_SHARED_WITH_REQUEST = [one.name for one in fields(ExportRequest) if one.name in jobs.c]
_NEW_JOB = {
    "state": JobState.QUEUED,
    "size_gib": 0,
    "attempt": 0,
    "attempts_charged": 0,
    "deferrals": 0,
    "maybe_applied": False,
}


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
    remaining = iter(requests)
    async with database.write() as connection:
        # no other process may add the same request between our look-up and our insert
        await acquire_exclusive_lock(connection)
        now = await database.now(connection)
        name = batch or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        common = {"batch": name, "profile": profile, "created_at": now, **_NEW_JOB}
        while chunk := list(islice(remaining, _CHUNK)):
            fingerprints = [_fingerprint(profile, request) for request in chunk]
            blocked = await _blocked_fingerprints(connection, fingerprints)
            new_jobs = []
            for request, fingerprint in zip(chunk, fingerprints, strict=True):
                if again or fingerprint not in blocked:
                    new_jobs.append(_job_values(request, fingerprint, now))
                    blocked.add(fingerprint)
            if new_jobs:
                await _insert_jobs(connection, common, new_jobs, actor)
            added += len(new_jobs)
            duplicates += len(chunk) - len(new_jobs)
    return EnqueueResult(name, added=added, duplicates=duplicates)


def _fingerprint(profile: str, request: ExportRequest) -> str:
    """Return the hash that identifies an export.

    The hash is stored, so its input must never change.
    """
    return hashlib.sha256(json.dumps([profile, *request.identity]).encode()).hexdigest()


async def _blocked_fingerprints(
    connection: AsyncConnection, fingerprints: Sequence[str]
) -> set[str]:
    """Return those of the fingerprints whose export must not be enqueued again."""
    # without a condition on the state: SQLite would use the index of states, and read every job
    # that is not finished
    query = sa.select(jobs.c.fingerprint, jobs.c.state, jobs.c.maybe_applied)
    found = await connection.execute(query.where(jobs.c.fingerprint.in_(fingerprints)))
    return {
        job.fingerprint
        for job in found
        if job.state in _BLOCKING_STATES or (job.state == JobState.FAILED and job.maybe_applied)
    }


def _job_values(request: ExportRequest, fingerprint: str, now: datetime) -> dict[str, Any]:
    """Return the columns in which a new job differs from the others of its batch."""
    tag = secrets.token_bytes(_TAG_LENGTH).translate(_LETTER_OF_BYTE).decode()
    return {
        **{name: getattr(request, name) for name in _SHARED_WITH_REQUEST},
        "tag": tag,
        "object_prefix": request.prefix if request.exact_names else append_tag(request.prefix, tag),
        "fingerprint": fingerprint,
        "reason": "new" if request.not_before is None else "not before",
        "due_at": request.not_before or now,
    }


async def _insert_jobs(
    connection: AsyncConnection,
    common: dict[str, Any],
    new_jobs: Sequence[dict[str, Any]],
    actor: str,
) -> None:
    """Insert jobs, and then their images and events from the rows of the jobs."""
    max_id = sa.select(sa.func.coalesce(sa.func.max(jobs.c.id), 0))
    before: int = (await connection.execute(max_id)).scalar_one()
    await connection.execute(jobs.insert().values(common), new_jobs)
    # on PostgreSQL a retry may have added a job meanwhile, together with its images and event
    is_new = sa.and_(jobs.c.id > before, ~sa.exists().where(events.c.job_id == jobs.c.id))
    for position in range(max(len(job["image_ids"]) for job in new_jobs)):
        image = jobs.c.image_ids[position].as_string()
        found = sa.select(jobs.c.id, sa.literal(position), image).where(is_new, image.is_not(None))
        names = ["job_id", "position", "image_id"]
        await connection.execute(job_images.insert().from_select(names, found))
    event = {
        "job_id": jobs.c.id,
        "at": jobs.c.created_at,
        "kind": sa.literal("enqueued"),
        "to_state": jobs.c.state,
        "actor": sa.literal(actor),
        "details": sa.literal({"batch": common["batch"]}, events.c.details.type),
    }
    happened = sa.select(*event.values()).where(is_new).order_by(jobs.c.id)
    await connection.execute(events.insert().from_select(list(event), happened))
    for region in {job["region"] for job in new_jobs}:
        await open_scope(connection, common["profile"], region)

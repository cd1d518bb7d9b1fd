"""Requests become jobs: each once, however often the same manifest is enqueued."""

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
_TAG_LENGTH = 12
_LETTER_OF_BYTE = b"abcdefghijklmnopqrstuvwxyz234567" * 8
_BLOCKING = LIVING | {JobState.VERIFIED}


@dataclass(frozen=True, slots=True)
class _Lot:
    """What the jobs of one enqueue have in common."""

    profile: str
    batch: str
    now: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class EnqueueResult:
    """What an enqueue did."""

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
    """Adds a job for each request, in one transaction.

    A request is a duplicate while a job for the same one lives or is verified, or has failed in
    a way that may have left an export behind.

    Args:
        profile: the account that the jobs belong to.
        batch: a name for the lot; one is made of the time when there is none.
        again: add duplicates too.
    """
    added = duplicates = 0
    async with database.write() as connection:
        await acquire_exclusive_lock(connection)
        now = await database.now(connection)
        batch = batch or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        lot = _Lot(profile, batch, now, actor)
        for chunk in _chunks(requests):
            prints = [_fingerprint(profile, request) for request in chunk]
            known = await _known(connection, prints)
            fresh = []
            for request, fingerprint, tag in zip(chunk, prints, _tags(len(chunk)), strict=True):
                if again or fingerprint not in known:
                    fresh.append(_row(request, fingerprint, tag, now))
                    known.add(fingerprint)
            await _add(connection, lot, fresh)
            added += len(fresh)
            duplicates += len(chunk) - len(fresh)
    return EnqueueResult(batch, added=added, duplicates=duplicates)


def _chunks(requests: Iterable[ExportRequest]) -> Iterator[list[ExportRequest]]:
    remaining = iter(requests)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk


def _fingerprint(profile: str, request: ExportRequest) -> str:
    identity = [
        profile,
        request.region,
        sorted(request.image_ids),
        request.bucket,
        request.format,
        request.prefix,
        request.only_root_disk,
        request.exact_names,
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


async def _known(connection: AsyncConnection, prints: Sequence[str]) -> set[str]:
    return {
        job.fingerprint
        for job in (await connection.execute(_same(prints))).all()
        if job.state in _BLOCKING or (job.state == JobState.FAILED and job.maybe_applied)
    }


def _same(prints: Sequence[str]) -> sa.Select[Any]:
    # no condition on the state: SQLite would take the index of that, and every living job with it
    query = sa.select(jobs.c.fingerprint, jobs.c.state, jobs.c.maybe_applied)
    return query.where(jobs.c.fingerprint.in_(prints))


def _tags(count: int) -> Iterator[str]:
    letters = secrets.token_bytes(count * _TAG_LENGTH).translate(_LETTER_OF_BYTE).decode()
    return (letters[at : at + _TAG_LENGTH] for at in range(0, len(letters), _TAG_LENGTH))


def _row(request: ExportRequest, fingerprint: str, tag: str, now: datetime) -> dict[str, Any]:
    """What tells a new job from the others of its lot."""
    return {
        "tag": tag,
        "object_prefix": request.prefix if request.exact_names else tagged(request.prefix, tag),
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


def tagged(prefix: str, tag: str) -> str:
    """The prefix with the job's tag behind it, as one readable name."""
    joint = "" if not prefix or prefix.endswith(("/", "-", "_", ".")) else "-"
    return f"{prefix}{joint}{tag}"


async def _add(connection: AsyncConnection, lot: _Lot, rows: Sequence[dict[str, Any]]) -> None:
    """Adds jobs with their images and events, which follow from the jobs: one statement each."""
    if not rows:
        return
    last = sa.select(sa.func.coalesce(sa.func.max(jobs.c.id), 0))
    before: int = (await connection.execute(last)).scalar_one()
    await connection.execute(jobs.insert().values(_shared(lot)), rows)
    # on PostgreSQL a retry may have added a job meanwhile, whose event came with it
    new = sa.and_(jobs.c.id > before, ~sa.exists().where(events.c.job_id == jobs.c.id))
    for position in range(max(len(row["image_ids"]) for row in rows)):
        await connection.execute(_images(position, new))
    await connection.execute(_events(lot, new))
    for region in {row["region"] for row in rows}:
        await open_scope(connection, lot.profile, region)


def _shared(lot: _Lot) -> dict[str, Any]:
    """The columns in which new jobs of one lot do not differ."""
    return {
        "batch": lot.batch,
        "profile": lot.profile,
        "state": JobState.QUEUED,
        "size_gib": 0,
        "attempt": 0,
        "attempts_charged": 0,
        "deferrals": 0,
        "maybe_applied": False,
        "created_at": lot.now,
    }


def _images(position: int, new: sa.ColumnElement[bool]) -> sa.Insert:
    image = jobs.c.image_ids[position].as_string()
    values = {
        job_images.c.job_id: jobs.c.id,
        job_images.c.position: sa.literal(position),
        job_images.c.image_id: image,
    }
    found = sa.select(*values.values()).where(new, image.is_not(None))
    return job_images.insert().from_select(list(values), found)


def _events(lot: _Lot, new: sa.ColumnElement[bool]) -> sa.Insert:
    values = {
        events.c.job_id: jobs.c.id,
        events.c.at: sa.literal(lot.now, events.c.at.type),
        events.c.kind: sa.literal("enqueued"),
        events.c.to_state: sa.literal(JobState.QUEUED),
        events.c.actor: sa.literal(lot.actor),
        events.c.details: sa.literal({"batch": lot.batch}, events.c.details.type),
    }
    found = sa.select(*values.values()).where(new).order_by(jobs.c.id)
    return events.insert().from_select(list(values), found)

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

from orchestrator.db import Database, lock_out_others
from orchestrator.model import LIVING, ExportRequest, JobState
from orchestrator.pace.gate import open_scope
from orchestrator.tables import events, job_images, jobs

_CHUNK = 500
_TAG_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_TAG_LENGTH = 12


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
        await lock_out_others(connection)
        now = await database.now(connection)
        batch = batch or f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        for chunk in _chunks(requests):
            prints = [_fingerprint(profile, request) for request in chunk]
            known = await _known(connection, prints)
            fresh = []
            for fingerprint, request in zip(prints, chunk, strict=True):
                if again or fingerprint not in known:
                    fresh.append(_row(fingerprint, request, profile, batch, now))
                    known.add(fingerprint)
            await _insert(connection, fresh, now, actor)
            added += len(fresh)
            duplicates += len(chunk) - len(fresh)
            for region in {row["region"] for row in fresh}:
                await open_scope(connection, profile, region)
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


async def _known(connection: AsyncConnection, prints: Iterable[str]) -> set[str]:
    holds = sa.or_(
        jobs.c.state.in_([*sorted(LIVING), JobState.VERIFIED]),
        sa.and_(jobs.c.state == JobState.FAILED, jobs.c.doubted),
    )
    query = sa.select(jobs.c.fingerprint).where(jobs.c.fingerprint.in_(list(prints)), holds)
    return set((await connection.execute(query)).scalars())


def _row(
    fingerprint: str, request: ExportRequest, profile: str, batch: str, now: datetime
) -> dict[str, Any]:
    tag = "".join(secrets.choice(_TAG_LETTERS) for _ in range(_TAG_LENGTH))
    return {
        "tag": tag,
        "object_prefix": request.prefix if request.exact_names else tagged(request.prefix, tag),
        "batch": batch,
        "profile": profile,
        "region": request.region,
        "bucket": request.bucket,
        "format": request.format,
        "prefix": request.prefix,
        "exact_names": request.exact_names,
        "only_root_disk": request.only_root_disk,
        "role_name": request.role_name,
        "priority": request.priority,
        "image_ids": list(request.image_ids),
        "fingerprint": fingerprint,
        "state": JobState.QUEUED,
        "reason": "new" if request.not_before is None else "not before",
        "due_at": request.not_before or now,
        "size_gib": 0,
        "attempt": 0,
        "spent": 0,
        "waits": 0,
        "doubted": False,
        "created_at": now,
    }


def tagged(prefix: str, tag: str) -> str:
    """The prefix with the job's tag behind it, as one readable name."""
    joint = "" if not prefix or prefix.endswith(("/", "-", "_", ".")) else "-"
    return f"{prefix}{joint}{tag}"


async def _insert(
    connection: AsyncConnection, rows: Sequence[dict[str, Any]], now: datetime, actor: str
) -> None:
    if not rows:
        return
    inserted = await connection.execute(jobs.insert().returning(jobs.c.id, jobs.c.tag), rows)
    ids = {tag: job_id for job_id, tag in inserted}
    await connection.execute(
        job_images.insert(),
        [
            {"job_id": ids[row["tag"]], "position": position, "image_id": image_id}
            for row in rows
            for position, image_id in enumerate(row["image_ids"])
        ],
    )
    await connection.execute(
        events.insert(),
        [
            {
                "job_id": ids[row["tag"]],
                "at": now,
                "kind": "enqueued",
                "to_state": JobState.QUEUED,
                "actor": actor,
                "details": {"batch": row["batch"]},
            }
            for row in rows
        ],
    )

"""Accepted is not done: a job is verified when its objects are seen in the bucket."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress

import anyio

from orchestrator.cloud.cos import CosClient
from orchestrator.db import Database
from orchestrator.errors import CloudRefusal
from orchestrator.model import JobState, ObjectFacts
from orchestrator.pace import gate
from orchestrator.settle.deadline import Deadlines
from orchestrator.settle.delivery import Delivery, suspects, undelivered
from orchestrator.settle.look import head, open_uploads
from orchestrator.settle.objects import Watched, keep_seen
from orchestrator.transition import Move, move_all

NOT_DELIVERED = "Orchestrator.NotDelivered"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look has shown for good: the export is whole, or counts as lost.

    Args:
        uploads: what is still being written; ``None`` where it may not be listed.
    """

    job: Watched
    delivery: Delivery
    uploads: tuple[str, ...] | None = ()


async def examine(
    cos: CosClient, job: Watched, age: timedelta, deadlines: Deadlines
) -> Finding | None:
    """Looks once at the objects that a job must have; ``None`` while they are still to come.

    Args:
        age: of the export.

    Raises:
        CloudRefusal, httpx.HTTPError: a look failed, which says nothing.
    """
    if (delivery := await _look(cos, job, to_the_end=False)).is_whole:
        return Finding(job, delivery)
    if not await deadlines.have_passed(job, age):
        return None
    # uploads first, objects second: one that ends in between is seen as an object
    uploads = await _uploads(cos, job)
    delivery = await _look(cos, job, to_the_end=True)
    written = uploads is None or bool(uploads)
    if delivery.is_whole or await deadlines.have_passed(job, age, being_written=written):
        return Finding(job, delivery, uploads)
    return None


async def keep_findings(
    database: Database, actor: str, findings: Sequence[Finding]
) -> list[JobState]:
    """Moves the jobs to where the findings lead, in one transaction; their states after it."""
    with anyio.CancelScope(shield=True):
        async with database.write() as connection:
            now = await database.now(connection)
            moves = [_move(one, actor) for one in findings]
            moved = await move_all(connection, moves, at=now)
            kept = list(compress(findings, moved))
            seen = [(one.job.job_id, facts) for one in kept for facts in one.delivery.found]
            await keep_seen(connection, seen, now)
            for profile, region in sorted({(one.job.profile, one.job.region) for one in kept}):
                await gate.ended(connection, profile, region, now)
    return [
        one.target if is_moved else finding.job.state
        for finding, one, is_moved in zip(findings, moves, moved, strict=True)
    ]


async def _look(cos: CosClient, job: Watched, *, to_the_end: bool) -> Delivery:
    """Looks at one key after another; if not to the end, then until one is not there."""
    found: list[ObjectFacts] = []
    empty: list[str] = []
    missing: list[str] = []
    for key in job.required:
        facts = await head(cos, job, key)
        if facts is None:
            missing.append(key.key)
        elif facts.size == 0:
            empty.append(key.key)
        else:
            found.append(facts)
        if not to_the_end and facts is None:
            break
    return Delivery(tuple(found), tuple(empty), tuple(missing))


async def _uploads(cos: CosClient, job: Watched) -> tuple[str, ...] | None:
    """What is still being written; ``None`` where it may not be listed."""
    try:
        return await open_uploads(cos, job)
    except CloudRefusal:
        return None


def _move(finding: Finding, actor: str) -> Move:
    return _verified(finding, actor) if finding.delivery.is_whole else _lost(finding, actor)


def _verified(finding: Finding, actor: str) -> Move:
    job, delivery = finding.job, finding.delivery
    doubts = suspects(job, delivery.found)
    return Move(
        job.job_id,
        JobState.ACCEPTED,
        JobState.VERIFIED,
        kind="verified",
        reason="seen in the bucket, with a size to be checked" if doubts else "seen in the bucket",
        actor=actor,
        attempt=job.attempt,
        changes={
            "message": " ".join(doubts) or None,
            "remedy": _CHECK_SIZES if doubts else None,
        },
        details={"objects": [_evidence(facts) for facts in delivery.found], "suspect": doubts},
    )


_CHECK_SIZES = "Check the file before you rely on it: a RAW file should be as long as its disk."


def _lost(finding: Finding, actor: str) -> Move:
    job, delivery, uploads = finding.job, finding.delivery, finding.uploads
    return Move(
        job.job_id,
        JobState.ACCEPTED,
        JobState.FAILED,
        kind="failed",
        reason="not delivered",
        actor=actor,
        attempt=job.attempt,
        known={"accepted_at": job.accepted_at},
        changes={
            "doubted": True,
            "code": NOT_DELIVERED,
            "message": _what_came(job, delivery),
            "remedy": _remedy(job),
        },
        details={
            "found": [_evidence(facts) for facts in delivery.found],
            "empty": list(delivery.empty),
            "missing": list(delivery.missing),
            "uploads": "not to be listed" if uploads is None else list(uploads),
        },
    )


def _what_came(job: Watched, delivery: Delivery) -> str:
    """What is there and what is not; of several images each by its name."""
    if not job.required:
        return (
            "An export of it is known of, but DescribeImages told nothing of the image, so nobody "
            "knows how many objects belong to it."
        )
    said = f"The export was accepted, but by its deadline {delivery}"
    found = {facts.key for facts in delivery.found}
    late = undelivered(job.image_ids, job.object_prefix, [key.key for key in job.required], found)
    if len(job.image_ids) < 2 or not late:
        return f"{said}."
    whole = [image for image in job.image_ids if image not in late]
    return f"{said}. Arrived: {', '.join(whole) or 'none'}. Missing: {', '.join(late)}."


def _remedy(job: Watched) -> str:
    if not job.required:
        return (
            f"Look in the bucket under {job.object_prefix!r} whether each disk of the image has "
            "its file. Grant cvm:DescribeImages, so that jobs enqueued later know what to expect."
        )
    return (
        "Look at the image's state in the console, or ask the vendor about the task; then "
        f"`orchestrator retry --job {job.job_id}`, which looks for a late object first."
    )


def _evidence(facts: ObjectFacts) -> dict[str, object]:
    return {"key": facts.key, "size": facts.size, "etag": facts.etag, "crc64": facts.crc64}

"""Accepted is not done: a job is verified when its objects are seen in the bucket."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.db import Database
from orchestrator.errors import CloudRefusal
from orchestrator.model import JobState, ObjectFacts
from orchestrator.settle.deadline import Deadlines
from orchestrator.settle.delivery import Delivery, suspects, undelivered
from orchestrator.settle.look import head, open_uploads
from orchestrator.settle.objects import Watched, keep_seen
from orchestrator.transition import move

NOT_DELIVERED = "Orchestrator.NotDelivered"


async def verify(
    database: Database, cos: CosClient, job: Watched, deadlines: Deadlines, actor: str
) -> JobState:
    """Looks once at every object that the job must have; returns the state it is in after it.

    Raises:
        CloudRefusal, httpx.HTTPError: a look failed; the job is left as it is.
    """
    delivery = await _look(cos, job)
    uploads: tuple[str, ...] | None = ()
    if not delivery.is_whole:
        if not await deadlines.have_passed(job):
            return job.state
        # uploads first, objects second: one that ends in between is seen as an object
        uploads = await _uploads(cos, job)
        delivery = await _look(cos, job)
        written = uploads is None or bool(uploads)
        if not delivery.is_whole and not await deadlines.have_passed(job, being_written=written):
            return job.state
    async with database.write() as connection:
        now = await database.now(connection)
        if delivery.is_whole:
            return await _verified(connection, job, delivery, now, actor)
        return await _not_delivered(connection, job, delivery, uploads, now, actor)


async def _look(cos: CosClient, job: Watched) -> Delivery:
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
    return Delivery(tuple(found), tuple(empty), tuple(missing))


async def _uploads(cos: CosClient, job: Watched) -> tuple[str, ...] | None:
    """What is still being written; ``None`` where it may not be listed."""
    try:
        return await open_uploads(cos, job)
    except CloudRefusal:
        return None


async def _verified(
    connection: AsyncConnection, job: Watched, delivery: Delivery, now: datetime, actor: str
) -> JobState:
    doubts = suspects(job, delivery.found)
    moved = await move(
        connection,
        job.job_id,
        JobState.ACCEPTED,
        JobState.VERIFIED,
        kind="verified",
        reason="seen in the bucket, with a size to be checked" if doubts else "seen in the bucket",
        at=now,
        actor=actor,
        attempt=job.attempt,
        changes={
            "message": " ".join(doubts) or None,
            "remedy": _CHECK_SIZES if doubts else None,
        },
        details={"objects": [_evidence(facts) for facts in delivery.found], "suspect": doubts},
    )
    if not moved:
        return job.state
    await keep_seen(connection, job.job_id, delivery.found, now)
    return JobState.VERIFIED


_CHECK_SIZES = "Check the file before you rely on it: a RAW file should be as long as its disk."


async def _not_delivered(
    connection: AsyncConnection,
    job: Watched,
    delivery: Delivery,
    uploads: tuple[str, ...] | None,
    now: datetime,
    actor: str,
) -> JobState:
    moved = await move(
        connection,
        job.job_id,
        JobState.ACCEPTED,
        JobState.FAILED,
        kind="failed",
        reason="not delivered",
        at=now,
        actor=actor,
        attempt=job.attempt,
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
    if not moved:
        return job.state
    await keep_seen(connection, job.job_id, delivery.found, now)
    return JobState.FAILED


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

"""Accepted is not done: a job is verified when its objects are seen in the bucket."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.db import Database
from orchestrator.model import JobState, ObjectFacts
from orchestrator.settle.look import head
from orchestrator.settle.objects import Watched, keep_seen
from orchestrator.transition import move

NOT_DELIVERED = "Orchestrator.NotDelivered"


async def verify(database: Database, cos: CosClient, job: Watched, actor: str) -> JobState:
    """Looks once at every object that the job must have; returns the state it is in after it.

    Raises:
        CloudRefusal, httpx.HTTPError: a look failed; the job is left as it is.
    """
    found: list[ObjectFacts] = []
    missing: list[str] = []
    for key in job.required:
        facts = await head(cos, job, key)
        if facts is None:
            missing.append(key.key)
        else:
            found.append(facts)
    is_whole = bool(found) and not missing
    if not is_whole and not await _is_late(database, job):
        return job.state
    async with database.write() as connection:
        now = await database.now(connection)
        if is_whole:
            return await _verified(connection, job, found, now, actor)
        return await _not_delivered(connection, job, found, missing, now, actor)


async def _is_late(database: Database, job: Watched) -> bool:
    if job.deadline_at is None:
        return False
    async with database.read() as connection:
        return job.deadline_at <= await database.now(connection)


async def _verified(
    connection: AsyncConnection,
    job: Watched,
    found: list[ObjectFacts],
    now: datetime,
    actor: str,
) -> JobState:
    await keep_seen(connection, job.job_id, found, now)
    await move(
        connection,
        job.job_id,
        JobState.ACCEPTED,
        JobState.VERIFIED,
        kind="verified",
        reason="seen in the bucket",
        at=now,
        actor=actor,
        attempt=job.attempt,
        details={"objects": [_evidence(facts) for facts in found]},
    )
    return JobState.VERIFIED


async def _not_delivered(
    connection: AsyncConnection,
    job: Watched,
    found: list[ObjectFacts],
    missing: list[str],
    now: datetime,
    actor: str,
) -> JobState:
    await keep_seen(connection, job.job_id, found, now)
    there = f"{len(found)} of {len(found) + len(missing)} objects are there"
    await move(
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
            "message": f"The export was accepted, but by its deadline {there}."
            if job.required
            else "Found in the bucket, but how many objects belong to it is not known: "
            "DescribeImages told nothing of the image.",
            "remedy": "Look at the image's state in the console; then enqueue it with --again, "
            "or ask the vendor about the task.",
        },
        details={"missing": missing, "found": [_evidence(facts) for facts in found]},
    )
    return JobState.FAILED


def _evidence(facts: ObjectFacts) -> dict[str, object]:
    return {"key": facts.key, "size": facts.size, "etag": facts.etag, "crc64": facts.crc64}

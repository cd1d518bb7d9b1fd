"""Another try for jobs that failed or were given up, or for what a request left out."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.operations.resolve_unknown import NO_FAULT
from orchestrator.store import Database
from orchestrator.store import events as audit
from orchestrator.store.tables import job_images, jobs, objects
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.verification.accepted_jobs import NOT_DELIVERED
from orchestrator.verification.completeness import is_disk_of, missing_images

_ENDED = frozenset({JobState.FAILED, JobState.CANCELLED})
_ASKED_ANEW = "its missing images have a job of their own"


@dataclass(frozen=True, slots=True)
class Retry:
    """What becomes of jobs that are tried again.

    Args:
        queued: jobs that go back to the queue: nothing of them can have taken effect.
        unknown: jobs that are looked for in the bucket before anything is sent.
        parts: jobs delivered in part, of whose missing images jobs are made.
        untouched: jobs that neither failed nor were cancelled, or were tried again in part.
    """

    queued: int = 0
    unknown: int = 0
    parts: int = 0
    untouched: int = 0

    @property
    def changed(self) -> int:
        """Jobs that are tried again, in whole or in part."""
        return self.queued + self.unknown + self.parts


async def retry(
    database: Database, wanted: sa.ColumnElement[bool], *, actor: str, dry_run: bool = False
) -> Retry:
    """Gives failed and cancelled jobs another try.

    One that may have left an export behind becomes unknown, so that it is looked for first. Of
    several images of which some arrived, the missing ones become a job; the old one stays failed.

    Args:
        wanted: which jobs, as a condition on the table of jobs.
        dry_run: say what would become of them, and change nothing.
    """
    queued = unknown = parts = 0
    async with database.write() as connection:
        now = await database.now(connection)
        ended = jobs.c.state.in_(sorted(_ENDED)) & (jobs.c.reason != _ASKED_ANEW)
        others = sa.select(sa.func.count()).where(wanted, ~ended)
        untouched = int((await connection.execute(others)).scalar_one())
        query = sa.select(jobs).where(wanted, ended).order_by(jobs.c.id).with_for_update()
        for row in (await connection.execute(query)).all():
            missing = await _missing_images(connection, row)
            parts += bool(missing)
            queued += not missing and not row.maybe_applied
            unknown += not missing and row.maybe_applied
            if missing and not dry_run:
                await _split(connection, row, missing, now, actor)
            elif not dry_run:
                await _try_again(connection, row, now, actor)
    return Retry(queued, unknown, parts, untouched)


async def _missing_images(connection: AsyncConnection, row: Any) -> list[str]:
    """The images that never arrived, where others of the same request did."""
    if row.code != NOT_DELIVERED or len(row.image_ids) < 2:
        return []
    keys = (await connection.execute(sa.select(objects).where(objects.c.job_id == row.id))).all()
    arrived = {key.key for key in keys if key.size}
    images = missing_images(row.image_ids, row.object_prefix, [key.key for key in keys], arrived)
    return images if len(images) < len(row.image_ids) else []


async def _split(
    connection: AsyncConnection, row: Any, missing: list[str], now: datetime, actor: str
) -> None:
    """Makes a job of the missing images; it looks for them under the names of the old one.

    So what arrives late is found, and what is sent again writes the same objects.
    """
    tag = f"{row.tag}-{row.id}"
    part = {
        **row._asdict(),
        "tag": tag,
        "fingerprint": f"{row.fingerprint} {tag}",
        "image_ids": missing,
        "state": JobState.UNKNOWN,
        "reason": "missing images, to be looked for",
        "attempt": 0,
        "maybe_applied": True,
        "task_id": None,
        "request_id": None,
        "created_at": now,
        "finished_at": None,
        **_ANEW,
        "due_at": now,
    }
    del part["id"]
    inserted = await connection.execute(jobs.insert().returning(jobs.c.id), [part])
    number: int = inserted.scalar_one()
    images = [
        {"job_id": number, "position": position, "image_id": image}
        for position, image in enumerate(missing)
    ]
    await connection.execute(job_images.insert(), images)
    await _hand_over(connection, row, number, missing)
    this = jobs.update().where(jobs.c.id == row.id)
    await connection.execute(this.values(reason=_ASKED_ANEW))
    part_of, asked = {"of": row.id}, {"missing": missing, "job": number}
    await audit.append(
        connection,
        audit.Event("split off", actor, number, details=part_of),
        audit.Event("retried", actor, row.id, details=asked),
        at=now,
    )


async def _hand_over(
    connection: AsyncConnection, row: Any, number: int, missing: list[str]
) -> None:
    """The keys to expect of the missing images."""
    query = sa.select(objects).where(objects.c.job_id == row.id)
    expected = [
        {
            "job_id": number,
            "key": key.key,
            "expected": True,
            "disk_gib": key.disk_gib,
            "baseline_etag": key.baseline_etag,
        }
        for key in (await connection.execute(query)).all()
        if any(is_disk_of(image, key.key, row.object_prefix) for image in missing)
    ]
    if expected:
        await connection.execute(objects.insert(), expected)


async def _try_again(connection: AsyncConnection, row: Any, now: datetime, actor: str) -> None:
    retried = Transition(
        row.id,
        JobState(row.state),
        JobState.UNKNOWN if row.maybe_applied else JobState.QUEUED,
        kind="retried",
        reason="retried, to be looked for" if row.maybe_applied else "retried",
        actor=actor,
        attempt=row.attempt,
        changes={**_ANEW, "due_at": now, "task_id": None},
        details={"after": row.code},
    )
    await apply_transition(connection, retried, at=now)


_ANEW = {
    "accepted_at": None,
    "deadline_at": None,
    "absent_since": None,
    "attempts_charged": 0,
    "deferrals": 0,
    **NO_FAULT,
}

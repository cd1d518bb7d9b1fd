"""What a person decides about jobs: a verdict on an unknown one, another try, or no more."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import audit
from orchestrator.clock import iso
from orchestrator.db import Database
from orchestrator.errors import UsageError
from orchestrator.model import JobState
from orchestrator.settle.delivery import is_of, undelivered
from orchestrator.settle.verify import NOT_DELIVERED
from orchestrator.tables import job_images, jobs, objects
from orchestrator.transition import Move, make_moves, move

_ENDED = frozenset({JobState.FAILED, JobState.CANCELLED})
_ASKED_ANEW = "its missing images have a job of their own"


class Verdict(StrEnum):
    """What a person has found out about an export whose answer was lost."""

    ACCEPTED = "accepted"
    """It runs, or has run."""
    ABSENT = "absent"
    """It never began, so it may be sent again."""


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


@dataclass(frozen=True, slots=True)
class Cancel:
    """What becomes of jobs that are given up.

    Args:
        changed: jobs that waited, and are cancelled.
        untouched: jobs in another state: they may run already, or have ended.
    """

    changed: int
    untouched: int


async def settle(
    database: Database,
    wanted: sa.ColumnElement[bool],
    verdict: Verdict,
    *,
    why: str,
    export_deadline: timedelta,
    actor: str,
) -> int:
    """Takes a person's word for the answer that was lost; returns the number of the job.

    That nothing began can be known only when no request of a sleeping process can leave any more.

    Args:
        wanted: the one job, as a condition on the table of jobs.
        why: what the person has seen; kept in the job's events.

    Raises:
        UsageError: it is not one job, or not unknown, or too early to be called absent.
    """
    async with database.write() as connection:
        row = await _the_one(connection, wanted)
        now = await database.now(connection)
        if verdict is Verdict.ABSENT and row.fenced_until is not None and now < row.fenced_until:
            raise UsageError(
                f"A process that sleeps may still send job {row.id} until {iso(row.fenced_until)}.",
                "Look once more after that time, and settle it then.",
            )
        target, changes = JobState.QUEUED, _absent(now)
        if verdict is Verdict.ACCEPTED:
            target, changes = JobState.ACCEPTED, _accepted(now, export_deadline)
        settled = Move(
            row.id,
            JobState.UNKNOWN,
            target,
            kind="settled",
            reason="a person's word",
            actor=actor,
            attempt=row.attempt,
            changes=changes,
            details={"as": verdict, "why": why},
        )
        await move(connection, settled, at=now)
        return int(row.id)


async def _the_one(connection: AsyncConnection, wanted: sa.ColumnElement[bool]) -> Any:
    query = sa.select(jobs).where(wanted).limit(2).with_for_update()
    rows = (await connection.execute(query)).all()
    if len(rows) != 1:
        raise UsageError(
            "There is no such job." if not rows else "That names several jobs; settle one.",
            "`orchestrator history --state unknown` lists them with their numbers.",
        )
    state = JobState(rows[0].state)
    if state is not JobState.UNKNOWN:
        raise UsageError(f"Job {rows[0].id} is {state}, not unknown.", _INSTEAD[state])
    return rows[0]


_INSTEAD = {
    JobState.QUEUED: "It waits and will be sent; there is nothing to settle.",
    JobState.SENDING: "A process is sending it now; look again in a minute.",
    JobState.ACCEPTED: "Its export was accepted; `orchestrator run` waits for its objects.",
    JobState.VERIFIED: "Its objects were seen in the bucket; there is nothing to settle.",
    JobState.FAILED: "`orchestrator retry` tries it again.",
    JobState.CANCELLED: "`orchestrator retry` tries it again.",
}


def _accepted(now: datetime, export_deadline: timedelta) -> dict[str, Any]:
    return {
        "accepted_at": now,
        "deadline_at": now + export_deadline,
        "due_at": now,
        **_NO_FAULT,
    }


def _absent(now: datetime) -> dict[str, Any]:
    return {"due_at": now, "doubted": False, "spent": 0, "waits": 0, **_NO_FAULT}


_NO_FAULT = {"code": None, "message": None, "remedy": None}


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
            queued += not missing and not row.doubted
            unknown += not missing and row.doubted
            if missing and not dry_run:
                await _split(connection, row, missing, now, actor)
            elif not dry_run:
                await _try_again(connection, row, now, actor)
    return Retry(queued, unknown, parts, untouched)


async def cancel(
    database: Database, wanted: sa.ColumnElement[bool], *, actor: str, dry_run: bool = False
) -> Cancel:
    """Gives up jobs that wait in the queue; what was sent cannot be called back.

    Args:
        wanted: which jobs, as a condition on the table of jobs.
        dry_run: say what would become of them, and change nothing.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        waits = jobs.c.state == JobState.QUEUED
        others = sa.select(sa.func.count()).where(wanted, ~waits)
        untouched = int((await connection.execute(others)).scalar_one())
        query = sa.select(jobs.c.id, jobs.c.attempt).where(wanted, waits).order_by(jobs.c.id)
        rows = (await connection.execute(query.with_for_update())).all()
        if not dry_run:
            for first in range(0, len(rows), _AT_A_TIME):
                given_up = [_cancelled(row, actor) for row in rows[first : first + _AT_A_TIME]]
                await make_moves(connection, given_up, at=now)
    return Cancel(len(rows), untouched)


_AT_A_TIME = 1000
"""Jobs whose moves are made together: of a long queue not all are held in memory."""


def _cancelled(row: Any, actor: str) -> Move:
    return Move(
        row.id,
        JobState.QUEUED,
        JobState.CANCELLED,
        kind="cancelled",
        reason="given up",
        actor=actor,
        attempt=row.attempt,
    )


async def _missing_images(connection: AsyncConnection, row: Any) -> list[str]:
    """The images that never arrived, where others of the same request did."""
    if row.code != NOT_DELIVERED or len(row.image_ids) < 2:
        return []
    keys = (await connection.execute(sa.select(objects).where(objects.c.job_id == row.id))).all()
    arrived = {key.key for key in keys if key.size}
    images = undelivered(row.image_ids, row.object_prefix, [key.key for key in keys], arrived)
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
        "doubted": True,
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
        if any(is_of(image, key.key, row.object_prefix) for image in missing)
    ]
    if expected:
        await connection.execute(objects.insert(), expected)


async def _try_again(connection: AsyncConnection, row: Any, now: datetime, actor: str) -> None:
    retried = Move(
        row.id,
        JobState(row.state),
        JobState.UNKNOWN if row.doubted else JobState.QUEUED,
        kind="retried",
        reason="retried, to be looked for" if row.doubted else "retried",
        actor=actor,
        attempt=row.attempt,
        changes={**_ANEW, "due_at": now, "task_id": None},
        details={"after": row.code},
    )
    await move(connection, retried, at=now)


_ANEW = {
    "accepted_at": None,
    "deadline_at": None,
    "clean_since": None,
    "spent": 0,
    "waits": 0,
    **_NO_FAULT,
}

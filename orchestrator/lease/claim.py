"""Takes one job out of the queue: the claim is the durable intent to send it."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.db import Database
from orchestrator.model import UNDER_WAY, ExportOrder, ImageFormat, JobState, Lease
from orchestrator.pace import gate
from orchestrator.tables import attempts, job_images, jobs
from orchestrator.transition import move

BROKEN_IMAGE_STATES = ("CREATEFAILED", "IMPORTFAILED")
"""States in which an image is not busy but will never be exportable."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs a claim may take.

    Args:
        regions: only these, where an endpoint serves not all; ``None`` is any.
        permitted: further condition on the table of jobs, as for stops.
        watched: the jobs whose end this run will see, as a condition on the given table.
    """

    profile: str
    regions: tuple[str, ...] | None
    permitted: sa.ColumnElement[bool]
    watched: Callable[[sa.FromClause], sa.ColumnElement[bool]]


async def claim(
    database: Database, owner: str, wanted: Wanted, *, signed_at: datetime, lasts: timedelta
) -> Lease | None:
    """Claims the next job that may be sent now; ``None`` when there is none.

    One transaction counts what runs in each scope, from the jobs themselves, takes the job only
    where the gate has room or wants a prober, and stamps owner, attempt and expiry.

    Args:
        owner: the instance that will send.
        signed_at: goes into the attempt's signature, in the server's time.
        lasts: length of the lease: the longest request and a little.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        open_gates = {
            found.region: found
            for found in await gate.gates(connection, wanted.profile, now, lock=True)
            if found.admits(now) and (wanted.regions is None or found.region in wanted.regions)
        }
        if not open_gates:
            return None
        row = (await connection.execute(_next_job(wanted, tuple(open_gates), now))).first()
        if row is None:
            return None
        probe = not open_gates[row.region].has_room
        lease = _lease(row, owner, now=now, signed_at=signed_at, lasts=lasts, probe=probe)
        await _take(connection, lease)
        return lease


def _next_job(wanted: Wanted, regions: tuple[str, ...], now: datetime) -> sa.Select[Any]:
    """The job to send next: priority, then the largest, then the oldest."""
    broken = (
        sa.select(job_images.c.job_id)
        .where(job_images.c.job_id == jobs.c.id, job_images.c.state.in_(BROKEN_IMAGE_STATES))
        .exists()
    )
    return (
        sa.select(jobs, broken.label("image_broken"))
        .where(
            jobs.c.state == JobState.QUEUED,
            jobs.c.profile == wanted.profile,
            jobs.c.region.in_(regions),
            _is_due(now),
            jobs.c.described_at.is_not(None),
            wanted.permitted,
            ~_image_is_under_way(wanted),
        )
        .order_by(jobs.c.priority.desc(), jobs.c.size_gib.desc(), jobs.c.id)
        .limit(1)
        .with_for_update(of=jobs, skip_locked=True)
    )


def _is_due(now: datetime) -> sa.ColumnElement[bool]:
    """Whether a job's time has come.

    Put as a case so that SQLite reads the next job off the index of the order; by the index of
    times it would fetch and sort all that wait, for each claim.
    """
    return sa.case((jobs.c.due_at <= now, sa.true()), else_=sa.false())


def _image_is_under_way(wanted: Wanted) -> sa.ColumnElement[bool]:
    """Another job of ours exports one of this job's images: the vendor takes one at a time.

    One whose end nobody will see is not waited for; the vendor says whether the image is busy.
    """
    mine, other, theirs = job_images.alias("mine"), jobs.alias("other"), job_images.alias("theirs")
    return (
        sa.select(other.c.id)
        .select_from(mine)
        .join(theirs, theirs.c.image_id == mine.c.image_id)
        .join(other, other.c.id == theirs.c.job_id)
        .where(
            mine.c.job_id == jobs.c.id,
            other.c.id != jobs.c.id,
            other.c.profile == jobs.c.profile,
            other.c.region == jobs.c.region,
            other.c.state.in_(sorted(UNDER_WAY)),
            (other.c.state == JobState.SENDING) | wanted.watched(other),
        )
        .exists()
    )


def _lease(
    row: sa.Row[Any],
    owner: str,
    *,
    now: datetime,
    signed_at: datetime,
    lasts: timedelta,
    probe: bool,
) -> Lease:
    return Lease(
        job_id=row.id,
        attempt=row.attempt + 1,
        owner=owner,
        profile=row.profile,
        order=ExportOrder(
            region=row.region,
            image_ids=tuple(row.image_ids),
            bucket=row.bucket,
            format=ImageFormat(row.format),
            name_prefix=row.object_prefix,
            only_root_disk=row.only_root_disk,
            role_name=row.role_name,
        ),
        claimed_at=now,
        signed_at=signed_at,
        expires_at=now + lasts,
        doubted=row.doubted,
        exact_names=row.exact_names,
        probe=probe,
        spent=row.spent,
        waits=row.waits,
        image_broken=row.image_broken,
        last_code=row.code,
    )


async def _take(connection: AsyncConnection, lease: Lease) -> None:
    taken = await move(
        connection,
        lease.job_id,
        JobState.QUEUED,
        JobState.SENDING,
        kind="claimed",
        reason="probe" if lease.probe else "sending",
        at=lease.claimed_at,
        actor=lease.owner,
        attempt=lease.attempt - 1,
        changes={
            "attempt": lease.attempt,
            "owner": lease.owner,
            "expires_at": lease.expires_at,
            "sent_at": lease.claimed_at,
            # an earlier attempt's stays with that attempt
            "task_id": None,
        },
    )
    assert taken, "the row was read under the lock of this transaction"
    await connection.execute(
        attempts.insert().values(
            job_id=lease.job_id,
            number=lease.attempt,
            owner=lease.owner,
            probe=lease.probe,
            claimed_at=lease.claimed_at,
            signed_at=lease.signed_at,
            expires_at=lease.expires_at,
        )
    )
    if lease.probe:
        await gate.begin_probe(connection, lease)

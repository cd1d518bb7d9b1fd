"""What an operator does to jobs: retry, cancel, and resolve what is unknown."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.clock import iso
from orchestrator.errors import UsageError
from orchestrator.job_states import JobState
from orchestrator.model import NOT_DELIVERED
from orchestrator.object_keys import is_disk_of, missing_images
from orchestrator.store import Database, events
from orchestrator.store.tables import job_images, jobs, objects
from orchestrator.store.transitions import Transition, apply_transition, write_transitions

_SPLIT = "its missing images have a job of their own"
"""Reason of a failed job whose missing images were moved to a new job."""

_NO_ERROR = {"code": None, "message": None, "remedy": None}
"""Column values of a job without an error."""

_RESET = {
    "accepted_at": None,
    "deadline_at": None,
    "absent_since": None,
    "attempts_charged": 0,
    "deferrals": 0,
    "task_id": None,
    **_NO_ERROR,
}
"""Column values of a job that starts again."""


@dataclass(frozen=True, slots=True)
class CancelResult:
    """How many jobs were cancelled, or would be in a dry run.

    Args:
        changed: queued jobs, now cancelled.
        maybe_applied: those of them that were sent before and were not found in the bucket.
        skipped: jobs in another state; they may run already, or have ended.
    """

    changed: int = 0
    maybe_applied: int = 0
    skipped: int = 0


async def cancel(
    database: Database, wanted: sa.ColumnElement[bool], *, actor: str, dry_run: bool = False
) -> CancelResult:
    """Cancel queued jobs; an export that was requested cannot be called back.

    Args:
        wanted: which jobs, as a condition on the jobs table.
        dry_run: only count.
    """
    is_queued = jobs.c.state == JobState.QUEUED
    async with database.write() as connection:
        others = sa.select(sa.func.count()).where(wanted, ~is_queued)
        skipped = await connection.scalar(others) or 0
        query = (
            sa.select(jobs.c.id, jobs.c.attempt, jobs.c.maybe_applied)
            .where(wanted, is_queued)
            .order_by(jobs.c.id)
            .with_for_update()
        )
        rows = (await connection.execute(query)).all()
        transitions = [
            Transition(
                row.id,
                JobState.QUEUED,
                JobState.CANCELLED,
                kind="cancelled",
                reason="given up",
                actor=actor,
                attempt=row.attempt,
            )
            for row in rows
        ]
        if not dry_run:
            await write_transitions(connection, transitions, at=await database.now(connection))
    return CancelResult(len(rows), sum(row.maybe_applied for row in rows), skipped)


@dataclass(frozen=True, slots=True)
class RetryResult:
    """How many jobs were retried, or would be in a dry run.

    Args:
        queued: back in the queue; the vendor refused every request of theirs. The bucket is
            searched once before they are sent, in case a refusal was wrong.
        unknown: an export may exist, so the bucket is searched until that is settled.
        split: delivered in part; a new job was made of the missing images.
        skipped: neither failed nor cancelled, or split before.
    """

    queued: int = 0
    unknown: int = 0
    split: int = 0
    skipped: int = 0

    @property
    def changed(self) -> int:
        """Jobs that are retried, in whole or in part."""
        return self.queued + self.unknown + self.split


async def retry(
    database: Database, wanted: sa.ColumnElement[bool], *, actor: str, dry_run: bool = False
) -> RetryResult:
    """Retry failed and cancelled jobs; see `Orchestrator.retry`.

    Args:
        wanted: which jobs, as a condition on the jobs table.
        dry_run: only count.
    """
    has_ended = jobs.c.state.in_([JobState.FAILED, JobState.CANCELLED]) & (jobs.c.reason != _SPLIT)
    whole, split = [], 0
    async with database.write() as connection:
        now = await database.now(connection)
        others = sa.select(sa.func.count()).where(wanted, ~has_ended)
        skipped = await connection.scalar(others) or 0
        query = sa.select(jobs).where(wanted, has_ended).order_by(jobs.c.id).with_for_update()
        for row in (await connection.execute(query)).all():
            if await _split(connection, row, now, actor, dry_run=dry_run):
                split += 1
                continue
            target, reason, due_at = JobState.QUEUED, "retried", max(now, row.not_before or now)
            if row.maybe_applied:
                target, reason, due_at = JobState.UNKNOWN, "retried, to be looked for", now
            whole.append(
                Transition(
                    row.id,
                    JobState(row.state),
                    target,
                    kind="retried",
                    reason=reason,
                    actor=actor,
                    attempt=row.attempt,
                    changes={**_RESET, "due_at": due_at},
                    details={"after": row.code},
                )
            )
        if not dry_run:
            await write_transitions(connection, whole, at=now)
    unknown = sum(one.target is JobState.UNKNOWN for one in whole)
    return RetryResult(len(whole) - unknown, unknown, split, skipped)


async def _split(
    connection: AsyncConnection, row: Any, now: datetime, actor: str, *, dry_run: bool
) -> bool:
    """Insert a job for a request's missing images if its other images arrived.

    The old job stays failed. The new one keeps its key prefix. So a late object of the old request
    still counts, and a new request writes the same keys.
    """
    if row.code != NOT_DELIVERED or len(row.image_ids) < 2:
        return False
    keys = (await connection.execute(sa.select(objects).where(objects.c.job_id == row.id))).all()
    arrived = {key.key for key in keys if key.size}
    missing = missing_images(row.image_ids, row.object_prefix, [key.key for key in keys], arrived)
    is_partial = 0 < len(missing) < len(row.image_ids)
    if not is_partial or dry_run:
        return is_partial
    tag = f"{row.tag}-{row.id}"
    values = {
        **row._asdict(),
        "tag": tag,
        "fingerprint": f"{row.fingerprint} {tag}",
        "image_ids": missing,
        "state": JobState.UNKNOWN,
        "reason": "missing images, to be looked for",
        "attempt": 0,
        "maybe_applied": True,
        "request_id": None,
        "created_at": now,
        "finished_at": None,
        **_RESET,
        "due_at": now,
    }
    del values["id"]
    inserted = await connection.execute(jobs.insert().returning(jobs.c.id), [values])
    new_id: int = inserted.scalar_one()
    images = [
        {"job_id": new_id, "position": position, "image_id": image}
        for position, image in enumerate(missing)
    ]
    await connection.execute(job_images.insert(), images)
    known = [
        {
            "job_id": new_id,
            "key": key.key,
            "expected": key.expected,
            "cos_path": key.cos_path,
            "disk_gib": key.disk_gib,
            "baseline_etag": key.baseline_etag,
        }
        for key in keys
        if any(is_disk_of(image, key.key, row.object_prefix) for image in missing)
    ]
    if known:
        await connection.execute(objects.insert(), known)
    pointer = f"Nothing to do: follow its missing images with `orchestrator show {new_id}`."
    done = {"reason": _SPLIT, "remedy": pointer}
    await connection.execute(jobs.update().where(jobs.c.id == row.id).values(done))
    old, new = {"of": row.id}, {"missing": missing, "job": new_id}
    await events.append(
        connection,
        events.Event("split off", actor, new_id, details=old),
        events.Event("retried", actor, row.id, details=new),
        at=now,
    )
    return True


Verdict = Literal["accepted", "absent"]
"""What an operator has found out about an export whose response was lost: it is running or has run,
or it never began, so that it may be sent again."""


_REMEDIES = {
    JobState.QUEUED: "It is in the queue and will be sent; there is nothing to resolve.",
    JobState.SENDING: "A process is sending it now; check again in a minute.",
    JobState.ACCEPTED: "Its export was accepted; `orchestrator run` waits for its objects.",
    JobState.VERIFIED: "Its objects are in the bucket; there is nothing to resolve.",
    JobState.FAILED: "Use `orchestrator retry` to try it again.",
    JobState.CANCELLED: "Use `orchestrator retry` to try it again.",
}
"""What to do with a job that is not unknown, by its state."""


async def resolve(
    database: Database,
    wanted: sa.ColumnElement[bool],
    verdict: Verdict,
    *,
    why: str,
    export_deadline: timedelta,
    actor: str,
) -> int:
    """Move an unknown job to accepted or queued; return its id.

    Args:
        wanted: the one job, as a condition on the jobs table.
        why: the operator's evidence; stored in the job's events.
        export_deadline: longest time that an accepted export may take.

    Raises:
        UsageError: not a verdict, not exactly one job, the job is not unknown, or it is too early
            for `absent`.
    """
    if verdict not in get_args(Verdict):
        raise UsageError(f"{verdict!r} is not a verdict.", "Use accepted or absent.")
    async with database.write() as connection:
        query = sa.select(jobs).where(wanted).limit(2).with_for_update()
        rows = (await connection.execute(query)).all()
        if len(rows) != 1:
            raise UsageError(
                "No such job." if not rows else "That matches several jobs; resolve one at a time.",
                "`orchestrator history --state unknown` lists unknown jobs with their ids.",
            )
        (row,) = rows
        if row.state != JobState.UNKNOWN:
            remedy = row.remedy if row.reason == _SPLIT else _REMEDIES[row.state]
            raise UsageError(f"Job {row.id} is {row.state}, not unknown.", remedy)
        now = await database.now(connection)
        changes: dict[str, Any] = {"due_at": now, **_NO_ERROR}
        if verdict == "accepted":
            target = JobState.ACCEPTED
            changes |= {"accepted_at": now, "deadline_at": now + export_deadline}
        else:
            # A suspended process may wake up and send a request that it has already signed. Only
            # when that signature has expired can the operator know that nothing will begin.
            if row.no_resend_before is not None and now < row.no_resend_before:
                raise UsageError(
                    f"Another process may still send the request of job {row.id}: its signature is "
                    f"valid until {iso(row.no_resend_before)}.",
                    "After that time, check the bucket and the console again, then resolve the "
                    "job.",
                )
            target = JobState.QUEUED
            changes |= {"maybe_applied": False, "attempts_charged": 0, "deferrals": 0}
        transition = Transition(
            row.id,
            JobState.UNKNOWN,
            target,
            kind="resolved",
            reason="resolved by an operator",
            actor=actor,
            attempt=row.attempt,
            changes=changes,
            details={"as": verdict, "why": why},
        )
        await apply_transition(connection, transition, at=now)
        return int(row.id)

"""Resolve an unknown job by what an operator has found out about its export."""

from datetime import timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.clock import iso
from orchestrator.errors import UsageError
from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.store.transitions import Transition, apply_transition


class Verdict(StrEnum):
    """What an operator has found out about an export whose response was lost."""

    ACCEPTED = "accepted"
    """It is running, or has run."""
    ABSENT = "absent"
    """It never began, so it may be sent again."""


NO_ERROR = {"code": None, "message": None, "remedy": None}
"""Column values of a job without an error."""


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
        UsageError: not exactly one job, the job is not unknown, or it is too early for `absent`.
    """
    async with database.write() as connection:
        row = await _select_unknown(connection, wanted)
        now = await database.now(connection)
        changes: dict[str, Any] = {"due_at": now, **NO_ERROR}
        if verdict is Verdict.ACCEPTED:
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
            reason="a person's word",
            actor=actor,
            attempt=row.attempt,
            changes=changes,
            details={"as": verdict, "why": why},
        )
        await apply_transition(connection, transition, at=now)
        return int(row.id)


async def _select_unknown(connection: AsyncConnection, wanted: sa.ColumnElement[bool]) -> Any:
    query = sa.select(jobs).where(wanted).limit(2).with_for_update()
    rows = (await connection.execute(query)).all()
    if len(rows) != 1:
        raise UsageError(
            "No such job." if not rows else "That matches several jobs; resolve one at a time.",
            "`orchestrator history --state unknown` lists unknown jobs with their ids.",
        )
    state = JobState(rows[0].state)
    if state is not JobState.UNKNOWN:
        raise UsageError(f"Job {rows[0].id} is {state}, not unknown.", _REMEDIES[state])
    return rows[0]


_REMEDIES = {
    JobState.QUEUED: "It is in the queue and will be sent; there is nothing to resolve.",
    JobState.SENDING: "A process is sending it now; check again in a minute.",
    JobState.ACCEPTED: "Its export was accepted; `orchestrator run` waits for its objects.",
    JobState.VERIFIED: "Its objects are in the bucket; there is nothing to resolve.",
    JobState.FAILED: "Use `orchestrator retry` to try it again.",
    JobState.CANCELLED: "Use `orchestrator retry` to try it again.",
}

"""What a person decides about jobs: a verdict on an unknown one, or to give up what waits."""

from datetime import datetime, timedelta
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
    """What a person has found out about an export whose answer was lost."""

    ACCEPTED = "accepted"
    """It runs, or has run."""
    ABSENT = "absent"
    """It never began, so it may be sent again."""


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
        if (
            verdict is Verdict.ABSENT
            and row.no_resend_before is not None
            and now < row.no_resend_before
        ):
            raise UsageError(
                f"A suspended process may still send job {row.id} until "
                f"{iso(row.no_resend_before)}.",
                "Look once more after that time, and settle it then.",
            )
        target, changes = JobState.QUEUED, _absent(now)
        if verdict is Verdict.ACCEPTED:
            target, changes = JobState.ACCEPTED, _accepted(now, export_deadline)
        settled = Transition(
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
        await apply_transition(connection, settled, at=now)
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
        **NO_FAULT,
    }


def _absent(now: datetime) -> dict[str, Any]:
    return {
        "due_at": now,
        "maybe_applied": False,
        "attempts_charged": 0,
        "deferrals": 0,
        **NO_FAULT,
    }


NO_FAULT = {"code": None, "message": None, "remedy": None}
"""The columns of a job with which nothing is wrong any more."""

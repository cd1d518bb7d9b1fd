"""The only writer of a job's state; each move leaves its event in the same transaction."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator import audit
from orchestrator.model import FINAL, TRANSITIONS, JobState
from orchestrator.tables import jobs


def may_move(source: JobState, target: JobState) -> bool:
    """Whether the transition table has this move."""
    return target in TRANSITIONS[source]


async def move(
    connection: AsyncConnection,
    job_id: int,
    source: JobState,
    target: JobState,
    *,
    kind: str,
    reason: str,
    at: datetime,
    actor: str,
    attempt: int,
    changes: Mapping[str, Any] | None = None,
    details: Mapping[str, object] | None = None,
) -> bool:
    """Moves one job, if it still is where, and at the attempt that, the caller believes.

    Args:
        attempt: the job's last attempt as the caller knows it: the fence against a worker that
            has slept while another took its job over.
        changes: further columns of the job to set with the state.
        details: evidence for the event.

    Returns:
        False when the job has moved on; then nothing was written.

    Raises:
        ValueError: the transition table has no such move: a bug in the caller.
    """
    if not may_move(source, target):
        raise ValueError(f"no job goes from {source} to {target}")
    values: dict[str, Any] = {"state": target, "reason": reason, **(changes or {})}
    values["finished_at"] = at if target in FINAL else None
    if source is JobState.SENDING:
        values |= {"owner": None, "expires_at": None}
    moved = await connection.execute(
        jobs.update()
        .where(jobs.c.id == job_id, jobs.c.state == source, jobs.c.attempt == attempt)
        .values(values)
    )
    if moved.rowcount == 0:
        return False
    await audit.append(
        connection,
        kind,
        at=at,
        actor=actor,
        job_id=job_id,
        states=(source, target),
        attempt=values.get("attempt", attempt) or None,
        details=details,
    )
    return True

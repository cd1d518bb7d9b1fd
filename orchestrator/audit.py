"""What happened, for good: the one writer of events, in the caller's transaction."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.model import JobState
from orchestrator.tables import events


async def append(
    connection: AsyncConnection,
    kind: str,
    *,
    at: datetime,
    actor: str,
    job_id: int | None = None,
    states: tuple[JobState | None, JobState | None] = (None, None),
    attempt: int | None = None,
    details: Mapping[str, object] | None = None,
) -> None:
    """Writes one event.

    Args:
        kind: one word or two for what happened, as in ``accepted``.
        at: when, on the store's clock.
        actor: the process that did it.
        states: from and to, where a job changed its state.
        details: evidence, as JSON.
    """
    await connection.execute(
        events.insert().values(
            kind=kind,
            at=at,
            actor=actor,
            job_id=job_id,
            from_state=states[0],
            to_state=states[1],
            attempt=attempt,
            details=dict(details or {}),
        )
    )

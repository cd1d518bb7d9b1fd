"""What happened to the jobs that are there, for good, in the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.store.tables import events


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Args:
        kind: one word or two for what happened, as in ``accepted``.
        actor: the process that did it, or the person.
        states: from and to, where a job changed its state.
        details: evidence, as JSON.
    """

    kind: str
    actor: str
    job_id: int | None = None
    states: tuple[JobState | None, JobState | None] = (None, None)
    attempt: int | None = None
    details: Mapping[str, object] = field(default_factory=dict)


async def append(connection: AsyncConnection, *happened: Event, at: datetime) -> None:
    """Writes events.

    Args:
        at: when, on the store's clock.
    """
    if not happened:
        return
    rows = [
        {
            "kind": event.kind,
            "at": at,
            "actor": event.actor,
            "job_id": event.job_id,
            "from_state": event.states[0],
            "to_state": event.states[1],
            "attempt": event.attempt,
            "details": dict(event.details),
        }
        for event in happened
    ]
    await connection.execute(events.insert(), rows)

"""The append-only log of what happened to the jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import JobState
from orchestrator.store.tables import events


@dataclass(frozen=True)
class Event:
    """One entry of the log: the columns of its row, except the time.

    Args:
        kind: what happened, in one word or two, such as ``accepted``.
        actor: the process that did it, or the user.
        from_state, to_state: before and after, if the job changed its state.
        details: further facts, as JSON.
    """

    kind: str
    actor: str
    job_id: int | None = None
    from_state: JobState | None = None
    to_state: JobState | None = None
    attempt: int | None = None
    details: Mapping[str, object] = field(default_factory=dict)


async def append(connection: AsyncConnection, *happened: Event, at: datetime) -> None:
    """Write events in the caller's transaction.

    Args:
        at: when they happened, by the store's clock.
    """
    if happened:
        await connection.execute(_INSERT, [{**vars(one), "at": at} for one in happened])


_INSERT = events.insert()
"""Built once: SQLAlchemy keeps with the statement what it looks its compiled form up by."""

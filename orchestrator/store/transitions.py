"""The only writer of a job's state; each move leaves its event in the same transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import compress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import FINAL, TRANSITIONS, JobState
from orchestrator.store import events as audit
from orchestrator.store.tables import jobs


@dataclass(frozen=True, slots=True)
class Transition:
    """One job's way from a state to another.

    Args:
        attempt: the job's last attempt as the caller knows it: the fence against a worker that
            has slept while another took its job over.
        known: what else the caller has built upon, when its export was accepted or since when
            looks were clean: a person may have sent the job another way round meanwhile.
        changes: further columns of the job to set with the state.
        details: evidence for the event.
    """

    job_id: int
    source: JobState
    target: JobState
    kind: str
    reason: str
    actor: str
    attempt: int
    known: Mapping[str, datetime | None] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)

    def columns(self, at: datetime) -> dict[str, Any]:
        """What it sets."""
        values = {"state": self.target, "reason": self.reason, **self.changes}
        values["finished_at"] = at if self.target in FINAL else None
        if self.source is JobState.SENDING:
            values |= {"owner": None, "expires_at": None}
        return values

    def begins_at(self, job: Any) -> bool:
        """Whether the job is where the caller believes it to be."""
        as_known = all(getattr(job, name) == value for name, value in self.known.items())
        return (job.state, job.attempt) == (self.source, self.attempt) and as_known

    def event(self) -> audit.Event:
        """What it leaves behind."""
        attempt = self.changes.get("attempt", self.attempt)
        states = (self.source, self.target)
        return audit.Event(
            self.kind, self.actor, self.job_id, states, attempt or None, self.details
        )


def is_allowed(source: JobState, target: JobState) -> bool:
    """Whether the transition table has this move."""
    return target in TRANSITIONS[source]


async def apply_transition(connection: AsyncConnection, one: Transition, *, at: datetime) -> bool:
    """Moves one job; false when it has moved on, and then nothing was written."""
    (moved,) = await apply_transitions(connection, [one], at=at)
    return moved


async def apply_transitions(
    connection: AsyncConnection, transitions: Sequence[Transition], *, at: datetime
) -> list[bool]:
    """Moves each job that still is where, and at the attempt that, the caller believes.

    Returns:
        For each whether it was moved; where not, nothing was written.

    Raises:
        ValueError: the transition table has no such move as is to be made: a bug in the caller.
    """
    found = await _standing(connection, [one.job_id for one in transitions])
    valid = [one.job_id in found and one.begins_at(found[one.job_id]) for one in transitions]
    await write_transitions(connection, list(compress(transitions, valid)), at=at)
    return valid


async def write_transitions(
    connection: AsyncConnection, transitions: Sequence[Transition], *, at: datetime
) -> None:
    """Moves jobs that this transaction has read and locked where the moves begin.

    Raises:
        ValueError: the transition table has no such move: a bug in the caller.
    """
    for one in transitions:
        if not is_allowed(one.source, one.target):
            raise ValueError(f"no job goes from {one.source} to {one.target}")
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in transitions:
        columns = one.columns(at)
        alike[tuple(columns)].append({"this": one.job_id, **_bound(columns)})
    for names, rows in alike.items():
        await connection.execute(_setting(names), rows)
    await audit.append(connection, *(one.event() for one in transitions), at=at)


async def _standing(connection: AsyncConnection, job_ids: Sequence[int]) -> dict[int, Any]:
    """Where these jobs are, and until the transaction ends they stay there."""
    found = await connection.execute(_STANDING, {"job_ids": job_ids})
    return {row.id: row for row in found}


# made anew, these would cost more than their execution
_STANDING = (
    sa.select(jobs.c.id, jobs.c.state, jobs.c.attempt, jobs.c.accepted_at, jobs.c.absent_since)
    .where(jobs.c.id.in_(sa.bindparam("job_ids", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update()
)


@cache
def _setting(names: tuple[str, ...]) -> sa.Update:
    new = {name: sa.bindparam(f"new_{name}", type_=jobs.c[name].type) for name in names}
    return jobs.update().where(jobs.c.id == sa.bindparam("this")).values(new)


def _bound(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in columns.items()}

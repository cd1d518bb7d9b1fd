"""State transitions: the only code that writes a job's state.

Each transition writes its event in the same transaction.
"""

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
    """The change of one job from one state to another.

    It is not applied if the job has changed since the caller read it.

    Args:
        attempt: number of the job's last attempt when the caller read it. It stops a worker that
            was suspended while another one took its job over.
        known: further columns that must not have changed, such as ``accepted_at``: the user may
            have sent the job back to the same state meanwhile.
        changes: further columns of the job to set with the state.
        details: further facts for the event.
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
        """Return the columns to set."""
        values = {"state": self.target, "reason": self.reason, **self.changes}
        values["finished_at"] = at if self.target in FINAL else None
        if self.source is JobState.SENDING:
            values |= {"owner": None, "expires_at": None}
        return values

    def is_valid_for(self, job: Any) -> bool:
        """Return whether the job is still as the caller has read it."""
        as_known = all(getattr(job, name) == value for name, value in self.known.items())
        return (job.state, job.attempt) == (self.source, self.attempt) and as_known

    def event(self) -> audit.Event:
        """Return the event to write."""
        attempt = self.changes.get("attempt", self.attempt)
        states = (self.source, self.target)
        return audit.Event(
            self.kind, self.actor, self.job_id, states, attempt or None, self.details
        )


def is_allowed(source: JobState, target: JobState) -> bool:
    """Return whether the transition table contains this transition."""
    return target in TRANSITIONS[source]


async def apply_transition(connection: AsyncConnection, one: Transition, *, at: datetime) -> bool:
    """Apply one transition; return false, with nothing written, if the job has changed."""
    (is_applied,) = await apply_transitions(connection, [one], at=at)
    return is_applied


async def apply_transitions(
    connection: AsyncConnection, transitions: Sequence[Transition], *, at: datetime
) -> list[bool]:
    """Apply the transitions of those jobs that have not changed since the caller read them.

    Returns:
        For each transition, whether it was applied; if not, nothing was written for it.

    Raises:
        ValueError: the transition table does not contain it: a bug in the caller.
    """
    found = await _read_locked(connection, [one.job_id for one in transitions])
    valid = [one.job_id in found and one.is_valid_for(found[one.job_id]) for one in transitions]
    await write_transitions(connection, list(compress(transitions, valid)), at=at)
    return valid


async def write_transitions(
    connection: AsyncConnection, transitions: Sequence[Transition], *, at: datetime
) -> None:
    """Apply transitions of jobs that this database transaction has read and locked already.

    Raises:
        ValueError: the transition table does not contain one of them: a bug in the caller.
    """
    for one in transitions:
        if not is_allowed(one.source, one.target):
            raise ValueError(f"no job goes from {one.source} to {one.target}")
    # one statement for all transitions that set the same columns
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for one in transitions:
        columns = one.columns(at)
        by_columns[tuple(columns)].append({"this": one.job_id, **_bound(columns)})
    for names, rows in by_columns.items():
        await connection.execute(_update(names), rows)
    await audit.append(connection, *(one.event() for one in transitions), at=at)


async def _read_locked(connection: AsyncConnection, job_ids: Sequence[int]) -> dict[int, Any]:
    """Read these jobs and lock their rows until the end of the transaction."""
    found = await connection.execute(_READ, {"job_ids": job_ids})
    return {row.id: row for row in found}


# Built once: building a statement takes longer than executing it. In order of the ids, so that two
# transactions that lock the same rows do not wait for each other.
_READ = (
    sa.select(jobs.c.id, jobs.c.state, jobs.c.attempt, jobs.c.accepted_at, jobs.c.absent_since)
    .where(jobs.c.id.in_(sa.bindparam("job_ids", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update()
)


@cache
def _update(names: tuple[str, ...]) -> sa.Update:
    new = {name: sa.bindparam(f"new_{name}", type_=jobs.c[name].type) for name in names}
    return jobs.update().where(jobs.c.id == sa.bindparam("this")).values(new)


def _bound(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {f"new_{name}": value for name, value in columns.items()}

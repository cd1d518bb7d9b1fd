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
from orchestrator.store import events
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

    def event(self) -> events.Event:
        """Return the event to write."""
        attempt = self.changes.get("attempt", self.attempt) or None
        return events.Event(
            self.kind, self.actor, self.job_id, self.source, self.target, attempt, self.details
        )

    def statement(self, at: datetime) -> tuple[sa.Update, dict[str, Any]]:
        """Return the UPDATE of the unchanged job, and its parameters.

        Raises:
            ValueError: the transition table does not contain the transition: a bug in the caller.
        """
        if not is_allowed(self.source, self.target):
            raise ValueError(f"no job goes from {self.source} to {self.target}")
        columns = {"state": self.target, "reason": self.reason, **self.changes}
        columns["finished_at"] = at if self.target in FINAL else None
        if self.source is JobState.SENDING:
            columns |= {"owner": None, "expires_at": None}
        parameters = {"this": self.job_id, "source": self.source, "last_attempt": self.attempt}
        parameters |= {f"new_{name}": value for name, value in columns.items()}
        parameters |= {f"known_{name}": value for name, value in self.known.items()}
        return _update(tuple(columns), tuple(self.known)), parameters


def is_allowed(source: JobState, target: JobState) -> bool:
    """Return whether the transition table contains this transition."""
    return target in TRANSITIONS[source]


async def apply_transition(connection: AsyncConnection, one: Transition, *, at: datetime) -> bool:
    """Apply one transition; return false and write nothing if the job has changed."""
    (is_applied,) = await apply_transitions(connection, [one], at=at)
    return is_applied


async def apply_transitions(
    connection: AsyncConnection, transitions: Sequence[Transition], *, at: datetime
) -> list[bool]:
    """Apply transitions to the jobs that have not changed since they were read.

    Returns:
        For each transition, whether it was applied; if not, nothing was written for it.

    Raises:
        ValueError: the transition table does not contain it: a bug in the caller.
    """
    applied = [False] * len(transitions)
    # In order of the ids, so that two transactions that lock the same rows do not wait for each
    # other.
    for number in sorted(range(len(transitions)), key=lambda one: transitions[one].job_id):
        statement, parameters = transitions[number].statement(at)
        applied[number] = (await connection.execute(statement, parameters)).rowcount == 1
    await events.append(connection, *(one.event() for one in compress(transitions, applied)), at=at)
    return applied


async def write_transitions(
    connection: AsyncConnection, transitions: Sequence[Transition], *, at: datetime
) -> None:
    """Apply transitions to jobs that this database transaction has read and locked.

    Raises:
        ValueError: the transition table does not contain one of them: a bug in the caller.
    """
    rows_of: dict[sa.Update, list[dict[str, Any]]] = defaultdict(list)
    for one in transitions:
        statement, parameters = one.statement(at)
        rows_of[statement].append(parameters)
    for statement, rows in rows_of.items():
        await connection.execute(statement, rows)
    await events.append(connection, *(one.event() for one in transitions), at=at)


@cache  # building a statement takes longer than executing it
def _update(changed: tuple[str, ...], known: tuple[str, ...]) -> sa.Update:
    def bound(kind: str, name: str) -> sa.BindParameter[Any]:
        return sa.bindparam(f"{kind}_{name}", type_=jobs.c[name].type)

    is_unchanged = (
        jobs.c.id == sa.bindparam("this"),
        jobs.c.state == sa.bindparam("source"),
        jobs.c.attempt == sa.bindparam("last_attempt"),
        # also true for null; not used above, because PostgreSQL has no index for it
        *(jobs.c[name].is_not_distinct_from(bound("known", name)) for name in known),
    )
    return jobs.update().where(*is_unchanged).values({name: bound("new", name) for name in changed})

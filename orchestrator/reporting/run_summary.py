"""Summarize a run: the batches it works on, and the states of their jobs at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import LIVING, JobState
from orchestrator.model import NOT_RULED_OUT, NOT_SENT, Halt, Reaction
from orchestrator.store import Database
from orchestrator.store.tables import attempts, jobs

_IS_LIVING = jobs.c.state.in_(sorted(LIVING))


@dataclass(frozen=True, slots=True)
class RunResult:
    """The counts of a run at its end.

    Args:
        counts: jobs by state, of all batches that the run worked on.
        requests: ExportImages requests that this run sent.
        refused: those of them that were refused for rate or capacity, or in a suspected region.
        seconds: duration of the run.
        left: living jobs that another run may continue.
        blocked: halts that need an operator, each with its code and remedy.
        not_ruled_out: unknown jobs that are not resent automatically.
        warned: jobs with a warning.
        warnings: those of the run that held at its end, besides halts.
    """

    counts: Mapping[JobState, int]
    requests: int
    refused: int
    seconds: float
    left: int = 0
    timed_out: bool = False
    blocked: tuple[Halt, ...] = ()
    not_ruled_out: int = 0
    warned: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def needs_action(self) -> bool:
        """Whether an operator must act on one of the halts before work can go on."""
        return any(not halt.is_temporary for halt in self.blocked)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The batches that a run works on: those with a living job at its start, or later.

    Whole batches are counted, so that a resumed run reports all of its batch. Other batches are
    not counted, so that old failures do not appear in the result of a new run.
    """

    database: Database
    profile: str
    batch: str | None
    started_at: datetime
    batches: frozenset[str]

    @classmethod
    async def begin(cls, database: Database, profile: str, batch: str | None) -> Self:
        """Read which batches have living jobs.

        Args:
            batch: the only batch of the run; ``None`` is all.
        """
        of_batch = sa.true() if batch is None else jobs.c.batch == batch
        async with database.read() as connection:
            started_at = await database.now(connection)
            batches = await _batches(connection, profile, _IS_LIVING, of_batch)
        return cls(database, profile, batch, started_at, batches)

    @property
    def has_work(self) -> bool:
        """Whether there was a living job at the start."""
        return bool(self.batches)

    async def living_jobs_of_other_profiles(self) -> dict[str, int]:
        """Count the living jobs that this run does not send, by profile."""
        query = (
            sa.select(jobs.c.profile, sa.func.count())
            .where(_IS_LIVING, jobs.c.profile != self.profile)
            .group_by(jobs.c.profile)
        )
        async with self.database.read() as connection:
            return dict((await connection.execute(query)).all())

    async def finish(
        self,
        *,
        owner: str | None,
        seconds: float,
        left: Sequence[sa.ColumnElement[bool]] = (),
        timed_out: bool = False,
        blocked: tuple[Halt, ...] = (),
        warnings: tuple[str, ...] = (),
    ) -> RunResult:
        """Count the jobs by state, and the requests that were sent.

        Args:
            owner: id of the instance that sent the requests; ``None`` if none was sent.
            left: conditions on the jobs table for jobs of this run that another run may continue.
                No two may hold for the same job.
        """
        counts, not_ruled_out, warned = dict.fromkeys(JobState, 0), 0, 0
        number, is_touched = sa.func.count(), _IS_LIVING | (jobs.c.finished_at >= self.started_at)
        async with self.database.read() as connection:
            if self.batch is None:
                batches = self.batches | await _batches(connection, self.profile, is_touched)
            else:
                batches = frozenset({self.batch})
            columns = (jobs.c.state, jobs.c.reason)
            query = sa.select(*columns, number, sa.func.count(jobs.c.warnings)).where(
                jobs.c.profile == self.profile,
                jobs.c.batch.in_(sorted(batches)),
            )
            groups = await connection.execute(query.group_by(*columns))
            for state, reason, total, with_warning in groups:
                counts[JobState(state)] += total
                warned += with_warning
                if (state, reason) == (JobState.UNKNOWN, NOT_RULED_OUT):
                    not_ruled_out += total
            is_refused = attempts.c.reaction.in_(
                [Reaction.CAPACITY, Reaction.SUSPECT_REGION, Reaction.SLOW]
            )
            sent = sa.select(number, sa.func.count(sa.case((is_refused, 1)))).where(
                attempts.c.owner == owner, attempts.c.code.is_distinct_from(NOT_SENT)
            )
            requests, refused = (await connection.execute(sent)).one()
            # one query each: for conditions joined by OR, SQLite collects all ids in memory
            unfinished = 0
            for condition in left:
                unfinished += await connection.scalar(sa.select(number).where(condition)) or 0
        return RunResult(
            counts=counts,
            requests=requests,
            refused=refused,
            seconds=seconds,
            left=unfinished,
            timed_out=timed_out,
            blocked=blocked,
            not_ruled_out=not_ruled_out,
            warned=warned,
            warnings=warnings,
        )


async def _batches(
    connection: AsyncConnection, profile: str, *conditions: sa.ColumnElement[bool]
) -> frozenset[str]:
    """Return the batches of a profile that have such a job."""
    query = sa.select(jobs.c.batch).where(jobs.c.profile == profile, *conditions).distinct()
    return frozenset((await connection.execute(query)).scalars())

"""Summarize a run: the batches it works on, and the states of their jobs at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_states import LIVING, JobState
from orchestrator.model import NOT_RULED_OUT, NOT_SENT, Halt, Reaction
from orchestrator.store import Database
from orchestrator.store.tables import attempts, jobs


@dataclass(frozen=True, slots=True)
class RunResult:
    """The counts of a run at its end.

    Args:
        counts: jobs by state, of all batches that the run worked on.
        requests: ExportImages requests that this run sent.
        refused: those of them that were refused for rate or capacity.
        seconds: duration of the run.
        left: living jobs that another run may continue.
        blocked: halts that need an operator, each with its code and remedy.
        not_ruled_out: unknown jobs that are not resent automatically.
        warned: jobs with a warning.
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
        living = jobs.c.state.in_(sorted(LIVING))
        async with database.read() as connection:
            started_at = await database.now(connection)
            batches = await _batches(connection, _of_run(profile, batch), living)
        return cls(database, profile, batch, started_at, batches)

    @property
    def has_work(self) -> bool:
        """Whether there was a living job at the start."""
        return bool(self.batches)

    async def living_jobs_of_other_profiles(self) -> dict[str, int]:
        """Count the living jobs that this run does not send, by profile."""
        query = (
            sa.select(jobs.c.profile, sa.func.count())
            .where(jobs.c.state.in_(sorted(LIVING)), jobs.c.profile != self.profile)
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
    ) -> RunResult:
        """Count the jobs by state, and the requests that were sent.

        Args:
            owner: id of the instance that sent the requests; ``None`` if none was sent.
            left: conditions on the jobs table for jobs that another run may continue. No two may
                hold for the same job.
        """
        async with self.database.read() as connection:
            groups = await self._groups(connection)
            requests, refused = await _count_requests(connection, owner)
            # one query each: for conditions joined by OR, SQLite collects all ids in memory
            unfinished = sum([await self._count(connection, condition) for condition in left])
        counts = dict.fromkeys(JobState, 0)
        for group in groups:
            counts[JobState(group.state)] += group.total
        return RunResult(
            counts=counts,
            requests=requests,
            refused=refused,
            seconds=seconds,
            left=unfinished,
            timed_out=timed_out,
            blocked=blocked,
            not_ruled_out=sum(
                group.total
                for group in groups
                if (group.state, group.reason) == (JobState.UNKNOWN, NOT_RULED_OUT)
            ),
            warned=sum(group.warned for group in groups),
        )

    async def _groups(self, connection: AsyncConnection) -> Sequence[Any]:
        """Count the jobs of the run's batches, and those with a warning, by state and reason."""
        query = (
            sa.select(
                jobs.c.state,
                jobs.c.reason,
                sa.func.count().label("total"),
                sa.func.count(jobs.c.warnings).label("warned"),
            )
            .where(
                jobs.c.profile == self.profile,
                jobs.c.batch.in_(await self._touched_batches(connection)),
            )
            .group_by(jobs.c.state, jobs.c.reason)
        )
        return (await connection.execute(query)).all()

    async def _touched_batches(self, connection: AsyncConnection) -> list[str]:
        """Return the batches that have, or have had, a living job during the run."""
        if self.batch is not None:
            return [self.batch]
        touched = jobs.c.state.in_(sorted(LIVING)) | (jobs.c.finished_at >= self.started_at)
        added = await _batches(connection, _of_run(self.profile, None), touched)
        return sorted(self.batches | added)

    async def _count(self, connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> int:
        query = sa.select(sa.func.count()).where(_of_run(self.profile, self.batch), condition)
        return int((await connection.execute(query)).scalar_one())


def _of_run(profile: str, batch: str | None) -> sa.ColumnElement[bool]:
    """Return the condition that a job is of this profile, and of this batch if one is given."""
    of_profile = jobs.c.profile == profile
    return of_profile if batch is None else sa.and_(of_profile, jobs.c.batch == batch)


async def _batches(
    connection: AsyncConnection, *conditions: sa.ColumnElement[bool]
) -> frozenset[str]:
    query = sa.select(jobs.c.batch).where(*conditions).distinct()
    return frozenset((await connection.execute(query)).scalars())


async def _count_requests(connection: AsyncConnection, owner: str | None) -> tuple[int, int]:
    """Count the requests that an instance sent, and those refused for rate or capacity."""
    sent = sa.and_(attempts.c.owner == owner, attempts.c.code.is_distinct_from(NOT_SENT))
    refused = attempts.c.reaction.in_([Reaction.CAPACITY, Reaction.SLOW])
    query = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(sa.case((refused, 1), else_=0)), 0)
    ).where(sent)
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])

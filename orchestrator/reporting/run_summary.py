"""The account of one run: which jobs it was about, and where they stand at its end."""

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


@dataclass(frozen=True, slots=True)
class RunResult:
    """Where the jobs of a run stand at its end.

    Args:
        requests: ExportImages requests that this run sent.
        refused: those of them refused for rate or capacity.
        seconds: how long the run took.
        left: living jobs that running again may bring further.
        blocked: stops that a person has to mend, each with its code and remedy.
        not_ruled_out: unknown jobs that are not sent again by themselves.
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
class Account:
    """What a run is about: every batch that has living jobs when it begins, or gets some.

    Whole batches, so that a run which resumes another reports the whole; not the whole store,
    so that last month's failures do not speak for tonight.
    """

    database: Database
    profile: str
    batch: str | None
    began: datetime
    batches: frozenset[str]

    @classmethod
    async def open(cls, database: Database, profile: str, batch: str | None) -> Self:
        """Takes note of what there is to do."""
        async with database.read() as connection:
            began = await database.now(connection)
            living = await _batches(connection, profile, batch, jobs.c.state.in_(sorted(LIVING)))
        return cls(database, profile, batch, began, living)

    @property
    def has_work(self) -> bool:
        """Whether any job lives."""
        return bool(self.batches)

    async def others(self) -> dict[str, int]:
        """Living jobs of other accounts, which this run leaves alone, by profile."""
        query = (
            sa.select(jobs.c.profile, sa.func.count())
            .where(jobs.c.state.in_(sorted(LIVING)), jobs.c.profile != self.profile)
            .group_by(jobs.c.profile)
        )
        async with self.database.read() as connection:
            return dict((await connection.execute(query)).all())

    async def close(
        self,
        *,
        owner: str | None,
        seconds: float,
        left: Sequence[sa.ColumnElement[bool]] = (),
        timed_out: bool = False,
        blocked: tuple[Halt, ...] = (),
    ) -> RunResult:
        """Counts where the jobs stand, and what was sent.

        Args:
            owner: the instance that sent; ``None`` when nothing was.
            left: jobs that running again may bring further, as conditions on the table of jobs, no
                two of which hold for the same job.
        """
        async with self.database.read() as connection:
            batches = await self._touched_batches(connection)
            counts = await self._counts(connection, batches)
            unknown = (jobs.c.state == JobState.UNKNOWN) & (jobs.c.reason == NOT_RULED_OUT)
            not_ruled_out = await self._count_of(connection, batches, unknown)
            warned = await self._count_of(connection, batches, jobs.c.warnings.is_not(None))
            requests, refused = await _requests(connection, owner)
            # one by one: of a condition with "or" SQLite would keep all that it finds in memory
            unfinished = sum([await self._count(connection, one) for one in left])
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
        )

    async def _touched_batches(self, connection: AsyncConnection) -> list[str]:
        """The batches that this run is about."""
        if self.batch is not None:
            return [self.batch]
        touched = jobs.c.state.in_(sorted(LIVING)) | (jobs.c.finished_at >= self.began)
        return sorted(self.batches | await _batches(connection, self.profile, None, touched))

    async def _count_of(
        self, connection: AsyncConnection, batches: Sequence[str], which: sa.ColumnElement[bool]
    ) -> int:
        query = sa.select(sa.func.count()).where(
            jobs.c.profile == self.profile, jobs.c.batch.in_(batches), which
        )
        return int((await connection.execute(query)).scalar_one())

    async def _counts(
        self, connection: AsyncConnection, batches: Sequence[str]
    ) -> dict[JobState, int]:
        query = (
            sa.select(jobs.c.state, sa.func.count())
            .where(jobs.c.profile == self.profile, jobs.c.batch.in_(batches))
            .group_by(jobs.c.state)
        )
        found: dict[str, int] = dict((await connection.execute(query)).all())
        return {state: found.get(state, 0) for state in JobState}

    async def _count(self, connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> int:
        of_batch = sa.true() if self.batch is None else jobs.c.batch == self.batch
        query = sa.select(sa.func.count()).where(
            jobs.c.profile == self.profile, of_batch, condition
        )
        return int((await connection.execute(query)).scalar_one())


async def _batches(
    connection: AsyncConnection, profile: str, batch: str | None, which: sa.ColumnElement[bool]
) -> frozenset[str]:
    of_batch = sa.true() if batch is None else jobs.c.batch == batch
    query = sa.select(jobs.c.batch).where(jobs.c.profile == profile, of_batch, which).distinct()
    return frozenset((await connection.execute(query)).scalars())


async def _requests(connection: AsyncConnection, owner: str | None) -> tuple[int, int]:
    """Requests that an instance sent, and those of them refused for rate or capacity."""
    sent = sa.and_(attempts.c.owner == owner, attempts.c.code.is_distinct_from(NOT_SENT))
    refused = attempts.c.reaction.in_([Reaction.CAPACITY, Reaction.SLOW])
    query = sa.select(
        sa.func.count(), sa.func.coalesce(sa.func.sum(sa.case((refused, 1), else_=0)), 0)
    ).where(sent)
    row = (await connection.execute(query)).one()
    return int(row[0]), int(row[1])

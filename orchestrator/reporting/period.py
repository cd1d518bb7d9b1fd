"""Between which numbers the jobs of a period lie.

Numbers and times grow together, except where a clock was set back, so no time can be looked for
by halves. But of every thousand jobs in a row the index has the times in order: one step tells
whether any of them is of the period.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_queue.job_filter import matches
from orchestrator.model import JobFilter
from orchestrator.store.tables import BLOCK, jobs


@dataclass(frozen=True, slots=True)
class Span:
    """Numbers of jobs, from the first to before the end."""

    first: int
    end: int

    def __bool__(self) -> bool:
        return self.first < self.end

    def holds(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        """Whether a job's number is one of them."""
        return sa.and_(table.c.id >= self.first, table.c.id < self.end)


async def span_of(connection: AsyncConnection, wanted: JobFilter) -> Span:
    """Numbers between which all jobs lie that a filter's times let through."""
    highest = sa.func.max(jobs.c.id)
    if wanted.since is None and wanted.until is None:
        last = await connection.scalar(sa.select(highest))
        return Span(0, 0 if last is None else last + 1)
    of_period = matches(JobFilter(since=wanted.since, until=wanted.until))
    is_lazy = connection.dialect.name == "sqlite"
    down = _first_block(of_period, _block(highest), -1, 0, is_lazy=is_lazy)
    last = await connection.scalar(down)
    if last is None:
        return Span(0, 0)
    upward = _first_block(of_period, sa.literal(0), 1, last, is_lazy=is_lazy)
    first = (await connection.execute(upward)).scalar_one()
    return Span(first * BLOCK, (last + 1) * BLOCK)


def _first_block(
    of_period: sa.ColumnElement[bool],
    start: sa.ColumnElement[int],
    step: int,
    end: int,
    *,
    is_lazy: bool,
) -> sa.Select[int]:
    """The first block, from the start to the end, in which a job is of the period.

    Args:
        is_lazy: the database makes the blocks one by one, in their order, until one is taken.
    """
    blocks = sa.select(start.label("number")).cte("blocks", recursive=True)
    onward = sa.select(blocks.c.number + step).where(blocks.c.number != end)
    blocks = blocks.union_all(onward)
    touched = sa.exists().where(_block(jobs.c.id) == blocks.c.number, of_period)
    found = sa.select(blocks.c.number).where(touched).limit(1)
    return found if is_lazy else found.order_by(blocks.c.number * step)


def _block(number: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The block of a job, written as in the index: only so it is used."""
    return number.op("/")(sa.literal_column(str(BLOCK)))

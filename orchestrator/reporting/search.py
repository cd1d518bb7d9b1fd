"""What a filter lets through, newest first, page by page, at a cost that hardly grows.

For each page the nearest numbers are looked through one by one; where much matches, that is all.
What is missing is found by the index of what was asked for. So neither a few jobs among very many
nor many that are old make a listing slow, though nobody knows beforehand which it will be.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_queue.job_filter import (
    jobs_named,
    jobs_of_images,
    jobs_of_tasks,
    lets_through,
    on_columns,
)
from orchestrator.model import JobFilter
from orchestrator.reporting.kinds import BATCH, CODE, PLACE, Kinds
from orchestrator.reporting.period import Span, span_of
from orchestrator.store import Database
from orchestrator.store.tables import jobs

_PAGE = 2000
_NEAR, _NEAR_A_ROW = 1000, 4
"""Numbers that are looked through one by one: at least, and for each row that is wanted."""

_NAMES = {"jobs": jobs_named, "images": jobs_of_images, "task_ids": jobs_of_tasks}
"""Fields of a filter that name jobs one by one, and how each leads to their numbers."""

Rows = Sequence[Any]


async def pages(
    database: Database,
    wanted: JobFilter,
    columns: Sequence[sa.ColumnElement[Any]],
    *,
    limit: int | None = None,
) -> AsyncIterator[Rows]:
    """The rows, a page at a time, each on a snapshot of its own: memory stays flat.

    Args:
        columns: what is wanted of the table of jobs; first of all the number.
    """
    left, span = limit, None
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        async with database.read() as connection:
            if span is None:
                span = await span_of(connection, wanted)
            page = await _page(connection, wanted, columns, span, size)
        yield page
        if len(page) < size:
            return
        span = replace(span, end=page[-1][0])
        left = None if left is None else left - size


async def _page(
    connection: AsyncConnection,
    wanted: JobFilter,
    columns: Sequence[sa.ColumnElement[Any]],
    span: Span,
    size: int,
) -> Rows:
    rows: list[Any] = []
    query = sa.select(*columns).order_by(jobs.c.id.desc())
    if near := _near(wanted, span, size):
        matching = query.where(near.holds(jobs), lets_through(wanted)).limit(size)
        rows += (await connection.execute(matching)).all()
    far = replace(span, end=near.first)
    if far and len(rows) < size:
        walks = connection.dialect.name == "sqlite"
        found = _by_index(wanted, far, size - len(rows), walks=walks)
        rows += (await connection.execute(query.where(jobs.c.id.in_(found)))).all()
    return rows


def _near(wanted: JobFilter, span: Span, size: int) -> Span:
    """The numbers that are looked through one by one."""
    if _exact_name(wanted) is not None:
        return Span(span.end, span.end)
    if replace(wanted, since=None, until=None) == JobFilter():
        return span
    return replace(span, first=max(span.first, span.end - max(_NEAR, _NEAR_A_ROW * size)))


def _exact_name(wanted: JobFilter) -> str | None:
    """The field, if there is one, that names single jobs and has no pattern."""
    for field in _NAMES:
        values = getattr(wanted, field)
        if values and not any("*" in value for value in values):
            return field
    return None


def _by_index(wanted: JobFilter, span: Span, size: int, *, walks: bool) -> sa.Select[int]:
    """Numbers of the newest jobs in a span, by the index of what is likely to tell most.

    Args:
        walks: the database leaves off when it has enough of a list of numbers in their order.
    """
    name = _exact_name(wanted)
    if name is None and (kinds := _kinds(wanted)) is not None:
        index, part, leads = kinds
        return index.newest(
            leads,
            lambda table: on_columns(part, table),
            lambda table: sa.and_(span.holds(table), lets_through(wanted, table)),
            size,
        )
    name = name or next(field for field in _NAMES if getattr(wanted, field))
    unnamed: dict[str, Any] = {name: ()}
    others = lets_through(replace(wanted, **unnamed))
    found = jobs.c.id.in_(_NAMES[name](getattr(wanted, name)))
    query = sa.select(jobs.c.id).where(found, span.holds(jobs), others)
    # PostgreSQL would look through all jobs in this order, expecting to meet the first ones soon
    order = jobs.c.id if walks else jobs.c.id + 0
    return query.order_by(order.desc()).limit(size)


def _kinds(wanted: JobFilter) -> tuple[Kinds, JobFilter, tuple[str, ...]] | None:
    """The index of kinds, what is asked of its columns, and of the first of them beforehand."""
    if wanted.codes:
        return CODE, JobFilter(codes=wanted.codes), ()
    if wanted.batches:
        return BATCH, JobFilter(batches=wanted.batches, states=wanted.states), wanted.batches
    place = JobFilter(regions=wanted.regions, buckets=wanted.buckets, states=wanted.states)
    return None if place == JobFilter() else (PLACE, place, ())

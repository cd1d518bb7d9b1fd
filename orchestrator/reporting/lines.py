"""Jobs as JSON that the database itself writes: of a million, Python touches only whole pages."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.model import JobFilter
from orchestrator.reporting.search import pages
from orchestrator.store import Database
from orchestrator.store.tables import UtcDateTime, jobs, objects


async def lines(
    database: Database, wanted: JobFilter, fields: Sequence[str], *, limit: int | None = None
) -> AsyncIterator[str]:
    """Jobs that a filter lets through, newest first, as JSON Lines: a text for each page.

    Args:
        fields: of a `Job`, in the order in which each line has them.
    """
    columns = (jobs.c.id, _line(fields, sqlite=database.is_sqlite))
    async for page in pages(database, wanted, columns, limit=limit):
        yield "".join([f"{line}\n" for _, line in page])


def cos_paths(*, sqlite: bool) -> sa.ColumnElement[Any]:
    """The paths that the vendor told of a job, in the order of their keys, as a JSON array."""
    paths = (
        sa.select(objects.c.cos_path)
        .where(objects.c.job_id == jobs.c.id, objects.c.cos_path.is_not(None))
        .order_by(objects.c.key)
        .correlate(jobs)
        .subquery()
    )
    array = (
        sa.func.json_group_array(paths.c.cos_path)
        if sqlite
        else sa.func.coalesce(sa.func.json_agg(paths.c.cos_path), sa.literal_column("'[]'"))
    )
    return sa.select(array).scalar_subquery()


def _line(fields: Sequence[str], *, sqlite: bool) -> sa.ColumnElement[str]:
    """A job as one JSON object."""
    members: list[sa.ColumnElement[Any]] = []
    for name in fields:
        members += [sa.literal_column(f"'{name}'"), _value(name, sqlite=sqlite)]
    write = sa.func.json_object if sqlite else sa.func.json_build_object
    return sa.cast(write(*members), sa.Text)


def _value(name: str, *, sqlite: bool) -> sa.ColumnElement[Any]:
    """One field of a job, as JSON has it."""
    match name:
        case "attempts":
            return jobs.c.attempts_charged
        case "cos_paths":
            return cos_paths(sqlite=sqlite)
        case "image_ids" | "task_id":  # a JSON text, and a number too large for SQLite
            return sa.func.json(jobs.c[name]) if sqlite else sa.cast(jobs.c[name], sa.JSON)
        case _ if not isinstance(jobs.c[name].type, UtcDateTime):
            return jobs.c[name]
        case _ if sqlite:
            day = sa.func.substr(jobs.c[name], 1, 10, type_=sa.Text)
            return day + "T" + sa.func.substr(jobs.c[name], 12, 12, type_=sa.Text) + "Z"
        case _:
            utc = sa.func.timezone("UTC", jobs.c[name])
            return sa.func.to_char(utc, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')

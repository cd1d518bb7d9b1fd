"""A filter of jobs as a condition on the table of jobs."""

import sqlalchemy as sa

from orchestrator.errors import UsageError
from orchestrator.model import JobFilter
from orchestrator.store.tables import job_images, jobs


def matches(wanted: JobFilter) -> sa.ColumnElement[bool]:
    """The jobs that a filter lets through; an empty one lets all."""
    conditions = [on_columns(wanted, jobs)]
    if wanted.images:
        conditions.append(jobs.c.id.in_(jobs_of_images(wanted.images)))
    return sa.and_(*conditions)


def lets_through(wanted: JobFilter, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
    """The same for rows that are found otherwise."""
    conditions = [on_columns(wanted, table)]
    if wanted.images:
        named = any_of(job_images.c.image_id, wanted.images)
        conditions.append(sa.exists().where(job_images.c.job_id == table.c.id, named))
    return one_by_one(*conditions)


def one_by_one(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """All the conditions, put as a case so that no database goes by an index of theirs."""
    return sa.case((sa.and_(*conditions), sa.true()), else_=sa.false())


def jobs_named(names: tuple[str, ...]) -> sa.Select[int]:
    """Numbers of the jobs with one of these numbers or tags."""
    return sa.select(jobs.c.id).where(is_named(names))


def jobs_of_images(images: tuple[str, ...]) -> sa.Select[int]:
    """Numbers of the jobs that export one of these images."""
    return sa.select(job_images.c.job_id).where(any_of(job_images.c.image_id, images))


def jobs_of_tasks(task_ids: tuple[str, ...]) -> sa.Select[int]:
    """Numbers of the jobs with one of these TaskIds."""
    return sa.select(jobs.c.id).where(any_of(jobs.c.task_id, task_ids))


def is_named(names: tuple[str, ...], table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
    """Jobs by number, or by the tag in their objects' names."""
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 19]
    by_tag = any_of(table.c.tag, names)
    return sa.or_(table.c.id.in_(numbers), by_tag) if numbers else by_tag


def on_columns(wanted: JobFilter, table: sa.FromClause) -> sa.ColumnElement[bool]:
    """All that the row of a job itself tells."""
    conditions = [
        any_of(table.c.batch, wanted.batches),
        any_of(table.c.state, wanted.states),
        any_of(table.c.region, wanted.regions),
        any_of(table.c.bucket, wanted.buckets),
        any_of(table.c.task_id, wanted.task_ids),
        any_of(table.c.code, wanted.codes),
    ]
    if wanted.jobs:
        conditions.append(is_named(wanted.jobs, table))
    if wanted.since is not None:
        conditions.append(table.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(table.c.created_at < wanted.until)
    return sa.and_(sa.true(), *conditions)


def any_of(column: sa.ColumnElement[str], values: tuple[str, ...]) -> sa.ColumnElement[bool]:
    """Whether the column is one of the values, in which ``*`` stands for anything."""
    if not values:
        return sa.true()
    for value in values:
        if not value.isprintable():
            raise UsageError(f"{value!r} names nothing that is kept.", "Write it in plain text.")
    plain = [value for value in values if "*" not in value]
    patterns = [column.like(_like(value), escape="\\") for value in values if "*" in value]
    # an empty list beside a pattern would keep both databases from the index
    return sa.or_(*([column.in_(plain)] if plain else []), *patterns)


def _like(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")

"""A filter of jobs as a condition on the table of jobs."""

import sqlalchemy as sa

from orchestrator.errors import UsageError
from orchestrator.model import JobFilter
from orchestrator.tables import job_images, jobs


def matches(wanted: JobFilter) -> sa.ColumnElement[bool]:
    """The jobs that a filter lets through; an empty one lets all."""
    conditions = [
        _any_of(jobs.c.batch, wanted.batches),
        _any_of(jobs.c.state, wanted.states),
        _any_of(jobs.c.region, wanted.regions),
        _any_of(jobs.c.bucket, wanted.buckets),
        _any_of(jobs.c.task_id, wanted.task_ids),
        _any_of(jobs.c.code, wanted.codes),
    ]
    if wanted.images:
        exports = sa.select(job_images.c.job_id).where(
            _any_of(job_images.c.image_id, wanted.images)
        )
        conditions.append(jobs.c.id.in_(exports))
    if wanted.jobs:
        conditions.append(is_named(wanted.jobs))
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(jobs.c.created_at < wanted.until)
    return sa.and_(sa.true(), *conditions)


def is_named(names: tuple[str, ...]) -> sa.ColumnElement[bool]:
    """Jobs by number, or by the tag in their objects' names."""
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 19]
    return sa.or_(jobs.c.id.in_(numbers), _any_of(jobs.c.tag, names))


def _any_of(column: sa.ColumnElement[str], values: tuple[str, ...]) -> sa.ColumnElement[bool]:
    """Whether the column is one of the values, in which ``*`` stands for anything."""
    if not values:
        return sa.true()
    for value in values:
        if not value.isprintable():
            raise UsageError(f"{value!r} names nothing that is kept.", "Write it in plain text.")
    plain = [value for value in values if "*" not in value]
    patterns = [_like(value) for value in values if "*" in value]
    return sa.or_(column.in_(plain), *(column.like(text, escape="\\") for text in patterns))


def _like(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")

"""Translate a job filter into SQL conditions on the jobs table."""

import difflib
import shlex
from collections.abc import Sequence

import sqlalchemy as sa

from orchestrator.errors import UsageError
from orchestrator.model import JobFilter
from orchestrator.store import Database
from orchestrator.store.tables import attempts, job_images, jobs

_MAX_ID_DIGITS = 18
"""A number with more digits may not fit into a 64-bit id, and is looked up as a tag only."""


def matches(wanted: JobFilter) -> sa.ColumnElement[bool]:
    """Return the condition that a job matches the filter.

    An empty filter matches every job.

    Raises:
        UsageError: a value cannot be stored text.
    """
    # Ids, tags and images select few jobs, by their indexes. Each other condition may hold for most
    # of the jobs, so it is tested row by row, and a page of the history ends when it is full. No
    # index fits an expression: SQLite has no statistics here, so for a plain ``state`` it would
    # search the index of states, and read and sort all jobs of the state to return the newest few.
    by_row = {
        jobs.c.batch: wanted.batches,
        jobs.c.state: wanted.states,
        jobs.c.region: wanted.regions,
        jobs.c.bucket: wanted.buckets,
        jobs.c.code: wanted.codes,
    }
    conditions = [_matches_any(column.concat(""), values) for column, values in by_row.items()]
    if wanted.task_ids:
        conditions.append(_has_task_id(wanted.task_ids))
    if wanted.images:
        named = _matches_any(job_images.c.image_id, wanted.images)
        conditions.append(jobs.c.id.in_(sa.select(job_images.c.job_id).where(named)))
    if wanted.jobs:
        conditions.append(is_named(wanted.jobs))
    if wanted.since is not None:
        conditions.append(jobs.c.created_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(jobs.c.created_at < wanted.until)
    return sa.and_(*conditions)


def _has_task_id(values: Sequence[str]) -> sa.ColumnElement[bool]:
    """Return the condition that any attempt of a job has one of these TaskIds.

    The job itself has the last one. Others are looked up only for jobs that may have any.
    """
    others = sa.exists().where(
        attempts.c.job_id == jobs.c.id, _matches_any(attempts.c.task_id, values)
    )
    may_have_others = (jobs.c.attempt > 1) | ((jobs.c.attempt == 1) & jobs.c.task_id.is_(None))
    return _matches_any(jobs.c.task_id.concat(""), values) | (may_have_others & others)


def is_named(names: Sequence[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a job's id or tag is one of these names."""
    numbers = [name for name in names if name.isascii() and name.isdigit()]
    ids = [int(name) for name in numbers if len(name) <= _MAX_ID_DIGITS]
    by_tag = _matches_any(jobs.c.tag, names)
    return sa.or_(jobs.c.id.in_(ids), by_tag) if ids else by_tag


def check_printable(text: str, kind: str) -> None:
    """Refuse text that cannot be stored or shown.

    Bytes that are not UTF-8 become such text.

    Raises:
        UsageError: the message names the kind of text.
    """
    if not text.isprintable():
        raise UsageError(
            f"{text!r} is not a valid {kind}: it has a control character.",
            "Remove the character.",
        )


async def require_batch(database: Database, name: str, *, profile: str | None = None) -> None:
    """Refuse the name of a batch that has no job.

    Args:
        profile: the job must be of this profile.

    Raises:
        UsageError: the remedy names the profiles that have the batch, or the nearest batch.
    """
    check_printable(name, "batch name")
    async with database.read() as connection:
        query = sa.select(jobs.c.profile).where(jobs.c.batch == name).distinct()
        profiles = (await connection.scalars(query.order_by(jobs.c.profile))).all()
        names = (
            [] if profiles else (await connection.scalars(sa.select(jobs.c.batch).distinct())).all()
        )
    if profile in profiles or (profiles and profile is None):
        return
    if profiles:
        raise UsageError(
            f"Batch {name!r} has no job of profile {profile!r}.",
            f"Use {' or '.join(f'--profile {shlex.quote(one)}' for one in profiles)}.",
        )
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    remedy = f"The nearest is {near[0]!r}." if near else "The database has no jobs."
    if "*" in name:
        remedy = f"Give one exact name: * is a wildcard only in filters, as of history. {remedy}"
    raise UsageError(f"No job has batch {name!r}.", remedy)


def _matches_any(column: sa.ColumnElement[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the column is one of the values.

    ``*`` in a value is a wildcard. Without values the condition is always true.
    """
    if not values:
        return sa.true()
    for value in values:
        check_printable(value, "filter value")
    plain = [value for value in values if "*" not in value]
    # in a LIKE pattern % and _ are wildcards, too
    escapes = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_", "*": "%"})
    patterns = (value.translate(escapes) for value in values if "*" in value)
    # an empty IN list beside a pattern would keep both databases from using the index
    return sa.or_(
        *([column.in_(plain)] if plain else []),
        *(column.like(pattern, escape="\\") for pattern in patterns),
    )

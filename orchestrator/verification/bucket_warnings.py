"""Warn of buckets: of exports that are overdue there, and of look-ups that fail."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.export_durations import latest_finished_exports
from orchestrator.job_states import JobState
from orchestrator.model import bucket_location
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import Database
from orchestrator.store.tables import TRACED, jobs
from orchestrator.verification.bucket_access import BucketAccess

_NO_TRACE_AFTER = timedelta(minutes=2)
"""Minimum age of an export without a trace, and of any that is overdue, at which users are warned.
"""

_OVERDUE_FACTOR = 3
"""An export is overdue after this many times the longest of the last exports of its region."""

_OVERDUE_AFTER = timedelta(hours=1)
"""The same as an age, before any export has finished there."""


class BucketWarnings:
    """Checks the oldest accepted export of each bucket that this run can read.

    The user has been notified already if a bucket cannot be read. Here that is stored, so that
    ``status`` can show it.
    """

    def __init__(
        self, database: Database, profile: str, buckets: BucketAccess, warnings: RunWarnings
    ) -> None:
        self._database = database
        self._profile = profile
        self._buckets = buckets
        self._warnings = warnings

    async def check(self) -> None:
        """Warn of each bucket with a problem; end the warnings of the others."""
        overdue: dict[str, str] = {}
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            for row in await connection.execute(_OLDEST, {"profile": self._profile}):
                bucket = bucket_location(row.region, row.bucket)
                is_readable = self._buckets.was_readable(row.region, row.bucket)
                if bucket in self._buckets.problems or not is_readable:
                    continue
                if (problem := await self._overdue(connection, row, now)) is not None:
                    overdue[bucket] = f"{bucket}: {problem}"
        await self._warnings.replace("exports to", overdue)
        await self._warnings.replace("look-ups in", self._buckets.problems, is_notified=True)

    async def _overdue(self, connection: AsyncConnection, row: Any, now: datetime) -> str | None:
        """Return what is wrong with the exports to a bucket, judged by the oldest one."""
        age = now - row.accepted_at
        if age < _NO_TRACE_AFTER:
            return None
        task = "" if row.task_id is None else f", task {row.task_id}"
        oldest = f"job {row.id} ({', '.join(row.image_ids)}{task})"
        what_to_do = (
            f"Action required: check in the console whether the export of {oldest} runs, and "
            "where its files are."
        )
        minutes = f"{age // timedelta(minutes=1)} min after the first was accepted"
        here = (jobs.c.profile == self._profile) & (jobs.c.region == row.region)
        here &= jobs.c.bucket == row.bucket
        traced = sa.select(jobs.c.id).where(sa.text(TRACED), here).limit(1)
        # an exact name has no tag, and what was found without an answer is a trace itself
        leaves_traces = not row.exact_names and row.task_id is not None
        if leaves_traces and await connection.scalar(traced) is None:
            return (
                f"none of {row.total} accepted exports has left an upload or an object, "
                f"{minutes}. "
                "It is assumed that the service begins late or hides uploads, so the bucket is "
                f"looked into until the deadline. {what_to_do}"
            )
        finished = await latest_finished_exports(connection, self._profile, row.region, now)
        longest = max((one.seen_after for one in finished), default=None)
        if age < (_OVERDUE_AFTER if longest is None else _OVERDUE_FACTOR * longest):
            return None
        usual = "none has finished yet"
        if longest is not None:
            usual = f"others took at most {longest.total_seconds():.0f} s"
        return (
            f"an export is not finished, {minutes}; {usual}. It is assumed that it still runs, so "
            f"the bucket is looked into until the deadline. {what_to_do}"
        )


_BUCKET = (jobs.c.region, jobs.c.bucket)
_ACCEPTED = (
    sa.select(
        *(jobs.c.id, jobs.c.region, jobs.c.bucket, jobs.c.image_ids, jobs.c.task_id),
        *(jobs.c.exact_names, jobs.c.accepted_at),
        sa.func.count().over(partition_by=_BUCKET).label("total"),
        sa.func.row_number()
        .over(partition_by=_BUCKET, order_by=jobs.c.accepted_at)
        .label("position"),
    )
    .where(jobs.c.state == JobState.ACCEPTED, jobs.c.profile == sa.bindparam("profile"))
    .subquery()
)
_OLDEST = sa.select(_ACCEPTED).where(_ACCEPTED.c.position == 1)

"""Which jobs a run may send, which it follows to their end, and whether any work is left.

Every question "may this job move, and if not, why" is answered here, as a condition on the table
of jobs: claims, the description of images, the end of a run and its summary use the same ones.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from orchestrator.job_queue.claim import claim_query
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.resend_policy import left_to_operator


@dataclass(frozen=True, slots=True)
class Eligibility:
    """Conditions on the table of jobs; they reflect the halts and unreadable buckets of now.

    Args:
        settings: names the profile whose jobs these are.
        batch: only jobs of this batch; ``None`` is all.
        blocked_regions: returns the regions whose endpoint is halted.
    """

    database: Database
    admission: Admission
    buckets: BucketAccess
    settings: Settings
    batch: str | None
    blocked_regions: Callable[[], list[str]]

    def of_this_run(self) -> sa.ColumnElement[bool]:
        """Jobs that this run works on."""
        of_batch = sa.true() if self.batch is None else jobs.c.batch == self.batch
        return (jobs.c.profile == self.settings.profile) & of_batch

    def sendable(self) -> sa.ColumnElement[bool]:
        """Jobs of this run that no halt blocks."""
        is_reachable = jobs.c.region.not_in(self.blocked_regions())
        return self.of_this_run() & self.admission.halts.permitted_jobs() & is_reachable

    def followed(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Accepted and unknown jobs whose end this run will see in the bucket."""
        if not self.admission.may_read_buckets:
            return sa.false()
        return self.buckets.readable(table) & ~self._left_to_operator(table)

    def claim_query(self) -> sa.Select[Any]:
        """Return the query for the next jobs to send."""
        return claim_query(self.sendable(), self.followed)

    def unfinished(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Jobs that another run may continue: one condition per group of states."""
        waiting = jobs.c.state.in_([JobState.QUEUED, JobState.SENDING])
        exporting = (jobs.c.state == JobState.ACCEPTED) & ~self.buckets.unverifiable()
        is_unknown = jobs.c.state == JobState.UNKNOWN
        unknown = is_unknown & self.buckets.readable() & ~self._left_to_operator(jobs)
        return tuple(self.of_this_run() & one for one in (waiting, exporting, unknown))

    async def has_remaining_work(self, within: float | None = None) -> bool:
        """Return whether any job of this run can still move.

        Args:
            within: seconds; jobs that are due later do not count. ``None`` is no limit.
        """
        async with self.database.read() as connection:
            queued = self.sendable() & (jobs.c.state == JobState.QUEUED)
            if within is not None:
                latest = await self.database.now(connection) + timedelta(seconds=within)
                queued &= jobs.c.due_at <= latest
            in_flight = self.of_this_run() & (jobs.c.state == JobState.SENDING)
            accepted_or_unknown = jobs.c.state.in_([JobState.UNKNOWN, JobState.ACCEPTED])
            followed = self.of_this_run() & self.followed() & accepted_or_unknown
            found = sa.or_(*(sa.exists().where(one) for one in (in_flight, queued, followed)))
            return bool(await connection.scalar(sa.select(found)))

    def _left_to_operator(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        return left_to_operator(self.settings, self.database.clock.now, table)

"""Which jobs a run may send, which it follows to their end, and whether any work is left.

Every question "may this job move, and if not, why" is answered here, as a condition on the table
of jobs: claims, the description of images, the end of a run and its summary use the same ones.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.job_queue.claim import claim_query, in_order_of_probes
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import UtcDateTime, any_current, jobs
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.unknown_jobs import left_to_operator


class Eligibility:
    """Conditions on the table of jobs, built once for a run.

    Each execution reflects the halts and the unreadable buckets of its time.

    Args:
        settings: names the profile whose jobs these are.
        batch: only jobs of this batch; ``None`` is all.
        blocked_regions: returns the regions whose endpoint is halted.

    Attributes:
        sendable: jobs of this run that no halt blocks.
        claim_query: the query for the next jobs to send.
        probe_query: the same for the next probe of a suspected scope.
    """

    def __init__(
        self,
        database: Database,
        admission: Admission,
        buckets: BucketAccess,
        settings: Settings,
        *,
        batch: str | None,
        blocked_regions: Callable[[], list[str]],
    ) -> None:
        self._database = database
        self._admission = admission
        self._buckets = buckets
        self._settings = settings
        of_batch = sa.true() if batch is None else jobs.c.batch == batch
        self._of_this_run = (jobs.c.profile == settings.profile) & of_batch
        is_reachable = jobs.c.region.not_in(any_current(blocked_regions))
        self.sendable = self._of_this_run & admission.halts.permitted_jobs() & is_reachable
        suspected = admission.suspected_scopes.suspected_jobs()
        due = admission.suspected_scopes.jobs_due_as_probes()
        self.claim_query = claim_query(self.sendable & ~suspected, self._is_tracked)
        self.probe_query = in_order_of_probes(claim_query(self.sendable & due, self._is_tracked))
        self._remaining_work = self._any_remaining_work()

    def unfinished(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Jobs that another run may continue: one condition per group of states."""
        waiting = jobs.c.state.in_([JobState.QUEUED, JobState.SENDING])
        exporting = (jobs.c.state == JobState.ACCEPTED) & ~self._buckets.unverifiable()
        is_unknown = jobs.c.state == JobState.UNKNOWN
        unknown = is_unknown & self._buckets.readable() & ~self._left_to_operator(jobs)
        return tuple(self._of_this_run & one for one in (waiting, exporting, unknown))

    async def has_remaining_work(self, connection: AsyncConnection, latest: datetime) -> bool:
        """Return whether any job of this run can still move.

        Args:
            latest: jobs that are due later do not count.
        """
        return bool(await connection.scalar(self._remaining_work, {"latest": latest}))

    def _any_remaining_work(self) -> sa.Select[Any]:
        is_due = jobs.c.due_at <= sa.bindparam("latest", type_=UtcDateTime)
        queued = self.sendable & (jobs.c.state == JobState.QUEUED) & is_due
        in_flight = self._of_this_run & (jobs.c.state == JobState.SENDING)
        accepted_or_unknown = jobs.c.state.in_([JobState.UNKNOWN, JobState.ACCEPTED])
        tracked = self._of_this_run & self._is_tracked(jobs) & accepted_or_unknown
        return sa.select(sa.or_(*(sa.exists().where(one) for one in (in_flight, queued, tracked))))

    def _is_tracked(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        """Accepted and unknown jobs whose end this run will see in the bucket."""
        may_read = sa.bindparam(
            None, callable_=lambda: self._admission.may_read_buckets, type_=sa.Boolean
        )
        is_due_later = table.c.due_at > self._database.now_in_query()
        is_left = self._left_to_operator(table) & is_due_later
        return may_read & self._buckets.readable(table) & ~is_left

    def _left_to_operator(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        unlisted = self._buckets.unlisted_buckets
        return left_to_operator(self._settings, self._database.now_in_query, unlisted, table)

"""Which jobs a run may send, which it follows to their end, and whether any work is left.

Every question "may this job move, and if not, why" is answered here, as a condition on the table
of jobs: claims, the description of images, the end of a run and its summary use the same ones.
"""

from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa

from orchestrator.job_queue.claim import ClaimQuery, claim_query
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.resend_policy import left_to_operator


class Eligibility:
    """Conditions on the table of jobs; they reflect the halts and unreadable buckets of now.

    Args:
        settings: only jobs of this profile.
        batch: only jobs of this batch; ``None`` is all.
        blocked_regions: returns the regions whose endpoint is halted.
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
        self._batch = batch
        self._blocked_regions = blocked_regions
        self._query: ClaimQuery | None = None
        self._query_conditions: object = None

    def of_this_run(self) -> sa.ColumnElement[bool]:
        """Jobs that this run works on."""
        of_batch = sa.true() if self._batch is None else jobs.c.batch == self._batch
        return (jobs.c.profile == self._settings.profile) & of_batch

    def sendable(self) -> sa.ColumnElement[bool]:
        """Jobs of this run that no halt blocks."""
        is_reachable = jobs.c.region.not_in(self._blocked_regions())
        return self.of_this_run() & self._admission.halts.permitted_jobs() & is_reachable

    def followed(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Accepted and unknown jobs whose end this run will see in the bucket."""
        if not self._admission.may_read_buckets:
            return sa.false()
        return self._buckets.readable(table) & ~self._left_to_operator(table)

    def claim_query(self) -> ClaimQuery:
        """Return the query for the next jobs to send.

        It is built again only when its conditions change: building takes longer than running it.
        """
        conditions = (
            tuple(self._admission.halts.active),
            tuple(self._blocked_regions()),
            self._admission.may_read_buckets,
            tuple(self._buckets.unreadable_buckets()),
        )
        if self._query is None or self._query_conditions != conditions:
            self._query_conditions = conditions
            self._query = claim_query(self._settings.profile, self.sendable(), self.followed)
        return self._query

    def unfinished(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Jobs that another run may continue: one condition per group of states."""
        waiting = jobs.c.state.in_([JobState.QUEUED, JobState.SENDING])
        exporting = (jobs.c.state == JobState.ACCEPTED) & ~self._buckets.unverifiable()
        is_unknown = jobs.c.state == JobState.UNKNOWN
        unknown = is_unknown & self._buckets.readable() & ~self._left_to_operator(jobs)
        return tuple(self.of_this_run() & one for one in (waiting, exporting, unknown))

    async def has_remaining_work(self, within: float | None = None) -> bool:
        """Return whether any job of this run can still move.

        Args:
            within: seconds; jobs that are due later do not count. ``None`` is no limit.
        """
        async with self._database.read() as connection:
            queued = self.sendable() & (jobs.c.state == JobState.QUEUED)
            if within is not None:
                latest = await self._database.now(connection) + timedelta(seconds=within)
                queued &= jobs.c.due_at <= latest
            in_flight = self.of_this_run() & (jobs.c.state == JobState.SENDING)
            accepted_or_unknown = jobs.c.state.in_([JobState.UNKNOWN, JobState.ACCEPTED])
            followed = self.of_this_run() & self.followed() & accepted_or_unknown
            for condition in (in_flight, queued, followed):
                query = sa.select(sa.literal(1)).select_from(jobs).where(condition).limit(1)
                if (await connection.execute(query)).first() is not None:
                    return True
        return False

    def _left_to_operator(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        return left_to_operator(self._settings, self._database.clock.now, table)

"""Which jobs a run is about: those it may send, those whose end it will see, those it leaves."""

from collections.abc import Mapping

import sqlalchemy as sa

from orchestrator.clock import Clock
from orchestrator.job_queue.claim import ClaimQuery, wanted
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_permissions import BucketPermissions
from orchestrator.verification.resend_policy import ResolvePolicy, left_to_operator


class Eligibility:
    """Conditions on the table of jobs, as they are at the moment.

    Args:
        batch: only this one; ``None`` is all.
        regions: of each endpoint that is known so far.
        clock: the store's.
    """

    def __init__(
        self,
        *,
        profile: str,
        batch: str | None,
        admission: Admission,
        permissions: BucketPermissions,
        policy: ResolvePolicy,
        regions: Mapping[str, list[str]],
        clock: Clock,
    ) -> None:
        self._profile = profile
        self._batch = batch
        self._admission = admission
        self._permissions = permissions
        self._policy = policy
        self._regions = regions
        self._clock = clock
        self._wanted: ClaimQuery | None = None
        self._wanted_under: object = None

    def mine(self) -> sa.ColumnElement[bool]:
        """The jobs of this run."""
        of_batch = sa.true() if self._batch is None else jobs.c.batch == self._batch
        return (jobs.c.profile == self._profile) & of_batch

    def permitted(self) -> sa.ColumnElement[bool]:
        """Those that no stop holds up."""
        reachable = jobs.c.region.not_in(self._held())
        return self.mine() & self._admission.halts.permitted_jobs() & reachable

    def wanted(self) -> ClaimQuery:
        """What a claim may take: the same object for as long as the same may be taken."""
        stops = tuple(self._admission.halts.active), tuple(self._held())
        hidden = self._admission.may_read_buckets, tuple(self._permissions.unreadable_buckets())
        if self._wanted is None or self._wanted_under != (stops, hidden):
            self._wanted_under = stops, hidden
            self._wanted = wanted(self._profile, self.permitted(), self.watched)
        return self._wanted

    def watched(self, table: sa.FromClause = jobs) -> sa.ColumnElement[bool]:
        """Accepted and unknown jobs whose end this run will see."""
        if not self._admission.may_read_buckets:
            return sa.false()
        return self._permissions.readable(table) & ~self._given_up(table)

    def unfinished(self) -> tuple[sa.ColumnElement[bool], ...]:
        """Those that running again may bring further, a condition for each of their states."""
        waiting = jobs.c.state.in_([JobState.QUEUED, JobState.SENDING])
        exporting = (jobs.c.state == JobState.ACCEPTED) & ~self._permissions.unverifiable()
        unknown = jobs.c.state == JobState.UNKNOWN
        in_doubt = unknown & self._permissions.readable() & ~self._given_up(jobs)
        return tuple(self.mine() & one for one in (waiting, exporting, in_doubt))

    def _given_up(self, table: sa.FromClause) -> sa.ColumnElement[bool]:
        return left_to_operator(self._policy, self._clock.now, table)

    def _held(self) -> list[str]:
        """Regions of endpoints to which nothing can be sent."""
        stops = self._admission.halts
        held = [regions for host, regions in self._regions.items() if stops.blocks_endpoint(host)]
        return sorted(set().union(*held))

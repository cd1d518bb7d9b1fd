"""One attempt of one job: from its claim to the record of its outcome."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import anyio
import sqlalchemy as sa

from orchestrator.cloud.credentials.base import Credential
from orchestrator.job_states import JobState
from orchestrator.limits.admission import EXPORT
from orchestrator.limits.halted_scopes import scope_values_of
from orchestrator.limits.rate_limiter import Permit, RateLimiter
from orchestrator.model import NOT_SENT, Lease, Outcome, Reaction
from orchestrator.store import BusyRetry, GroupCommit
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.worker.outcome_policy import contradicts_description, decide
from orchestrator.worker.outcome_recorder import AttemptResult, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.run_context import RunContext
from orchestrator.worker.send import NOT_SENT_AT_CAPACITY, NOT_SENT_FOR_NOW, submit


@dataclass(frozen=True, slots=True)
class Attempt:
    """A claimed job with everything that its request needs.

    Args:
        host: host name of the endpoint.
        claimed_at: time of the claim, on the event loop's clock.
    """

    host: str
    lease: Lease
    credential: Credential
    permit: Permit
    rate_limiter: RateLimiter
    claimed_at: float


class AttemptRunner:
    """Send claimed jobs and record their outcomes.

    Args:
        is_stopping: returns whether the run is ending, so that no more requests may be sent.
    """

    def __init__(
        self,
        context: RunContext,
        buckets: BucketAccess,
        busy_retry: BusyRetry,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.in_flight = anyio.Semaphore(context.settings.concurrency, fast_acquire=True)
        """One slot for each request: acquired before the claim, released when the request has
        ended."""
        self.unrecorded: set[tuple[int, int]] = set()
        """Job id and number of each claimed attempt whose outcome is not in the store yet."""
        self._context = context
        self._buckets = buckets
        self._busy_retry = busy_retry
        self._is_stopping = is_stopping
        keep = partial(record, context.database, export_deadline=context.settings.export_deadline)
        self._results = GroupCommit[AttemptResult, bool](keep)
        self._last_capacity_refusals: dict[str, float] = {}
        """Per region, the time of the last refusal for capacity, on the event loop's clock."""

    async def run(self, attempt: Attempt) -> bool:
        """Check, send and record one attempt; return whether the export was accepted."""
        host, lease, admission = attempt.host, attempt.lease, self._context.admission
        try:
            outcome = await self._check_and_send(attempt)
        finally:
            self.in_flight.release()
        if outcome is None or outcome.code.name == NOT_SENT:
            admission.release(host, lease)
        if outcome is None:  # the check has already recorded what there was to record
            self.unrecorded.discard((lease.job_id, lease.attempt))
            return False
        region = lease.order.region
        if not contradicts_description(lease, outcome):
            outcome = admission.region_waits.reconsider(
                region, lease.job_id, outcome, is_probe=lease.probe
            )
        decision = decide(
            lease,
            outcome,
            jitter=random.random(),  # noqa: S311 - spreads load
            endpoint_fails=admission.excuses_lost_answer(host, lease.deferrals),
        )
        suspects_region = outcome.code.reaction is Reaction.SUSPECT_REGION
        is_full = outcome.code.reaction is Reaction.CAPACITY and outcome is not NOT_SENT_AT_CAPACITY
        if suspects_region or is_full:
            self._last_capacity_refusals[region] = anyio.current_time()
        await admission.record_outcome(
            EXPORT,
            host,
            outcome,
            scope_values=scope_values_of(lease.order),
            asked_at=attempt.claimed_at,
            credential=attempt.credential,
            job_id=lease.job_id,
        )
        # what a suspected region lacks may not be freed by our own exports
        is_end_visible = not suspects_region and self._buckets.is_proven_readable(
            region, lease.order.bucket
        )
        result = AttemptResult(lease, outcome, decision, attempt.rate_limiter, is_end_visible)
        await self._busy_retry.retry_or_report(
            partial(self._results.add, result), failure_message=_not_recorded(lease, outcome)
        )
        self.unrecorded.discard((lease.job_id, lease.attempt))
        # warnings are written last: nothing may lose the TaskId of an answer
        are_ends_visible = not is_full or await self._busy_retry.retry(
            partial(self._sees_ends, region)
        )
        await admission.update_warnings(
            EXPORT, host, region, outcome, are_ends_visible=are_ends_visible
        )
        if suspects_region:
            # not cleared by an acceptance: the code may concern the region until the run ends
            await self._context.warnings.warn(
                f"refusals that may concern {region}", _suspected_region_warning(region, outcome)
            )
        return result.is_accepted

    async def _sees_ends(self, region: str) -> bool:
        """Return whether look-ups can see the end of an accepted export of a region.

        This is also true if there is no accepted export. The limit is that of the region, so the
        bucket of the refused job says nothing.
        """
        exporting = (jobs.c.state == JobState.ACCEPTED) & (jobs.c.region == region)
        exporting &= jobs.c.profile == self._context.settings.profile
        query = sa.select(self._buckets.readable()).where(exporting).distinct()
        async with self._context.database.read() as connection:
            return set((await connection.execute(query)).scalars()) != {False}

    async def _check_and_send(self, attempt: Attempt) -> Outcome | None:
        """Check the attempt, send its request, and return the outcome.

        Return ``None`` if the check decided against sending: it put the job back, it found the
        export, or another process has taken the job over.
        """
        context, lease = self._context, attempt.lease
        check = partial(
            check_before_send,
            context.database,
            context.cos,
            self._buckets,
            lease,
            context.settings,
            partial(
                context.admission.record_refused_lookup,
                asked_at=attempt.claimed_at,
                credential=attempt.credential,
            ),
        )
        if not await self._busy_retry.retry(check):
            return None
        await attempt.permit.wait()
        # since the claim the run may have been stopped, or the scope halted
        if self._is_stopping() or context.admission.halts.blocks(attempt.host, lease.order):
            return NOT_SENT_FOR_NOW
        refused_at = self._last_capacity_refusals.get(lease.order.region, 0.0)
        if attempt.claimed_at < refused_at and not lease.probe:
            return NOT_SENT_AT_CAPACITY
        return await submit(context.cvm, lease, attempt.credential)


def _suspected_region_warning(region: str, outcome: Outcome) -> str:
    """Return the text of the warning about a region that is suspected."""
    code = outcome.code
    return (
        f"{region}: several jobs were refused with {code.name} ({outcome.message}), and none was "
        "accepted in between. The cause may be the region or a limit instead of the images, so the "
        f"jobs wait, and one at a time is tried. If the code is right: {code.remedy}"
    )


def _not_recorded(lease: Lease, outcome: Outcome) -> str:
    """Return the message about an answer that could not be recorded."""
    what = f"accepted as task {outcome.task_id}" if outcome.task_id else outcome.code.name
    return (
        f"The outcome of job {lease.job_id} ({', '.join(lease.order.image_ids)}) could not be "
        f"recorded: {what}. The next run on this store looks for the export in the bucket before "
        "it sends this job again."
    )

"""One attempt of one job: from its claim to the record of its outcome."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import anyio

from orchestrator.cloud.credentials.base import Credential
from orchestrator.job_states import JobState
from orchestrator.limits.admission import EXPORT
from orchestrator.limits.halted_scopes import scope_values_of
from orchestrator.limits.rate_limiter import Permit, RateLimiter
from orchestrator.model import NOT_SENT, Lease, Outcome, Reaction
from orchestrator.store import BusyRetry, GroupCommit
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import AttemptResult, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.run_context import RunContext
from orchestrator.worker.send import NOT_SENT_AT_CAPACITY, NOT_SENT_FOR_NOW, submit


@dataclass(frozen=True, slots=True)
class Attempt:
    """A claimed job with all that its request needs.

    Args:
        host: of the endpoint.
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
        is_stopping: returns whether nothing more is to be sent.
    """

    def __init__(
        self,
        context: RunContext,
        buckets: BucketAccess,
        busy_retry: BusyRetry,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.in_flight = anyio.Semaphore(context.settings.concurrency, fast_acquire=True)
        """Held from before the claim until the request has ended."""
        self.unrecorded: set[tuple[int, int]] = set()
        """Job and number of the claimed attempts whose outcome is not in the store yet."""
        self._context = context
        self._buckets = buckets
        self._busy_retry = busy_retry
        self._is_stopping = is_stopping
        keep = partial(record, context.database, export_deadline=context.settings.export_deadline)
        self._results = GroupCommit[AttemptResult, bool](keep)
        self._at_capacity_since: dict[str, float] = {}
        """Per region, the time of the last refusal for capacity, on the event loop's clock."""

    async def run(self, attempt: Attempt) -> bool:
        """Check, send, decide, learn, record; return whether the export was accepted."""
        host, lease, admission = attempt.host, attempt.lease, self._context.admission
        try:
            outcome = await self._check_and_send(attempt)
        finally:
            self.in_flight.release()
        if outcome is None or outcome.code.name == NOT_SENT:
            admission.release(host)
        if outcome is None:  # the check has recorded the new state
            self.unrecorded.discard((lease.job_id, lease.attempt))
            return False
        decision = decide(
            lease,
            outcome,
            jitter=random.random(),  # noqa: S311 - spreads load
            endpoint_fails=admission.excuses_lost_answer(host, lease.deferrals),
        )
        if outcome.code.reaction is Reaction.CAPACITY and outcome is not NOT_SENT_AT_CAPACITY:
            self._at_capacity_since[lease.order.region] = anyio.current_time()
        await admission.record_outcome(
            EXPORT,
            host,
            outcome,
            scope_values=scope_values_of(lease.order),
            asked_at=attempt.claimed_at,
            credential=attempt.credential,
            job_id=lease.job_id,
        )
        is_end_visible = self._buckets.is_proven_readable(lease.order.region, lease.order.bucket)
        result = AttemptResult(lease, outcome, decision, attempt.rate_limiter, is_end_visible)
        is_recorded = await self._busy_retry.retry_or_report(
            partial(self._results.add, result), failure_message=_not_recorded(lease, outcome)
        )
        if is_recorded:
            self.unrecorded.discard((lease.job_id, lease.attempt))
        return decision.state is JobState.ACCEPTED

    async def _check_and_send(self, attempt: Attempt) -> Outcome | None:
        """Return the outcome; ``None`` if the check put the job back or found its export."""
        context, lease = self._context, attempt.lease
        check = partial(
            check_before_send, context.database, context.cos, self._buckets, lease, context.settings
        )
        if not await self._busy_retry.retry(check):
            return None
        await attempt.permit.wait()
        # the request may have become pointless since its claim
        if self._is_stopping() or context.admission.halts.blocks(attempt.host, lease.order):
            return NOT_SENT_FOR_NOW
        refused_at = self._at_capacity_since.get(lease.order.region, 0.0)
        if attempt.claimed_at < refused_at and not lease.probe:
            return NOT_SENT_AT_CAPACITY
        return await submit(context.cvm, lease, attempt.credential)


def _not_recorded(lease: Lease, outcome: Outcome) -> str:
    """Return the message about an answer that could not be recorded."""
    what = f"accepted as task {outcome.task_id}" if outcome.task_id else outcome.code.name
    return (
        f"Not recorded: job {lease.job_id} ({', '.join(lease.order.image_ids)}): {what}. On this "
        "store the next run looks for it in the bucket before anything is sent again."
    )

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
from orchestrator.model import NOT_SENT, Decision, Lease, Outcome, Reaction
from orchestrator.store import BusyRetry, GroupCommit
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import AttemptResult, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.run_context import RunContext
from orchestrator.worker.send import NOT_SENT_AT_CAPACITY, NOT_SENT_AT_END, submit

MAX_WAITING = 16
"""Claimed jobs that wait for a request to end. A claim's commit takes as long as a request, so
without them no request would start while one is being claimed."""

_MAX_WAIT = 5.0
"""Seconds that a claimed job waits for another request to end; then it goes back to the queue."""


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
        settings = context.settings
        self.in_flight = anyio.Semaphore(settings.concurrency, fast_acquire=True)
        self.claimable = anyio.Semaphore(settings.concurrency + MAX_WAITING, fast_acquire=True)
        """Held from before the claim until the request has ended."""
        self.unrecorded: set[tuple[int, int]] = set()
        """Job and number of the claimed attempts whose outcome is not in the store yet."""
        self._context = context
        self._buckets = buckets
        self._busy_retry = busy_retry
        self._is_stopping = is_stopping
        keep = partial(record, context.database, export_deadline=settings.export_deadline)
        self._results = GroupCommit[AttemptResult, bool](keep)
        self._at_capacity_since: dict[str, float] = {}
        """Per region, the time of the last refusal for capacity, on the event loop's clock."""

    async def run(self, attempt: Attempt) -> bool:
        """Check, send, decide, learn, record; return whether the export was accepted."""
        try:
            outcome = await self._check_and_send(attempt)
        finally:
            self.claimable.release()
        if outcome is None or outcome.code.name == NOT_SENT:
            self._context.admission.release(attempt.host)
        if outcome is None:  # the check has recorded the new state
            self.unrecorded.discard((attempt.lease.job_id, attempt.lease.attempt))
            return False
        decision = self._decide(attempt, outcome)
        await self._learn(attempt, outcome)
        await self._record(attempt, outcome, decision)
        return decision.state is JobState.ACCEPTED

    async def _check_and_send(self, attempt: Attempt) -> Outcome | None:
        context = self._context
        is_allowed = await self._busy_retry.retry(
            partial(
                check_before_send,
                context.database,
                context.cos,
                self._buckets,
                attempt.lease,
                context.settings,
            )
        )
        if not is_allowed:
            return None
        # A limited wait: where requests hang, lease and signature must not expire meanwhile.
        with anyio.move_on_after(_MAX_WAIT) as waiting:
            await self.in_flight.acquire()
        if waiting.cancelled_caught:
            return NOT_SENT_AT_END
        try:
            return await submit(
                context.cvm,
                attempt.lease,
                attempt.credential,
                attempt.permit,
                partial(self._outcome_before_sending, attempt),
            )
        finally:
            self.in_flight.release()

    def _outcome_before_sending(self, attempt: Attempt) -> Outcome | None:
        """Return an outcome if the attempt became pointless before it was sent, else None."""
        order = attempt.lease.order
        if self._is_stopping() or self._context.admission.halts.blocks(attempt.host, order):
            return NOT_SENT_AT_END
        refused_at = self._at_capacity_since.get(order.region, 0.0)
        was_refused = not attempt.lease.probe and attempt.claimed_at < refused_at
        return NOT_SENT_AT_CAPACITY if was_refused else None

    def _decide(self, attempt: Attempt, outcome: Outcome) -> Decision:
        return decide(
            attempt.lease,
            outcome,
            max_attempts=self._context.settings.max_attempts,
            jitter=random.random(),  # noqa: S311 - spreads load
            endpoint_fails=self._context.admission.excuses_lost_answer(
                attempt.host, attempt.lease.deferrals
            ),
        )

    async def _learn(self, attempt: Attempt, outcome: Outcome) -> None:
        order = attempt.lease.order
        if outcome.code.reaction is Reaction.CAPACITY and outcome is not NOT_SENT_AT_CAPACITY:
            self._at_capacity_since[order.region] = anyio.current_time()
        await self._context.admission.record_outcome(
            EXPORT,
            attempt.host,
            outcome,
            scope_values=scope_values_of(order),
            asked_at=attempt.claimed_at,
            credential=attempt.credential,
            job_id=attempt.lease.job_id,
        )

    async def _record(self, attempt: Attempt, outcome: Outcome, decision: Decision) -> None:
        lease = attempt.lease
        is_end_visible = self._buckets.is_proven_readable(lease.order.region, lease.order.bucket)
        result = AttemptResult(lease, outcome, decision, attempt.rate_limiter, is_end_visible)
        is_recorded = await self._busy_retry.retry_or_report(
            partial(self._results.add, result), failure_message=_not_recorded(lease, outcome)
        )
        if is_recorded:
            self.unrecorded.discard((lease.job_id, lease.attempt))


def _not_recorded(lease: Lease, outcome: Outcome) -> str:
    """Return the message about an answer that could not be recorded."""
    what = f"accepted as task {outcome.task_id}" if outcome.task_id else outcome.code.name
    return (
        f"Not recorded: job {lease.job_id} ({', '.join(lease.order.image_ids)}): {what}. On this "
        "store the next run looks for it in the bucket before anything is sent again."
    )

"""The running flow: what one `run` does, from the first claim to the last look."""

import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import anyio
from anyio.abc import TaskGroup

from orchestrator.cloud.credentials.base import Credential
from orchestrator.job_queue.claim import ClaimSettings
from orchestrator.job_queue.claim_recovery import Claims
from orchestrator.job_queue.eligibility import Eligibility
from orchestrator.job_queue.remaining_work import has_remaining_work
from orchestrator.job_queue.worker_registry import Instance
from orchestrator.job_states import JobState
from orchestrator.limits.admission import EXPORT
from orchestrator.limits.concurrency_limit import known_regions
from orchestrator.limits.halted_scopes import scope_values_of
from orchestrator.limits.rate_limiter import Permit, RateLimiter
from orchestrator.model import NOT_SENT, Decision, Lease, Outcome, Reaction
from orchestrator.store import BusyRetry, GroupCommit
from orchestrator.verification.bucket_permissions import BucketPermissions
from orchestrator.verification.poller import Poller
from orchestrator.wakeup import Wakeup
from orchestrator.worker.image_describer import ImageDescriber
from orchestrator.worker.maintenance import Maintenance
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import Answer, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.run_settings import RunContext, RunSettings
from orchestrator.worker.send import FULL, WITHDRAWN, submit

_POLL = 0.5
"""Seconds between looks at the store for what other processes have done."""

_BREATH = 0.2
"""Seconds between two looks at whether anything is left to do, whatever the news."""

_AT_ONCE = 16
"""Jobs that one claim takes at most, and that wait for a place in the air: a claim's commit takes
as long as a request, and without a limit of the rate no place should be empty meanwhile."""

_LONGEST_WAIT = 5.0
"""Seconds that a claimed job waits for its place, where requests hang; then it is put back."""

_LEASE_SPARE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What one request leaves with.

    Args:
        host: of the endpoint.
        asked_at: the moment of the claim, on the event loop's clock.
    """

    host: str
    lease: Lease
    credential: Credential
    permit: Permit
    rate_limiter: RateLimiter
    asked_at: float


class Worker:
    """One run of one process.

    Args:
        me: this process's instance, the owner of its leases.
        tell: takes sentences for the user.
    """

    def __init__(
        self,
        context: RunContext,
        settings: RunSettings,
        me: Instance,
        notify: Callable[[str], None],
    ) -> None:
        self.timed_out = False
        self.permissions = BucketPermissions(
            settings.verify, context.admission.halts, notify, settings.verify_interval
        )
        self._context = context
        self._settings = settings
        self._me = me.name
        self._notify = notify
        self._busy_retry = BusyRetry(notify, give_up=self.finish)
        self._wakeup = Wakeup()
        self._claiming = anyio.CancelScope()
        self._claims = Claims(context.database, me.name)
        self._regions: defaultdict[str, list[str]] = defaultdict(list)
        self.eligibility = Eligibility(
            profile=settings.profile,
            batch=settings.batch,
            admission=context.admission,
            permissions=self.permissions,
            policy=settings.resolve,
            regions=self._regions,
            clock=context.database.clock,
        )
        self._maintenance = Maintenance(
            context.database, me, self._busy_retry, self._wakeup, self._new_hope
        )
        keep = partial(record, context.database, export_deadline=settings.resolve.export_deadline)
        self._answers = GroupCommit[Answer, bool](keep)
        self._in_flight = anyio.Semaphore(settings.concurrency, fast_acquire=True)
        self._claimable = anyio.Semaphore(settings.concurrency + _AT_ONCE, fast_acquire=True)
        self._full_at: dict[str, float] = {}
        self._ends_at = 0.0

    async def run(self) -> None:
        """Drains the queue until nothing can move, or `finish` is called."""
        self._ends_at = anyio.current_time() + (self._settings.time_limit or 0.0)
        with self._context.database.short_lock_timeout():
            await self._work()
        self._busy_retry.raise_error()

    async def _work(self) -> None:
        async with anyio.create_task_group() as background:
            background.start_soon(self._busy_retry.run_guarded, self._watcher().run)
            background.start_soon(self._maintenance.run)
            background.start_soon(self._keep_time)
            async with anyio.create_task_group() as requests:
                with self._claiming, self._busy_retry.note_error():
                    await self._maintenance.recover_orphans()
                    await self._drain_all(requests)
            await self._claims.close()
            background.cancel_scope.cancel()

    def finish(self) -> None:
        """Claims nothing more; `run` returns when the requests in the air are recorded."""
        self._claiming.cancel()
        self._busy_retry.begin_shutdown()

    async def _drain_all(self, requests: TaskGroup) -> None:
        """One stream of requests to each endpoint, until nothing can move."""
        async with anyio.create_task_group() as streams:
            while await self._busy_retry.retry(self._work_remains):
                for region in await self._busy_retry.retry(self._known_regions):
                    host = self._context.cvm.host(region)
                    if host not in self._regions:
                        streams.start_soon(self._describer(host).run)
                        streams.start_soon(self._drain, host, requests)
                    if region not in self._regions[host]:
                        self._regions[host].append(region)
                await anyio.sleep(_BREATH)
                await self._wakeup.wait(_POLL)
            streams.cancel_scope.cancel()

    async def _drain(self, host: str, requests: TaskGroup) -> None:
        """The turn in the rate, then the claim, then the requests, each in a task of its own."""
        while True:
            rate_limiter = await self._context.admission.wait_for_turn(EXPORT, host)
            # last, or the streams of endpoints out of reach would hold every place
            places = await self._places(host)
            credential, asked_at = await self._context.admission.credential(), anyio.current_time()
            claimed: list[tuple[Lease, Permit]] = []
            if credential is not None:
                claiming = partial(self._claim, host, rate_limiter, places)
                claimed = await self._busy_retry.retry(claiming)
                for lease, permit in claimed:
                    attempt = _Attempt(host, lease, credential, permit, rate_limiter, asked_at)
                    requests.start_soon(
                        self._busy_retry.run_guarded, partial(self._run_one, attempt)
                    )
            for _ in range(places - len(claimed)):
                self._claimable.release()
            if not claimed:
                self._context.admission.release(host)
                if not rate_limiter.is_ahead:
                    await self._wakeup.wait(_POLL)

    async def _places(self, host: str) -> int:
        """Takes what may be claimed now: a single job while the host is in trouble."""
        await self._claimable.acquire()
        places = 1
        with suppress(anyio.WouldBlock):
            while places < _AT_ONCE and not self._context.admission.is_endpoint_failing(host):
                self._claimable.acquire_nowait()
                places += 1
        return places

    async def _claim(
        self, host: str, rate_limiter: RateLimiter, limit: int
    ) -> list[tuple[Lease, Permit]]:
        """Makes the intent durable; shielded, so that no lease is taken and then dropped."""
        if (
            self._context.admission.halts.blocks_endpoint(host)
            or not self._context.cvm.clock.is_known
        ):
            return []
        regions = self._regions[host]
        who = ClaimSettings(self._me, self._settings.request_timeout + _LEASE_SPARE, rate_limiter)
        claimed: list[tuple[Lease, Permit]] = []
        with anyio.CancelScope(shield=True):
            claimed = await self._claims.claim(
                who,
                self.eligibility.wanted(),
                tuple(regions),
                signed_at=self._context.cvm.clock.now(),
                limit=limit,
            )
        served = {lease.order.region for lease, _ in claimed}
        regions.sort(key=served.__contains__)  # the others' turn comes first now
        return claimed

    async def _run_one(self, attempt: _Attempt) -> None:
        """The life of one attempt: cleared and sent, decided, learned from, recorded."""
        is_accepted = False
        try:
            if (outcome := await self._send(attempt)) is not None:
                decision = self._decide(attempt, outcome)
                await self._learn(attempt, outcome)
                await self._record(attempt, outcome, decision)
                is_accepted = decision.state is JobState.ACCEPTED
        finally:
            if not is_accepted or attempt.lease.probe:
                self._wakeup.notify()

    async def _send(self, attempt: _Attempt) -> Outcome | None:
        """What came of the request; ``None`` where it must not be sent."""
        context, lease = self._context, attempt.lease
        clear = partial(
            check_before_send,
            context.database,
            context.cos,
            self.permissions,
            lease,
            self._settings.resolve,
        )
        try:
            outcome = None
            if await self._busy_retry.retry(clear):
                outcome = await self._send_in_its_turn(attempt)
            if outcome is None or outcome.code.name == NOT_SENT:
                context.admission.release(attempt.host)
            return outcome
        finally:
            self._claimable.release()

    async def _send_in_its_turn(self, attempt: _Attempt) -> Outcome:
        """Waits for a place in the air, but never until its lease and its signature have aged."""
        has_place = False
        with anyio.move_on_after(_LONGEST_WAIT):
            await self._in_flight.acquire()
            has_place = True
        if not has_place:
            return WITHDRAWN
        try:
            instead = partial(self._known_already, attempt)
            return await submit(
                self._context.cvm, attempt.lease, attempt.credential, attempt.permit, instead
            )
        finally:
            self._in_flight.release()

    def _decide(self, attempt: _Attempt, outcome: Outcome) -> Decision:
        return decide(
            attempt.lease,
            outcome,
            max_attempts=self._settings.resolve.max_attempts,
            jitter=random.random(),  # noqa: S311 - spreads load
            endpoint_fails=self._context.admission.excuses_lost_answer(
                attempt.host, attempt.lease.deferrals
            ),
        )

    async def _record(self, attempt: _Attempt, outcome: Outcome, decision: Decision) -> None:
        lease = attempt.lease
        is_end_visible = self.permissions.is_proven_readable(lease.order.region, lease.order.bucket)
        answer = Answer(lease, outcome, decision, attempt.rate_limiter, is_end_visible)
        kept = partial(self._answers.add, answer)
        if await self._busy_retry.retry_or_report(kept, or_say=_not_recorded(lease, outcome)):
            self._claims.recorded(lease)

    def _known_already(self, attempt: _Attempt) -> Outcome | None:
        """What has come of an attempt while it waited for its time: stopped, or nothing free."""
        order = attempt.lease.order
        if self._claiming.cancel_called or self._context.admission.halts.blocks(
            attempt.host, order
        ):
            return WITHDRAWN
        full_at = self._full_at.get(order.region, 0.0)
        return FULL if not attempt.lease.probe and attempt.asked_at < full_at else None

    async def _learn(self, attempt: _Attempt, outcome: Outcome) -> None:
        order = attempt.lease.order
        if outcome.code.reaction is Reaction.CAPACITY and outcome is not FULL:
            self._full_at[order.region] = anyio.current_time()
        await self._context.admission.record_outcome(
            EXPORT,
            attempt.host,
            outcome,
            scope_values=scope_values_of(order),
            asked_at=attempt.asked_at,
            credential=attempt.credential,
            job_id=attempt.lease.job_id,
        )

    async def _work_remains(self) -> bool:
        self._context.admission.halt_expired_quota_waits()
        if self._settings.forever:
            return True
        within = None
        if self._settings.time_limit is not None:
            within = max(0.0, self._ends_at - anyio.current_time())
        return await has_remaining_work(
            self._context.database,
            self.eligibility.mine(),
            sendable=self.eligibility.permitted(),
            watched=self.eligibility.watched(),
            within=within,
        )

    async def _known_regions(self) -> list[str]:
        async with self._context.database.read() as connection:
            return await known_regions(connection, self._settings.profile)

    async def _new_hope(self) -> None:
        """A run without end finds out, now and then, what a person has mended."""
        if self._settings.forever:
            await self._context.admission.clear_halts()
            self.permissions.reset()

    async def _keep_time(self) -> None:
        if self._settings.time_limit is not None:
            await anyio.sleep_until(self._ends_at)
            self.timed_out = True
            self.finish()

    def _describer(self, host: str) -> ImageDescriber:
        return ImageDescriber(
            self._context.database,
            self._context.cvm,
            self._context.admission,
            self._settings.profile,
            regions=self._regions[host],
            permitted=self.eligibility.permitted,
            in_flight=self._in_flight,
            busy_retry=self._busy_retry,
            wakeup=self._wakeup,
            notify=self._notify,
        )

    def _watcher(self) -> Poller:
        return Poller(
            self._context.database,
            self._context.cos,
            self.permissions,
            self._context.admission,
            self._settings.resolve,
            profile=self._settings.profile,
            interval=self._settings.verify_interval,
            actor=self._me,
            busy_retry=self._busy_retry,
            wakeup=self._wakeup,
            notify=self._notify,
        )


def _not_recorded(lease: Lease, outcome: Outcome) -> str:
    """What a user must know when the store could not take an answer."""
    what = f"accepted as task {outcome.task_id}" if outcome.task_id else outcome.code.name
    return (
        f"Not recorded: job {lease.job_id} ({', '.join(lease.order.image_ids)}): {what}. On this "
        "store the next run looks for it in the bucket before anything is sent again."
    )

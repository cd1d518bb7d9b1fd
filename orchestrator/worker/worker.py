"""The loops of one run: claim, send, poll the buckets, maintain the store."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio
from anyio.abc import TaskGroup

from orchestrator.job_queue.claim import claim
from orchestrator.job_queue.eligibility import Eligibility
from orchestrator.job_queue.uncertain_claims import put_back_unsent
from orchestrator.job_queue.worker_registry import Registration
from orchestrator.limits.admission import EXPORT
from orchestrator.limits.concurrency_limit import exporting_regions, known_regions
from orchestrator.limits.rate_limiter import Permit, RateLimiter
from orchestrator.model import Lease
from orchestrator.store import BusyRetry
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.bucket_warnings import BucketWarnings
from orchestrator.verification.poller import Poller
from orchestrator.wakeup import Wakeup
from orchestrator.worker.attempt import Attempt, AttemptRunner
from orchestrator.worker.image_describer import ImageDescriber
from orchestrator.worker.maintenance import prepare_store, run_maintenance
from orchestrator.worker.run_context import RunContext

_POLL = 0.5
"""Seconds between two checks of the store for changes by other processes."""

_MIN_POLL = 0.5
"""Minimum seconds between two checks for remaining work, even if wake-ups come more often."""

_MAX_CLAIMED = 16
"""Maximum number of jobs that one transaction claims."""

_LEASE_SPARE = timedelta(seconds=15)
"""How much longer a lease lasts than the time-out of a request."""


class Worker:
    """One run of one process.

    Args:
        me: this process's registration, the owner of its leases.
        notify: takes sentences for the user.
        batch: only this batch; ``None`` is all.
        time_limit: seconds after which nothing more is claimed.
        forever: wait for more work instead of ending when nothing is left to do.
    """

    def __init__(
        self,
        context: RunContext,
        me: Registration,
        notify: Callable[[str], None],
        *,
        batch: str | None = None,
        time_limit: float | None = None,
        forever: bool = False,
    ) -> None:
        settings = context.settings
        self.timed_out = False
        self.buckets = BucketAccess(settings, context.admission.halts, notify)
        self._bucket_warnings = BucketWarnings(
            context.database, settings.profile, self.buckets, context.warnings
        )
        self.eligibility = Eligibility(
            context.database,
            context.admission,
            self.buckets,
            settings,
            batch=batch,
            blocked_regions=self._blocked_regions,
        )
        self._context = context
        self._settings = settings
        self._time_limit = time_limit
        self._forever = forever
        self._me = me
        self._notify = notify
        self._busy_retry = BusyRetry(notify, give_up=self.finish)
        self._wakeup = Wakeup()
        self._claiming = anyio.CancelScope()
        self._attempts = AttemptRunner(
            context,
            self.buckets,
            self._busy_retry,
            is_stopping=lambda: self._claiming.cancel_called,
        )
        self._regions: tuple[str, ...] = ()
        """All regions of the profile that are known so far."""
        self._last_claims: dict[str, float] = {}
        """Time of the last claim in each region. The next claim starts with the region whose last
        claim is oldest."""
        self._uncertain_claims: set[str] = set()
        """Endpoints whose last claim raised an error. Its commit may still have been applied."""
        self._ends_at = 0.0

    async def run(self) -> None:
        """Work until no job can progress, or `finish` is called."""
        self._ends_at = anyio.current_time() + (self._time_limit or 0.0)
        with self._context.database.short_lock_timeout():
            await self._work()
        self._busy_retry.raise_error()

    def finish(self) -> None:
        """Stop claiming.

        `run` returns when the outcomes of all requests in flight are recorded.
        """
        self._claiming.cancel()
        self._busy_retry.begin_shutdown()

    async def _work(self) -> None:
        async with anyio.create_task_group() as background:
            background.start_soon(self._busy_retry.run_guarded, self._poller().run)
            background.start_soon(
                run_maintenance,
                self._context,
                self._me,
                self._bucket_warnings,
                self._busy_retry,
                self._wakeup,
                self._recheck_halts,
            )
            background.start_soon(self._keep_time_limit)
            async with anyio.create_task_group() as requests:
                with self._claiming:
                    await self._busy_retry.run_guarded(partial(self._drain_all, requests))
            background.cancel_scope.cancel()
        await self._context.admission.store_halts()
        check_buckets = partial(self._busy_retry.retry, self._bucket_warnings.check)
        await self._busy_retry.run_guarded(check_buckets)

    async def _drain_all(self, requests: TaskGroup) -> None:
        """Start a describer and a claim loop per endpoint; wait until no work remains."""
        await prepare_store(
            self._context.database, self._me, self._busy_retry, self._context.warnings
        )
        hosts: set[str] = set()
        async with anyio.create_task_group() as endpoints:
            while await self._busy_retry.retry(self._look_for_work):
                for host in sorted({self._context.cvm.host(one) for one in self._regions} - hosts):
                    hosts.add(host)
                    endpoints.start_soon(self._describer(host).run)
                    endpoints.start_soon(self._drain, host, requests)
                await anyio.sleep(_MIN_POLL)
                await self._wakeup.wait(_POLL)
            endpoints.cancel_scope.cancel()

    async def _drain(self, host: str, requests: TaskGroup) -> None:
        """Wait for the rate limit, claim jobs, and start a task for each request."""
        admission = self._context.admission
        while True:
            rate_limiter = await admission.wait_for_turn(EXPORT, host)
            # Acquire after the wait: loops that wait for an unreachable endpoint must not hold
            # slots.
            slots = await self._acquire_slots(host)
            credential, claimed_at = await admission.credential(), anyio.current_time()
            claimed: list[tuple[Lease, Permit]] = []
            if credential is not None:
                claiming = partial(self._claim, host, rate_limiter, slots)
                claimed = await self._busy_retry.retry(claiming)
                for lease, permit in claimed:
                    one = Attempt(host, lease, credential, permit, rate_limiter, claimed_at)
                    requests.start_soon(self._busy_retry.run_guarded, partial(self._run_one, one))
            for _ in range(slots - len(claimed)):
                self._attempts.in_flight.release()
            if not claimed:
                admission.release(host)
                if not rate_limiter.is_ahead:
                    await self._wakeup.wait(_POLL)

    async def _acquire_slots(self, host: str) -> int:
        """Acquire slots for requests in flight; return their number.

        Wait for the first slot, then take those that are free, up to 16. While the endpoint is
        failing, take only one.
        """
        in_flight = self._attempts.in_flight
        await in_flight.acquire()
        is_failing = self._context.admission.is_endpoint_failing(host)
        more = 0 if is_failing else min(in_flight.value, _MAX_CLAIMED - 1)
        for _ in range(more):
            in_flight.acquire_nowait()
        return 1 + more

    async def _claim(
        self, host: str, rate_limiter: RateLimiter, limit: int
    ) -> list[tuple[Lease, Permit]]:
        """Claim up to ``limit`` jobs; none if the endpoint is halted.

        Shielded from cancellation: the leases of a committed claim must not be lost. No job is
        claimed before the server's time is known. Signatures are dated with it, so that this
        program knows when they expire.
        """
        cvm, admission = self._context.cvm, self._context.admission
        if admission.halts.blocks_endpoint(host) or not cvm.clock.is_known:
            return []
        with anyio.CancelScope(shield=True):
            if host in self._uncertain_claims:
                await put_back_unsent(
                    self._context.database,
                    self._me.name,
                    self._regions_of(host),
                    self._attempts.unrecorded,
                )
            self._uncertain_claims.add(host)
            claim_next = partial(
                claim,
                self._context.database,
                regions=sorted(
                    self._regions_of(host), key=lambda one: self._last_claims.get(one, 0.0)
                ),
                owner=self._me.name,
                profile=self._settings.profile,
                duration=self._settings.request_timeout + _LEASE_SPARE,
                rate_limiter=rate_limiter,
                signed_at=cvm.clock.now(),
                suspected_regions=admission.region_waits.suspected(),
            )
            claimed: list[tuple[Lease, Permit]] = []
            if admission.suspected_scopes.is_probe_due:
                claimed = await claim_next(self.eligibility.probe_query, limit=1)
                if not claimed:
                    admission.suspected_scopes.postpone_probes()
            if not claimed:
                claimed = await claim_next(self.eligibility.claim_query, limit=limit)
            self._uncertain_claims.discard(host)
        for lease, _ in claimed:
            admission.begin_probe(host, lease)
            self._attempts.unrecorded.add((lease.job_id, lease.attempt))
            self._last_claims[lease.order.region] = anyio.current_time()
        return claimed

    async def _run_one(self, attempt: Attempt) -> None:
        is_accepted = False
        try:
            is_accepted = await self._attempts.run(attempt)
        finally:
            # another job may now be ready to send, unless this one was accepted and was not a probe
            if not is_accepted or attempt.lease.probe:
                self._wakeup.notify()

    async def _look_for_work(self) -> bool:
        """Find the regions of the profile; return whether the run goes on."""
        database = self._context.database
        async with database.read() as connection:
            self._regions = tuple(await known_regions(connection, self._settings.profile))
            exporting = await exporting_regions(connection, self._settings.profile)
            self._context.admission.record_exporting(exporting)
            if self._forever:
                return True
            latest = datetime.max.replace(tzinfo=UTC)
            if self._time_limit is not None:
                left = timedelta(seconds=max(0.0, self._ends_at - anyio.current_time()))
                latest = await database.now(connection) + left
            return await self.eligibility.has_remaining_work(connection, latest)

    def _regions_of(self, host: str) -> Sequence[str]:
        return [region for region in self._regions if self._context.cvm.host(region) == host]

    def _blocked_regions(self) -> list[str]:
        """Return the regions whose endpoint is halted."""
        halts, host = self._context.admission.halts, self._context.cvm.host
        return [region for region in self._regions if halts.blocks_endpoint(host(region))]

    async def _recheck_halts(self) -> None:
        """In a `--forever` run, clear all halts: an operator may have fixed their causes."""
        if self._forever:
            await self._context.admission.clear_halts()
            self.buckets.reset()
            self._wakeup.notify()

    async def _keep_time_limit(self) -> None:
        if self._time_limit is not None:
            await anyio.sleep_until(self._ends_at)
            self.timed_out = True
            self.finish()

    def _describer(self, host: str) -> ImageDescriber:
        return ImageDescriber(
            self._context,
            regions=partial(self._regions_of, host),
            sendable=self.eligibility.sendable,
            in_flight=self._attempts.in_flight,
            busy_retry=self._busy_retry,
            wakeup=self._wakeup,
        )

    def _poller(self) -> Poller:
        return Poller(
            self._context.database,
            self._context.cos,
            self.buckets,
            self._context.admission,
            self._settings,
            actor=self._me.name,
            busy_retry=self._busy_retry,
            wakeup=self._wakeup,
        )

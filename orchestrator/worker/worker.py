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
from orchestrator.job_queue.claim import Claimer
from orchestrator.job_queue.claim_recovery import Claims
from orchestrator.job_queue.eligibility import Reach
from orchestrator.job_queue.remaining_work import anything_moves
from orchestrator.job_queue.worker_registry import Instance
from orchestrator.limits.admission import EXPORT
from orchestrator.limits.concurrency_limit import known_regions
from orchestrator.limits.halted_scopes import places_of
from orchestrator.limits.rate_limiter import Lane, Slot
from orchestrator.model import NOT_SENT, Decision, JobState, Lease, Outcome, Reaction
from orchestrator.store import Grouped, Patience
from orchestrator.verification.bucket_permissions import Sight
from orchestrator.verification.poller import Watcher
from orchestrator.wakeup import News
from orchestrator.worker.image_describer import Describer
from orchestrator.worker.maintenance import Upkeep
from orchestrator.worker.outcome import FULL, WITHDRAWN
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import Answer, record
from orchestrator.worker.pre_send_check import clear_to_send
from orchestrator.worker.run_settings import Parts, Plan
from orchestrator.worker.send import submit

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
    slot: Slot
    lane: Lane
    asked_at: float


class Worker:
    """One run of one process.

    Args:
        me: this process's instance, the owner of its leases.
        tell: takes sentences for the user.
    """

    def __init__(self, parts: Parts, plan: Plan, me: Instance, tell: Callable[[str], None]) -> None:
        self.timed_out = False
        self.sight = Sight(plan.verify, parts.traffic.stops, tell, plan.verify_interval)
        self._parts = parts
        self._plan = plan
        self._me = me.name
        self._tell = tell
        self._patience = Patience(tell, give_up=self.finish)
        self._news = News()
        self._claiming = anyio.CancelScope()
        self._claims = Claims(parts.database, me.name)
        self._regions: defaultdict[str, list[str]] = defaultdict(list)
        self.reach = Reach(
            profile=plan.profile,
            batch=plan.batch,
            traffic=parts.traffic,
            sight=self.sight,
            policy=plan.resolve,
            regions=self._regions,
            clock=parts.database.clock,
        )
        self._upkeep = Upkeep(parts.database, me, self._patience, self._news, self._new_hope)
        keep = partial(record, parts.database, export_deadline=plan.resolve.export_deadline)
        self._answers = Grouped[Answer, bool](keep)
        self._in_air = anyio.Semaphore(plan.concurrency, fast_acquire=True)
        self._claimable = anyio.Semaphore(plan.concurrency + _AT_ONCE, fast_acquire=True)
        self._full_at: dict[str, float] = {}
        self._ends_at = 0.0

    async def run(self) -> None:
        """Drains the queue until nothing can move, or `finish` is called."""
        self._ends_at = anyio.current_time() + (self._plan.time_limit or 0.0)
        with self._parts.database.waiting_briefly():
            await self._work()
        self._patience.raise_fault()

    async def _work(self) -> None:
        async with anyio.create_task_group() as background:
            background.start_soon(self._patience.guarded, self._watcher().run)
            background.start_soon(self._upkeep.run)
            background.start_soon(self._keep_time)
            async with anyio.create_task_group() as requests:
                with self._claiming, self._patience.fault_noted():
                    await self._upkeep.rescue()
                    await self._drain_all(requests)
            await self._claims.close()
            background.cancel_scope.cancel()

    def finish(self) -> None:
        """Claims nothing more; `run` returns when the requests in the air are recorded."""
        self._claiming.cancel()
        self._patience.hurry()

    async def _drain_all(self, requests: TaskGroup) -> None:
        """One stream of requests to each endpoint, until nothing can move."""
        async with anyio.create_task_group() as streams:
            while await self._patience.until_done(self._work_remains):
                for region in await self._patience.until_done(self._known_regions):
                    host = self._parts.cvm.host(region)
                    if host not in self._regions:
                        streams.start_soon(self._describer(host).run)
                        streams.start_soon(self._drain, host, requests)
                    if region not in self._regions[host]:
                        self._regions[host].append(region)
                await anyio.sleep(_BREATH)
                await self._news.wait(_POLL)
            streams.cancel_scope.cancel()

    async def _drain(self, host: str, requests: TaskGroup) -> None:
        """The turn in the rate, then the claim, then the requests, each in a task of its own."""
        while True:
            lane = await self._parts.traffic.turn(EXPORT, host)
            # last, or the streams of endpoints out of reach would hold every place
            places = await self._places(host)
            credential, asked_at = await self._parts.traffic.credential(), anyio.current_time()
            claimed: list[tuple[Lease, Slot]] = []
            if credential is not None:
                claiming = partial(self._claim, host, lane, places)
                claimed = await self._patience.until_done(claiming)
                for lease, slot in claimed:
                    attempt = _Attempt(host, lease, credential, slot, lane, asked_at)
                    requests.start_soon(self._patience.guarded, partial(self._run_one, attempt))
            for _ in range(places - len(claimed)):
                self._claimable.release()
            if not claimed:
                self._parts.traffic.unused(host)
                if not lane.is_ahead:
                    await self._news.wait(_POLL)

    async def _places(self, host: str) -> int:
        """Takes what may be claimed now: a single job while the host is in trouble."""
        await self._claimable.acquire()
        places = 1
        with suppress(anyio.WouldBlock):
            while places < _AT_ONCE and not self._parts.traffic.is_in_trouble(host):
                self._claimable.acquire_nowait()
                places += 1
        return places

    async def _claim(self, host: str, lane: Lane, most: int) -> list[tuple[Lease, Slot]]:
        """Makes the intent durable; shielded, so that no lease is taken and then dropped."""
        if self._parts.traffic.stops.holds_all(host) or not self._parts.cvm.clock.is_known:
            return []
        regions = self._regions[host]
        who = Claimer(self._me, self._plan.request_timeout + _LEASE_SPARE, lane)
        claimed: list[tuple[Lease, Slot]] = []
        with anyio.CancelScope(shield=True):
            claimed = await self._claims.claim(
                who,
                self.reach.wanted(),
                tuple(regions),
                signed_at=self._parts.cvm.clock.now(),
                most=most,
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
                self._news.spread()

    async def _send(self, attempt: _Attempt) -> Outcome | None:
        """What came of the request; ``None`` where it must not be sent."""
        parts, lease = self._parts, attempt.lease
        clear = partial(
            clear_to_send, parts.database, parts.cos, self.sight, lease, self._plan.resolve
        )
        try:
            outcome = None
            if await self._patience.until_done(clear):
                outcome = await self._send_in_its_turn(attempt)
            if outcome is None or outcome.code.name == NOT_SENT:
                parts.traffic.unused(attempt.host)
            return outcome
        finally:
            self._claimable.release()

    async def _send_in_its_turn(self, attempt: _Attempt) -> Outcome:
        """Waits for a place in the air, but never until its lease and its signature have aged."""
        has_place = False
        with anyio.move_on_after(_LONGEST_WAIT):
            await self._in_air.acquire()
            has_place = True
        if not has_place:
            return WITHDRAWN
        try:
            instead = partial(self._known_already, attempt)
            return await submit(
                self._parts.cvm, attempt.lease, attempt.credential, attempt.slot, instead
            )
        finally:
            self._in_air.release()

    def _decide(self, attempt: _Attempt, outcome: Outcome) -> Decision:
        return decide(
            attempt.lease,
            outcome,
            max_attempts=self._plan.resolve.max_attempts,
            chance=random.random(),  # noqa: S311 - spreads load
            endpoint_fails=self._parts.traffic.excuses(attempt.host, attempt.lease.waits),
        )

    async def _record(self, attempt: _Attempt, outcome: Outcome, decision: Decision) -> None:
        lease = attempt.lease
        sighted = self.sight.proves(lease.order.region, lease.order.bucket)
        answer = Answer(lease, outcome, decision, attempt.lane, sighted)
        kept = partial(self._answers.add, answer)
        if await self._patience.keep(kept, or_say=_not_recorded(lease, outcome)):
            self._claims.recorded(lease)

    def _known_already(self, attempt: _Attempt) -> Outcome | None:
        """What has come of an attempt while it waited for its time: stopped, or nothing free."""
        order = attempt.lease.order
        if self._claiming.cancel_called or self._parts.traffic.stops.holds(attempt.host, order):
            return WITHDRAWN
        full_at = self._full_at.get(order.region, 0.0)
        return FULL if not attempt.lease.probe and attempt.asked_at < full_at else None

    async def _learn(self, attempt: _Attempt, outcome: Outcome) -> None:
        order = attempt.lease.order
        if outcome.code.reaction is Reaction.CAPACITY and outcome is not FULL:
            self._full_at[order.region] = anyio.current_time()
        await self._parts.traffic.heard(
            EXPORT,
            attempt.host,
            outcome,
            places=places_of(order),
            asked_at=attempt.asked_at,
            credential=attempt.credential,
            job_id=attempt.lease.job_id,
        )

    async def _work_remains(self) -> bool:
        self._parts.traffic.end_quota_waits()
        if self._plan.forever:
            return True
        within = None
        if self._plan.time_limit is not None:
            within = max(0.0, self._ends_at - anyio.current_time())
        return await anything_moves(
            self._parts.database,
            self.reach.mine(),
            sendable=self.reach.permitted(),
            watched=self.reach.watched(),
            within=within,
        )

    async def _known_regions(self) -> list[str]:
        async with self._parts.database.read() as connection:
            return await known_regions(connection, self._plan.profile)

    async def _new_hope(self) -> None:
        """A run without end finds out, now and then, what a person has mended."""
        if self._plan.forever:
            await self._parts.traffic.lift_stops()
            self.sight.open_eyes()

    async def _keep_time(self) -> None:
        if self._plan.time_limit is not None:
            await anyio.sleep_until(self._ends_at)
            self.timed_out = True
            self.finish()

    def _describer(self, host: str) -> Describer:
        return Describer(
            self._parts.database,
            self._parts.cvm,
            self._parts.traffic,
            self._plan.profile,
            regions=self._regions[host],
            permitted=self.reach.permitted,
            in_air=self._in_air,
            patience=self._patience,
            news=self._news,
            tell=self._tell,
        )

    def _watcher(self) -> Watcher:
        return Watcher(
            self._parts.database,
            self._parts.cos,
            self.sight,
            self._parts.traffic,
            self._plan.resolve,
            profile=self._plan.profile,
            interval=self._plan.verify_interval,
            actor=self._me,
            patience=self._patience,
            news=self._news,
            tell=self._tell,
        )


def _not_recorded(lease: Lease, outcome: Outcome) -> str:
    """What a user must know when the store could not take an answer."""
    what = f"accepted as task {outcome.task_id}" if outcome.task_id else outcome.code.name
    return (
        f"Not recorded: job {lease.job_id} ({', '.join(lease.order.image_ids)}): {what}. On this "
        "store the next run looks for it in the bucket before anything is sent again."
    )

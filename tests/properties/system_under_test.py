"""A store, a vendor and several processes, each of whose steps can be taken on its own."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from orchestrator.errors import CloudRefusal, UsageError
from orchestrator.job_queue.claim import claim
from orchestrator.job_queue.enqueue import EnqueueResult, enqueue
from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_queue.worker_registry import instance
from orchestrator.job_states import JobState
from orchestrator.limits import concurrency_limit
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import Lease, Outcome
from orchestrator.operations import resolve_unknown
from orchestrator.operations.cancel import cancel
from orchestrator.operations.resolve_unknown import Verdict
from orchestrator.operations.retry import retry
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.expected_objects import TrackedJob, postpone, watched
from orchestrator.verification.resend_policy import ResolvePolicy, left_to_operator
from orchestrator.verification.unknown_jobs import resolve
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import Answer, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.send import outcome_of_exception
from tests.job_factory import (
    DEADLINE,
    PROFILE,
    REGIONS,
    TESTER,
    FakeClock,
    add_expected_objects,
    advance_time,
    claim_query,
    claim_settings,
    now,
)
from tests.store_and_cloud import bucket_permissions, verify_job

from .fake_vendor import Export, FakeCosClient, FakeVendor, PausePoint, ShortRepr, make_object_keys

POLICY = ResolvePolicy(timedelta(seconds=120), 3, DEADLINE)
SECOND = timedelta(seconds=1)


class ProcessKilledError(Exception):
    """A process ends without a goodbye."""


@dataclass(eq=False)
class Attempt(ShortRepr):
    """One attempt in the hands of a process.

    Args:
        told: how many acceptances had been recorded when it was claimed.
        asking: its look before the send is under way.
        cleared: it has been cleared to be sent.
        outcome: what has come of it, where anything has.
    """

    process: int
    lease: Lease
    told: int
    asking: bool = False
    cleared: bool = False
    outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<attempt {self.lease.attempt} of job {self.lease.job_id}>"


@dataclass
class SystemUnderTest:
    """All there is.

    Args:
        clock: the vendor's, and where the store has none the store's too.
        told: the exports whose acceptance has been recorded, in that order.
        asked_anew: given-up exports after whose end a person wanted another.
    """

    database: Database
    clock: FakeClock
    vendor: FakeVendor
    looks: FakeCosClient
    processes: dict[int, tuple[str, AsyncExitStack]] = field(default_factory=dict)
    flights: list[Attempt] = field(default_factory=list)
    recorded: list[Attempt] = field(default_factory=list)
    policy: ResolvePolicy = POLICY
    asleep: list[tuple[int, PausePoint, asyncio.Task[None]]] = field(default_factory=list)
    told: list[Export] = field(default_factory=list)
    asked_anew: set[Export] = field(default_factory=set)

    async def start(self, process: int) -> None:
        """Starts a process."""
        stack = AsyncExitStack()
        name = (await stack.enter_async_context(instance(self.database))).name
        self.processes[process] = name, stack

    async def crash(self, process: int) -> None:
        """Kills a process, with all that it holds, and starts it anew."""
        self.flights = [flight for flight in self.flights if flight.process != process]
        for owner, _, task in self.asleep:
            if owner == process:
                task.cancel()
        self.asleep = [entry for entry in self.asleep if entry[0] != process]
        _, stack = self.processes.pop(process)
        await stack.__aexit__(ProcessKilledError, ProcessKilledError(), None)
        await self.start(process)

    async def pass_time(self, span: timedelta) -> None:
        """Lets time pass, for the store and for the vendor."""
        await advance_time(self.database, seconds=span.total_seconds())
        if not self.database.is_sqlite:
            self.clock.advance(span)

    async def enqueue(self, request: ExportRequest, *, described: bool) -> EnqueueResult:
        """Enqueues a request; described, its objects are known beforehand."""
        made = await enqueue(self.database, [request], profile=PROFILE, batch="night", actor=TESTER)
        async with self.database.write() as connection:
            new = jobs.c.described_at.is_(None)
            rows = (await connection.execute(sa.select(jobs).where(new))).all()
            await connection.execute(
                jobs.update().where(new).values(described_at=await self.database.now(connection))
            )
        for row in rows if described else ():
            await add_expected_objects(
                self.database, row.id, *make_object_keys(row.object_prefix, row.image_ids, "raw")
            )
        return made

    async def claim(self, process: int) -> Attempt | None:
        """A process claims the next job, within what the gate lets through."""
        name, _ = self.processes[process]
        moment = await now(self.database)
        want = claim_query(
            watched=lambda table: ~left_to_operator(self.policy, lambda: moment, table)
        )
        who = claim_settings(self.database, name)
        claimed = await claim(self.database, who, want, REGIONS, signed_at=self.vendor.now())
        if not claimed:
            return None
        ((lease, _),) = claimed
        async with self.database.read() as connection:
            (found,) = await concurrency_limit.concurrency_limits(connection, PROFILE, moment)
        assert lease.probe or found.ceiling is None or found.running <= found.ceiling
        flight = Attempt(process, lease, len(self.told))
        flight.cleared = not lease.maybe_applied and not lease.exact_names
        self.flights.append(flight)
        return flight

    async def clear(self, flight: Attempt) -> None:
        """A process asks whether its attempt may be sent."""
        flight.asking = True
        flight.cleared = await check_before_send(
            self.database, self.looks, bucket_permissions(), flight.lease, self.policy
        )
        if not flight.cleared:
            self.flights.remove(flight)

    def arrive(self, flight: Attempt, *, unseen_for: timedelta, answered: bool) -> None:
        """The request reaches the vendor, whose answer may be lost."""
        before = self.vendor.of(flight.lease.job_id)
        outcome = self.vendor.take(flight.lease, unseen_for=unseen_for)
        if outcome.task_id is not None:
            for export in before:
                self._see_that_it_was_over(export, flight)
        flight.outcome = outcome if answered else outcome_of_exception(httpx.ReadTimeout("late"))

    def _see_that_it_was_over(self, export: Export, flight: Attempt) -> None:
        assert export.given_up, f"{export} is exported twice, by {flight}"
        known = export in self.told[: flight.told] and export not in self.asked_anew
        assert not known, f"{flight} follows {export}, which was accepted; nobody asked for it"

    async def record(self, flight: Attempt) -> None:
        """A process records what came of its attempt."""
        assert flight.outcome is not None
        decision = decide(
            flight.lease, flight.outcome, max_attempts=self.policy.max_attempts, jitter=0.5
        )
        rate_limiter = claim_settings(self.database).rate_limiter
        answer = Answer(flight.lease, flight.outcome, decision, rate_limiter)
        await record(self.database, [answer], DEADLINE)
        if flight in self.flights:
            self.flights.remove(flight)
            self.recorded.append(flight)
        self.told += (
            export
            for export in self.vendor.exports
            if export.task_id == flight.outcome.task_id and export not in self.told
        )

    async def recover_orphans(self, process: int) -> None:
        """A process takes over what others have left behind."""
        await recover_orphans(self.database, self.processes[process][0])

    async def look(self, job_id: int) -> None:
        """Looks once for the objects of a job, if it is one that is looked for."""
        async with self.database.write() as connection:
            job = await watched(connection, job_id)
            if job.state in {JobState.UNKNOWN, JobState.ACCEPTED}:
                then = await self.database.now(connection) + SECOND
                await postpone(connection, {job_id: then})
        await self._settle_by_look(job)

    async def _settle_by_look(self, job: TrackedJob) -> None:
        try:
            if job.state is JobState.UNKNOWN:
                await resolve(self.database, self.looks, job, self.policy, TESTER)
            elif job.state is JobState.ACCEPTED:
                await verify_job(self.database, self.looks, job)
        except CloudRefusal:
            assert self.looks.denied

    async def fall_asleep(self, process: int, work: Coroutine[Any, Any, None]) -> None:
        """A process begins some work, and sleeps once it has listed objects."""
        hold = self.looks.hold = PausePoint()
        task = asyncio.create_task(work)
        reached = asyncio.create_task(hold.reached.wait())
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        self.looks.hold = None
        self.asleep.append((process, hold, task))

    async def wake(self) -> None:
        """Lets the work go on that has slept the longest."""
        _, hold, task = self.asleep.pop(0)
        hold.over.set()
        await task

    async def settle(self, job_id: int) -> None:
        """A person looks at what really runs or has run, and says so."""
        absent = all(export.given_up for export in self.vendor.of(job_id))
        try:
            await resolve_unknown.resolve(
                self.database,
                jobs.c.id == job_id,
                Verdict.ABSENT if absent else Verdict.ACCEPTED,
                why="seen in the console",
                export_deadline=DEADLINE,
                actor="person",
            )
        except UsageError:
            assert absent, "what has begun can be said at any time"
        else:
            self._excuse(job_id)

    async def retry(self) -> None:
        """A person wants another try of all that failed or was given up."""
        async with self.database.read() as connection:
            ended = jobs.c.state.in_([JobState.FAILED, JobState.CANCELLED])
            failed = sa.select(jobs.c.id).where(ended)
            job_ids = list((await connection.execute(failed)).scalars())
        await retry(self.database, jobs.c.id > 0, actor="person")
        for job_id in job_ids:
            self._excuse(job_id)

    async def cancel(self) -> None:
        """A person gives up all that waits."""
        await cancel(self.database, jobs.c.id > 0, actor="person")

    def _excuse(self, job_id: int) -> None:
        self.asked_anew.update(e for e in self.vendor.of(job_id) if e.given_up)

"""A store, a vendor and several processes; each step of a process can be taken alone."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import sqlalchemy as sa

from orchestrator import operations
from orchestrator.errors import CloudRefusal, UsageError
from orchestrator.job_queue.enqueue import EnqueueResult, enqueue
from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.job_states import JobState
from orchestrator.limits import concurrency_limit
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import Lease, Outcome
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.tracked_jobs import TrackedJob, load_tracked_job, postpone
from orchestrator.verification.unknown_jobs import (
    AbsenceTracker,
    left_to_operator,
    look_up_unknown_job,
)
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import AttemptResult, record
from orchestrator.worker.pre_send_check import check_before_send
from orchestrator.worker.send import outcome_of_exception
from tests.job_factory import (
    DEADLINE,
    PROFILE,
    TESTER,
    FakeClock,
    add_expected_objects,
    advance_time,
    claim_query,
    claim_with_permits,
    export_rate_limiter,
    now,
)
from tests.store_and_cloud import ignore_refusal, make_bucket_access, make_trust, verify_job

from .fake_vendor import Export, FakeCosClient, FakeVendor, PausePoint, ShortRepr, make_object_keys

SETTINGS = Settings(max_attempts=3, export_deadline=DEADLINE)
SECOND = timedelta(seconds=1)


class ProcessKilledError(Exception):
    """The process was killed."""


@dataclass(eq=False)
class Attempt(ShortRepr):
    """One attempt that a process holds.

    Args:
        acceptances: number of acceptances that were recorded when it was claimed.
        is_checking: whether its check before sending is in progress.
        can_send: whether it can be sent.
        outcome: its outcome, if it has one.
    """

    process: int
    lease: Lease
    acceptances: int
    is_checking: bool = False
    can_send: bool = False
    outcome: Outcome | None = None

    def __repr__(self) -> str:
        return f"<attempt {self.lease.attempt} of job {self.lease.job_id}>"


@dataclass
class SystemUnderTest:
    """The store, the vendor, and the processes and what they hold.

    Args:
        clock: the vendor's clock; on SQLite the store uses it too.
        acceptances: the exports whose acceptance has been recorded, in that order.
        retried: exports after which an operator wanted another, and which were not found since.
    """

    database: Database
    clock: FakeClock
    vendor: FakeVendor
    looks: FakeCosClient
    processes: dict[int, tuple[str, AsyncExitStack]] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    recorded: list[Attempt] = field(default_factory=list)
    settings: Settings = SETTINGS
    paused: list[tuple[int, PausePoint, asyncio.Task[None]]] = field(default_factory=list)
    acceptances: list[Export] = field(default_factory=list)
    retried: set[Export] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.trust = make_trust()
        self.absence = AbsenceTracker(self.clock)

    async def start(self, process: int) -> None:
        """Start a process."""
        stack = AsyncExitStack()
        name = (await stack.enter_async_context(register_worker(self.database))).name
        self.processes[process] = name, stack

    async def crash(self, process: int) -> None:
        """Kill a process with all that it holds, and start it again."""
        self.attempts = [attempt for attempt in self.attempts if attempt.process != process]
        for owner, _, task in self.paused:
            if owner == process:
                task.cancel()
        self.paused = [entry for entry in self.paused if entry[0] != process]
        _, stack = self.processes.pop(process)
        await stack.__aexit__(ProcessKilledError, ProcessKilledError(), None)
        self.absence = AbsenceTracker(self.clock)
        await self.start(process)

    async def pass_time(self, span: timedelta) -> None:
        """Advance the time of the store and of the vendor."""
        await advance_time(self.database, seconds=span.total_seconds())

    async def enqueue(self, request: ExportRequest, *, described: bool) -> EnqueueResult:
        """Enqueue a request; if described, its objects are known in advance."""
        made = await enqueue(self.database, [request], profile=PROFILE, batch="night", actor=TESTER)
        async with self.database.write() as connection:
            new = jobs.c.described_at.is_(None) & (jobs.c.attempt == 0)
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
        """Claim the next job for a process, within the concurrency limit.

        A job that a halt has put back is described before: here its images are not found.
        """
        async with self.database.write() as connection:
            undescribed = (jobs.c.state == JobState.QUEUED) & jobs.c.described_at.is_(None)
            described_at = await self.database.now(connection)
            await connection.execute(
                jobs.update().where(undescribed).values(described_at=described_at)
            )
        name, _ = self.processes[process]
        moment = await now(self.database)
        want = claim_query(
            is_tracked=lambda table: (
                ~left_to_operator(self.settings, self.database.now_in_query, list, table)
            )
        )
        claimed = await claim_with_permits(
            self.database, want, owner=name, signed_at=self.vendor.now()
        )
        if not claimed:
            return None
        ((lease, _),) = claimed
        async with self.database.read() as connection:
            (found,) = await concurrency_limit.concurrency_limits(connection, PROFILE, moment)
        assert lease.probe or found.ceiling is None or found.running <= found.ceiling
        attempt = Attempt(process, lease, len(self.acceptances))
        attempt.can_send = not lease.maybe_applied and not lease.exact_names
        self.attempts.append(attempt)
        return attempt

    async def clear(self, attempt: Attempt) -> None:
        """Check whether an attempt can be sent."""
        attempt.is_checking = True
        attempt.can_send = await check_before_send(
            self.database,
            self.looks,
            make_bucket_access(),
            attempt.lease,
            self.settings,
            ignore_refusal,
        )
        if not attempt.can_send:
            self.attempts.remove(attempt)
        await self._end_retry(attempt.lease.job_id)

    def arrive(self, attempt: Attempt, *, invisible_for: timedelta, answered: bool) -> None:
        """Deliver a request to the vendor; its answer can be lost."""
        before = self.vendor.of(attempt.lease.job_id)
        outcome = self.vendor.take(attempt.lease, invisible_for=invisible_for)
        if outcome.task_id is not None:
            for export in before:
                self._check_has_ended(export, attempt)
        attempt.outcome = outcome if answered else outcome_of_exception(httpx.ReadTimeout("late"))

    def _check_has_ended(self, export: Export, attempt: Attempt) -> None:
        assert export.given_up, f"{export} is exported twice, by {attempt}"
        known = export in self.acceptances[: attempt.acceptances] and export not in self.retried
        assert not known, f"{attempt} follows {export}, which was accepted and not retried"

    async def record(self, attempt: Attempt) -> None:
        """Record the outcome of an attempt."""
        assert attempt.outcome is not None
        decision = decide(attempt.lease, attempt.outcome, jitter=0.5)
        rate_limiter = export_rate_limiter(self.database)
        answer = AttemptResult(attempt.lease, attempt.outcome, decision, rate_limiter)
        await record(self.database, [answer], DEADLINE)
        if attempt in self.attempts:
            self.attempts.remove(attempt)
            self.recorded.append(attempt)
        self.acceptances += (
            export
            for export in self.vendor.exports
            if export.task_id == attempt.outcome.task_id and export not in self.acceptances
        )
        await self._end_retry(attempt.lease.job_id)

    async def recover_orphans(self, process: int) -> None:
        """Recover the orphaned jobs of other processes."""
        await recover_orphans(self.database, self.processes[process][0])

    async def look(self, job_id: int) -> None:
        """Look up the objects of a job once, if it is unknown or accepted."""
        async with self.database.write() as connection:
            job = await load_tracked_job(connection, job_id)
            if job.state in {JobState.UNKNOWN, JobState.ACCEPTED}:
                then = await self.database.now(connection) + SECOND
                await postpone(connection, {job_id: then})
        await self._settle_by_look(job)
        await self._end_retry(job_id)

    async def _settle_by_look(self, job: TrackedJob) -> None:
        try:
            if job.state is JobState.UNKNOWN:
                await look_up_unknown_job(
                    self.database,
                    self.looks,
                    self.trust,
                    job,
                    self.settings,
                    self.absence,
                    actor=TESTER,
                )
            elif job.state is JobState.ACCEPTED:
                await verify_job(self.database, self.looks, self.trust, job)
        except CloudRefusal:
            assert self.looks.denied

    async def pause_after_listing(self, process: int, work: Coroutine[Any, Any, None]) -> None:
        """Start some work of a process, and pause it after it has listed objects."""
        pause = self.looks.pause = PausePoint()
        task = asyncio.create_task(work)
        reached = asyncio.create_task(pause.reached.wait())
        await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        self.looks.pause = None
        self.paused.append((process, pause, task))

    async def resume(self) -> None:
        """Continue the work that has been paused longest."""
        _, pause, task = self.paused.pop(0)
        pause.over.set()
        await task

    async def settle(self, job_id: int) -> None:
        """Resolve an unknown job as an operator who knows what really happened."""
        absent = all(export.given_up for export in self.vendor.of(job_id))
        try:
            await operations.resolve(
                self.database,
                jobs.c.id == job_id,
                "absent" if absent else "accepted",
                why="seen in the console",
                export_deadline=DEADLINE,
                actor="person",
            )
        except UsageError:
            assert absent, "the verdict 'accepted' is never refused"
        else:
            self.retried.update(one for one in self.vendor.of(job_id) if one.given_up)
            await self._end_retry(job_id)

    async def retry(self) -> None:
        """Retry all failed and cancelled jobs as an operator."""
        async with self.database.read() as connection:
            ended = jobs.c.state.in_([JobState.FAILED, JobState.CANCELLED])
            failed = sa.select(jobs.c.id).where(ended)
            job_ids = list((await connection.execute(failed)).scalars())
        await operations.retry(self.database, jobs.c.id > 0, actor="person")
        for job_id in job_ids:
            self.retried.update(self.vendor.of(job_id))

    async def _end_retry(self, job_id: int) -> None:
        """Require another retry for another export, if the running one was found."""
        running = {export for export in self.vendor.of(job_id) if not export.given_up}
        if running & self.retried:
            async with self.database.read() as connection:
                query = sa.select(jobs.c.state).where(jobs.c.id == job_id)
                if await connection.scalar(query) == JobState.ACCEPTED:
                    self.retried -= running

    async def cancel(self) -> None:
        """Cancel all queued jobs as an operator."""
        await operations.cancel(self.database, jobs.c.id > 0, actor="person")

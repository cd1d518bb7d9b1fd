"""Poll the buckets for accepted and unknown jobs until each job is finished.

The store holds the time of each job's next look-up. A process reserves a due job by moving that
time on before it looks the job up, so that no other process does the same work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import anyio
import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.error_codes import cos_code_for
from orchestrator.errors import CloudRefusal, CredentialError
from orchestrator.forecast import Forecast
from orchestrator.job_states import JobState
from orchestrator.limits.admission import BUCKET_LOOKUP, Admission
from orchestrator.limits.concurrency_limit import regions_at_capacity
from orchestrator.limits.halted_scopes import WHOLE_ACCOUNT, bucket_location, bucket_location_column
from orchestrator.model import Outcome
from orchestrator.settings import Settings, VerifyMode
from orchestrator.store import BusyRetry, Database, GroupCommit
from orchestrator.store.tables import WATCHED, UtcDateTime, jobs
from orchestrator.verification.accepted_jobs import Finding, check_delivery, save_findings
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.poll_schedule import NextPoll, next_poll, rare_interval
from orchestrator.verification.resend_policy import save_first_trace, traced_buckets
from orchestrator.verification.tracked_jobs import TrackedJob, postpone, reserve_due_jobs
from orchestrator.verification.unknown_jobs import AbsenceTracker, resolve
from orchestrator.wakeup import Wakeup

_TICK = timedelta(milliseconds=200)
"""Time between two checks of the store for due jobs; shorter where one is due again sooner."""
_MIN_TICK = timedelta(milliseconds=50)

_LOOKUPS_AT_ONCE = 16
_MAX_RESERVED = 64
"""Jobs that this process has reserved and not looked up yet; the others wait in the store."""

_AFTER_FAILURE = timedelta(seconds=2)

_UNLISTED_AFTER = timedelta(seconds=5)
"""Time after which a listing should show an object that was just written."""


@dataclass(frozen=True, slots=True)
class _DueJob:
    """A job to look up now.

    Args:
        age: time since its export began.
        is_probe: whether it tests if a failing bucket answers again.
    """

    job: TrackedJob
    age: timedelta
    is_probe: bool = False

    @property
    def bucket(self) -> str:
        return bucket_location(self.job.region, self.job.bucket)


class Poller:
    """Look up the jobs of one profile, many at once, each when it is due.

    It polls the jobs of every batch, because each end that is seen frees capacity for all.

    Args:
        interval: time between two look-ups of one job; ``None`` follows its age and the forecast.
        actor: this process's registration.
    """

    def __init__(
        self,
        database: Database,
        cos: CosClient,
        buckets: BucketAccess,
        admission: Admission,
        settings: Settings,
        *,
        profile: str,
        interval: timedelta | None,
        actor: str,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
    ) -> None:
        self._database = database
        self._cos = cos
        self._buckets = buckets
        self._admission = admission
        self._settings = settings
        self._profile = profile
        self._interval = interval
        self._actor = actor
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._forecast = Forecast(database, settings.export_deadline)
        self._absence = AbsenceTracker(database.clock)
        self._findings = GroupCommit[Finding, JobState](partial(save_findings, database, actor))
        self._of_profile = jobs.c.profile == profile
        is_due = jobs.c.due_at <= sa.bindparam("now", type_=UtcDateTime)
        self._first_due = (
            sa.select(jobs.c.id).where(sa.text(WATCHED), is_due, self._of_profile).limit(1)
        )
        self._traced: set[tuple[str, str]] = set()
        """Region and name of the buckets in which an accepted job was found under its tag."""
        self._reserved: set[int] = set()
        """Jobs whose look-up has not ended."""
        self._lookups = anyio.Semaphore(_LOOKUPS_AT_ONCE, fast_acquire=True)

    async def run(self) -> None:
        """Poll until cancelled."""
        if self._buckets.mode is VerifyMode.OFF:
            return
        self._traced = await self._busy_retry.retry(self._traced_buckets)
        async with anyio.create_task_group() as lookups:
            while True:
                tick = _TICK
                if await self._busy_retry.retry(self._is_anything_due):
                    due, tick = await self._busy_retry.retry(self._reserve)
                    for one in due:
                        self._reserved.add(one.job.job_id)
                        lookups.start_soon(self._look_up, one)
                await anyio.sleep(tick.total_seconds())

    async def _traced_buckets(self) -> set[tuple[str, str]]:
        async with self._database.read() as connection:
            return await traced_buckets(connection, self._profile)

    async def _is_anything_due(self) -> bool:
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            return (await connection.execute(self._first_due, {"now": now})).first() is not None

    async def _reserve(self) -> tuple[list[_DueJob], timedelta]:
        """Reserve the jobs that are due; return those to look up, and when to reserve again."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            due = await self._due_jobs(connection, now)
            polls = await self._next_polls(connection, due, now)
            await postpone(
                connection,
                {one.job.job_id: now + poll.wait for one, poll in zip(due, polls, strict=True)},
            )
        lookups = [
            one
            for one, poll in zip(due, polls, strict=True)
            # a look-up that takes longer than its interval is still in progress
            if poll.is_due and one.job.job_id not in self._reserved
        ]
        soonest = min((poll.wait for poll in polls), default=_TICK)
        return lookups, min(_TICK, max(_MIN_TICK, soonest))

    async def _due_jobs(self, connection: AsyncConnection, now: datetime) -> list[_DueJob]:
        """Return due jobs of buckets that answer, and one for each failing bucket to be tried."""
        reserve = partial(reserve_due_jobs, connection, now=now)
        wanted = self._of_profile & self._buckets.readable()
        failing = self._buckets.failing_buckets()
        free = max(0, _MAX_RESERVED - len(self._reserved))
        found = await reserve(wanted & bucket_location_column().not_in(failing), limit=free)
        due = [_DueJob(job, _age(job, now)) for job in found]
        for bucket in filter(self._buckets.admit_probe, failing):
            probes = await reserve(wanted & (bucket_location_column() == bucket), limit=1)
            if not probes:
                self._buckets.release_probe(bucket)
            due += [_DueJob(job, _age(job, now), is_probe=True) for job in probes]
        return due

    async def _next_polls(
        self, connection: AsyncConnection, due: Sequence[_DueJob], now: datetime
    ) -> list[NextPoll]:
        """Return for each due job whether to look it up now, and when it is due again."""
        at_capacity = await regions_at_capacity(connection, self._profile) if due else frozenset()
        polls: list[NextPoll] = []
        for one in due:
            job = one.job
            if self._interval is not None or one.is_probe or job.state is JobState.UNKNOWN:
                wait = self._interval or rare_interval(one.age)
                polls.append(NextPoll(is_due=True, wait=wait))
                continue
            finished = await self._forecast.finished_exports(
                connection, job.profile, job.region, now
            )
            is_full = job.region in at_capacity
            polls.append(next_poll(finished, job.size_gib, one.age, at_capacity=is_full))
        return polls

    async def _look_up(self, one: _DueJob) -> None:
        """Look up one job once; if that fails, again soon: its next poll may be minutes away."""
        try:
            async with self._lookups:
                if not one.is_probe and one.bucket in self._buckets.failing_buckets():
                    return  # another job probes the bucket
                if (credential := await self._admission.credential()) is not None:
                    lookup = partial(self._look_up_and_learn, one, credential)
                    await self._busy_retry.retry(lookup)
        except (httpx.HTTPError, CredentialError) as error:
            # missing credentials are no fault of the bucket; the admission reports them
            if not isinstance(error, CredentialError):
                self._buckets.record_failure(one.bucket, str(error) or type(error).__name__)
            await self._busy_retry.retry(partial(self._look_up_again_soon, one.job))
        finally:
            self._reserved.discard(one.job.job_id)

    async def _look_up_and_learn(self, one: _DueJob, credential: Credential) -> None:
        asked_at = anyio.current_time()
        try:
            has_changed = await self._state_after_lookup(one) is not one.job.state
        except CloudRefusal as refusal:
            await self._look_up_again_soon(one.job)
            if self._buckets.record_refusal(one.bucket, refusal):
                self._wakeup.notify()
            code = cos_code_for(refusal)
            if code.scope in WHOLE_ACCOUNT:
                await self._admission.record_outcome(
                    BUCKET_LOOKUP,
                    one.bucket,
                    Outcome(code, refusal.service_message, http_status=refusal.http_status),
                    scope_values={},
                    asked_at=asked_at,
                    credential=credential,
                )
            return
        was_failing = self._buckets.record_success(one.bucket)
        if has_changed or was_failing:
            self._wakeup.notify()

    async def _look_up_again_soon(self, job: TrackedJob) -> None:
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            await postpone(connection, {job.job_id: now + _AFTER_FAILURE})

    async def _state_after_lookup(self, one: _DueJob) -> JobState:
        job = one.job
        if job.state is JobState.UNKNOWN:
            return await resolve(
                self._database, self._cos, job, self._settings, self._absence, self._actor
            )
        bucket = (job.region, job.bucket)
        finding = await check_delivery(
            self._cos,
            job,
            one.age,
            self._forecast,
            unlisted_after=max(self._settings.resend_after, _UNLISTED_AFTER),
            wants_trace=bucket not in self._traced and job.needs_first_trace,
        )
        is_first_trace = finding.trace_age is not None and job.needs_first_trace
        if is_first_trace:
            self._traced.add(bucket)
        if finding.is_final:
            return await self._findings.add(finding)
        if is_first_trace:
            async with self._database.write() as connection:
                now = await self._database.now(connection)
                await save_first_trace(connection, job, finding.first_trace_at(now))
        return job.state


def _age(job: TrackedJob, now: datetime) -> timedelta:
    # never negative: another clock may have recorded the start
    return max(timedelta(), now - (job.began_at or now))

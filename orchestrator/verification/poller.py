"""Poll the buckets for accepted and unknown jobs until each job is finished.

The store reserves a due job for the process that takes it first, until the job is due again. Until
then the process polls it as its schedule requires; a look-up that finds nothing writes nothing.
"""

from collections.abc import Container
from dataclasses import dataclass, replace
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
from orchestrator.verification.poll_schedule import PollSchedule, schedule
from orchestrator.verification.resend_policy import save_first_trace, traced_buckets
from orchestrator.verification.tracked_jobs import TrackedJob, postpone, reserve_due_jobs
from orchestrator.verification.unknown_jobs import AbsenceTracker, resolve
from orchestrator.wakeup import Wakeup

_TICK = 0.2
"""Seconds between two checks of the store for jobs that are due."""

_OVERLAP = 0.5
"""Seconds that a job is polled beyond its reservation, so that there is no gap before the next."""

_LOOKUPS_AT_ONCE = 16
_MAX_POLLED = 512
"""Jobs polled at once; the others wait in the store."""

_AFTER_FAILURE = timedelta(seconds=2)

_UNLISTED_AFTER = timedelta(seconds=5)
"""Time after which a listing should show an object that was just written."""


@dataclass(frozen=True, slots=True)
class _PolledJob:
    """A job that is reserved for this process; times are on the event loop's clock.

    Args:
        began_at: when its export began.
        until: when polling ends, unless the store reserves the job again.
        is_probe: whether it tests if a failing bucket answers again.
    """

    job: TrackedJob
    schedule: PollSchedule
    began_at: float
    until: float
    is_probe: bool

    @property
    def bucket(self) -> str:
        return bucket_location(self.job.region, self.job.bucket)

    @property
    def first_at(self) -> float:
        """Time of the first look-up."""
        return self.began_at + (0.0 if self.is_probe else self.schedule.first.total_seconds())

    @property
    def age(self) -> timedelta:
        return timedelta(seconds=anyio.current_time() - self.began_at)


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
        self._polled: dict[int, _PolledJob] = {}
        self._lookups = anyio.Semaphore(_LOOKUPS_AT_ONCE, fast_acquire=True)

    async def run(self) -> None:
        """Poll until cancelled."""
        if self._buckets.mode is VerifyMode.OFF:
            return
        self._traced = await self._busy_retry.retry(self._traced_buckets)
        async with anyio.create_task_group() as polls:
            while True:
                if await self._busy_retry.retry(self._is_anything_due):
                    for job_id in await self._busy_retry.retry(self._reserve):
                        polls.start_soon(self._poll, job_id)
                await anyio.sleep(_TICK)

    async def _traced_buckets(self) -> set[tuple[str, str]]:
        async with self._database.read() as connection:
            return await traced_buckets(connection, self._profile)

    async def _is_anything_due(self) -> bool:
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            return (await connection.execute(self._first_due, {"now": now})).first() is not None

    async def _reserve(self) -> list[int]:
        """Reserve the jobs that are due; return those that are to be polled from now on."""
        async with self._database.write() as connection:
            now, moment = await self._database.now(connection), anyio.current_time()
            due = await self._due_jobs(connection, now, moment)
            spans = {one.job.job_id: one.until - _OVERLAP - moment for one in due}
            then = {job_id: now + timedelta(seconds=span) for job_id, span in spans.items()}
            await postpone(connection, then)
        # the first look-up of the others belongs to a later reservation
        due = [one for one in due if one.first_at <= one.until]
        new = [one.job.job_id for one in due if one.job.job_id not in self._polled]
        self._polled.update({one.job.job_id: one for one in due})
        return new

    async def _due_jobs(
        self, connection: AsyncConnection, now: datetime, moment: float
    ) -> list[_PolledJob]:
        """Return due jobs of buckets that answer, and one for each failing bucket to be tried."""
        take = partial(reserve_due_jobs, connection, now=now)
        wanted = self._of_profile & self._buckets.readable()
        failing = self._buckets.failing_buckets()
        free = max(0, _MAX_POLLED - len(self._polled))
        found = await take(wanted & bucket_location_column().not_in(failing), limit=free)
        due = [(job, False) for job in found]
        for bucket in filter(self._buckets.admit_probe, failing):
            probes = await take(wanted & (bucket_location_column() == bucket), limit=1)
            if not probes:
                self._buckets.release_probe(bucket)
            due += [(job, True) for job in probes]
        at_capacity = await regions_at_capacity(connection, self._profile) if due else frozenset()
        polled: list[_PolledJob] = []
        for job, is_probe in due:
            # never negative: another clock may have recorded the start
            age = max(timedelta(), now - (job.began_at or now))
            plan = await self._schedule(connection, job, now, at_capacity)
            until = moment + plan.reservation(age).total_seconds() + _OVERLAP
            polled.append(_PolledJob(job, plan, moment - age.total_seconds(), until, is_probe))
        return polled

    async def _schedule(
        self, connection: AsyncConnection, job: TrackedJob, now: datetime, full: Container[str]
    ) -> PollSchedule:
        """Return when to poll a job; ``full`` are the regions at capacity."""
        if self._interval is not None:
            return PollSchedule(share=0.0, shortest=self._interval)
        if job.state is JobState.UNKNOWN:
            return PollSchedule()
        finished = await self._forecast.finished_exports(connection, job.profile, job.region, now)
        return schedule(finished, job.size_gib, at_capacity=job.region in full)

    async def _poll(self, job_id: int) -> None:
        """Look up one job for as long as it is reserved for this process."""
        moment = max(self._polled[job_id].first_at, anyio.current_time())
        try:
            while moment <= self._polled[job_id].until:
                await anyio.sleep_until(moment)
                one = self._polled[job_id]
                async with self._lookups:
                    if await self._look_up(one):
                        break
                moment = anyio.current_time() + one.schedule.interval(one.age).total_seconds()
        finally:
            del self._polled[job_id]

    async def _look_up(self, one: _PolledJob) -> bool:
        """Look up a job once; return whether it needs no further look-up for now."""
        if not one.is_probe and one.bucket in self._buckets.failing_buckets():
            return True  # another job probes the bucket
        try:
            if (credential := await self._admission.credential()) is not None:
                lookup = partial(self._look_up_and_learn, one, credential)
                return await self._busy_retry.retry(lookup)
        except (httpx.HTTPError, CredentialError) as error:
            # missing credentials are no fault of the bucket; the admission reports them
            if not isinstance(error, CredentialError):
                self._buckets.record_failure(one.bucket, str(error) or type(error).__name__)
            await self._busy_retry.retry(partial(self._look_up_again_soon, one.job))
        return True

    async def _look_up_and_learn(self, one: _PolledJob, credential: Credential) -> bool:
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
            return True
        was_failing = self._buckets.record_success(one.bucket)
        if has_changed or was_failing:
            self._wakeup.notify()
        return has_changed

    async def _look_up_again_soon(self, job: TrackedJob) -> None:
        """Make a job due soon: its next regular look-up could be minutes away."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            await postpone(connection, {job.job_id: now + _AFTER_FAILURE})

    async def _state_after_lookup(self, one: _PolledJob) -> JobState:
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
                traced_at = finding.first_trace_at(now)
                await save_first_trace(connection, job, traced_at)
            self._polled[job.job_id] = replace(one, job=replace(job, first_trace_at=traced_at))
        return job.state

"""Poll the buckets for accepted and unknown jobs until each job is finished.

A process reserves a due job by setting the time when it is due again; until then no other process
takes it. Meanwhile this process polls the job as its schedule requires. A look-up of an accepted
job that finds nothing writes nothing.
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
from orchestrator.export_durations import ExportDurations
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
from orchestrator.verification.job_objects import TrackedJob, postpone, reserve_due_jobs
from orchestrator.verification.poll_schedule import PollSchedule, schedule
from orchestrator.verification.resend_policy import save_first_trace, traced_buckets
from orchestrator.verification.unknown_jobs import AbsenceTracker, resolve
from orchestrator.wakeup import Wakeup

_TICK = 0.4
"""Seconds between two checks of the store for jobs that are due."""

_CONCURRENT_LOOKUPS = 16
_MAX_POLLED = 512
"""Maximum number of jobs polled at the same time; the others wait in the store."""

_AFTER_FAILURE = timedelta(seconds=2)

_UNLISTED_AFTER = timedelta(seconds=5)
"""Minimum age of an export at which an empty listing is no longer trusted."""


@dataclass(slots=True)
class _PolledJob:
    """A job that is reserved for this process; times are on the event loop's clock.

    Args:
        began_at: when its export began.
        until: end of the reservation.
        is_probe: whether its look-up tests if a failing bucket answers again.
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
    def age(self) -> timedelta:
        return timedelta(seconds=anyio.current_time() - self.began_at)


class Poller:
    """Look up the jobs of one profile, many at the same time, each when it is due.

    It polls the jobs of all batches: each export that is seen to end frees a slot for any job.

    Args:
        interval: time between two look-ups of one job; ``None``: from age and learned durations.
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
        self._durations = ExportDurations(database, settings.export_deadline)
        self._absence = AbsenceTracker(database.clock)
        self._findings = GroupCommit[Finding, JobState](partial(save_findings, database, actor))
        self._of_profile = jobs.c.profile == profile
        is_due = jobs.c.due_at <= sa.bindparam("now", type_=UtcDateTime)
        self._first_due = (
            sa.select(jobs.c.id).where(sa.text(WATCHED), is_due, self._of_profile).limit(1)
        )
        self._traced: set[tuple[str, str]] = set()
        """Region and name of the buckets in which an accepted job was found under its tag."""
        self._polled: set[int] = set()
        """Jobs whose polling has not ended."""
        self._lookups = anyio.Semaphore(_CONCURRENT_LOOKUPS, fast_acquire=True)

    async def run(self) -> None:
        """Poll until cancelled."""
        if self._buckets.mode is VerifyMode.OFF:
            return
        self._traced = await self._busy_retry.retry(self._traced_buckets)
        async with anyio.create_task_group() as polls:
            while True:
                if await self._busy_retry.retry(self._is_anything_due):
                    for one in await self._busy_retry.retry(self._reserve):
                        self._polled.add(one.job.job_id)
                        polls.start_soon(self._poll, one)
                await anyio.sleep(_TICK)

    async def _traced_buckets(self) -> set[tuple[str, str]]:
        async with self._database.read() as connection:
            return await traced_buckets(connection, self._profile)

    async def _is_anything_due(self) -> bool:
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            return (await connection.execute(self._first_due, {"now": now})).first() is not None

    async def _reserve(self) -> list[_PolledJob]:
        """Reserve the due jobs; return those whose polling begins now.

        Two kinds are reserved and not returned. A job whose first look-up is not near is due again
        half a second before it, or after five minutes if that is earlier. A job that this process
        is still polling, longer than its reservation, is only reserved for longer.
        """
        async with self._database.write() as connection:
            now, moment = await self._database.now(connection), anyio.current_time()
            polled: list[_PolledJob] = []
            then: dict[int, datetime] = {}
            at_capacity = await regions_at_capacity(connection, self._profile)
            for job, is_probe in await self._due_jobs(connection, now):
                # never negative: another clock may have recorded the start
                age = max(timedelta(), now - (job.began_at or now))
                polls = await self._schedule(connection, job, now, at_capacity)
                span = polls.reservation(age)
                then[job.job_id] = now + span
                began_at, until = moment - age.total_seconds(), moment + span.total_seconds()
                if polls.is_due(age) and job.job_id not in self._polled:
                    polled.append(_PolledJob(job, polls, began_at, until, is_probe))
                elif is_probe:
                    self._buckets.release_probe(bucket_location(job.region, job.bucket))
            await postpone(connection, then)
        return polled

    async def _due_jobs(
        self, connection: AsyncConnection, now: datetime
    ) -> list[tuple[TrackedJob, bool]]:
        """Return the due jobs of working buckets, and one probe for each failing one.

        A failing bucket gets a probe only when its circuit breaker admits one.
        """
        due_jobs = partial(reserve_due_jobs, connection, now=now)
        wanted = self._of_profile & self._buckets.readable()
        failing = self._buckets.failing_buckets()
        free = max(0, _MAX_POLLED - len(self._polled))
        working = await due_jobs(wanted & bucket_location_column().not_in(failing), limit=free)
        due = [(job, False) for job in working]
        for bucket in filter(self._buckets.admit_probe, failing):
            probes = await due_jobs(wanted & (bucket_location_column() == bucket), limit=1)
            if not probes:
                self._buckets.release_probe(bucket)
            due += [(job, True) for job in probes]
        return due

    async def _schedule(
        self,
        connection: AsyncConnection,
        job: TrackedJob,
        now: datetime,
        at_capacity: Container[str],
    ) -> PollSchedule:
        """Return when to poll a job; ``at_capacity`` are the regions that have a ceiling."""
        if self._interval is not None:
            return PollSchedule(share=0.0, shortest=self._interval)
        if job.state is JobState.UNKNOWN:
            return PollSchedule()
        finished = await self._durations.finished_exports(connection, job.profile, job.region, now)
        return schedule(finished, job.size_gib, at_capacity=job.region in at_capacity)

    async def _poll(self, one: _PolledJob) -> None:
        """Look up one job for as long as it is reserved for this process."""
        moment = max(one.began_at + one.schedule.first.total_seconds(), anyio.current_time())
        try:
            while moment < one.until:
                await anyio.sleep_until(moment)
                async with self._lookups:
                    if await self._look_up(one):
                        break
                moment = anyio.current_time() + one.schedule.interval(one.age).total_seconds()
        finally:
            self._polled.discard(one.job.job_id)

    async def _look_up(self, one: _PolledJob) -> bool:
        """Look up a job once; return whether to stop polling it for now."""
        if not one.is_probe and one.bucket in self._buckets.failing_buckets():
            return True  # another job probes the bucket
        try:
            if (credential := await self._admission.credential()) is not None:
                lookup = partial(self._look_up_and_record, one, credential)
                return await self._busy_retry.retry(lookup)
        except httpx.HTTPError as error:
            self._buckets.record_failure(one.bucket, str(error) or type(error).__name__)
            await self._busy_retry.retry(partial(self._look_up_again_soon, one.job))
            return True
        except CredentialError:
            await self._busy_retry.retry(partial(self._look_up_again_soon, one.job))
        # missing credentials are not a failure of the bucket; `Admission` reports them
        if one.is_probe:
            self._buckets.release_probe(one.bucket)
        return True

    async def _look_up_and_record(self, one: _PolledJob, credential: Credential) -> bool:
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
            self._durations,
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
            one.job = replace(job, first_trace_at=traced_at)
        return job.state

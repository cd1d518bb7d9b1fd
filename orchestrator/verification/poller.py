"""Poll the buckets for accepted and unknown jobs until each job is finished.

The store reserves a job for the process that takes it first, for a while. Within that time the
process polls as often as the schedule requires; a look-up that finds nothing writes nothing.
"""

import math
from collections.abc import Sequence
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

_MAX_LOOKUPS = 16
"""Look-ups in flight at once."""

_MAX_POLLED = 512
"""Jobs polled at once; the others wait in the store."""

_OVERLAP = 0.5
"""Seconds that a job is polled beyond its reservation, so that there is no gap before the next."""

_AFTER_FAILURE = timedelta(seconds=2)

_UNLISTED_AFTER = timedelta(seconds=5)
"""Time after which a listing should show an object that was just written."""


@dataclass(slots=True)
class _PolledJob:
    """A job that this process polls; times are on the event loop's clock.

    Args:
        began_at: when its export began.
        until: end of its reservation, unless the store reserves it again.
    """

    job: TrackedJob
    schedule: PollSchedule
    began_at: float
    until: float

    def renew(self, other: "_PolledJob") -> None:
        """Replace job and schedule by those that the store returned now."""
        self.job, self.schedule = other.job, other.schedule
        self.began_at, self.until = other.began_at, other.until

    def first_lookup(self) -> float:
        """Return the time of the first look-up, which may have passed."""
        return self.began_at + self.schedule.first.total_seconds()

    def lookup_after(self, moment: float) -> float:
        """Return the time of the look-up that follows one at this time."""
        age = self.schedule.after(timedelta(seconds=moment - self.began_at))
        return math.inf if age is None else self.began_at + age.total_seconds()


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
        self._probing: set[int] = set()
        """Jobs that probe whether a failing bucket answers again."""
        self._lookups = anyio.Semaphore(_MAX_LOOKUPS, fast_acquire=True)

    async def run(self) -> None:
        """Poll until cancelled."""
        if self._buckets.mode is VerifyMode.OFF:
            return
        self._traced = await self._busy_retry.retry(self._traced_buckets)
        async with anyio.create_task_group() as polls:
            while True:
                if await self._busy_retry.retry(self._is_anything_due):
                    for one in await self._busy_retry.retry(self._reserve):
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
        """Reserve the jobs that are due; return those that are not polled yet."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            due = await self._due_jobs(connection, now)
            schedules = await self._schedules(connection, due, now)
            spans = [
                self._interval or one.due_again(_age(job, now))
                for job, one in zip(due, schedules, strict=True)
            ]
            then = {job.job_id: now + span for job, span in zip(due, spans, strict=True)}
            await postpone(connection, then)
        moment = anyio.current_time()
        new: list[_PolledJob] = []
        for job, one_schedule, span in zip(due, schedules, spans, strict=True):
            began_at = moment - _age(job, now).total_seconds()
            until = moment + span.total_seconds() + _OVERLAP
            one = _PolledJob(job, one_schedule, began_at, until)
            if (known := self._polled.get(job.job_id)) is not None:
                known.renew(one)
            elif job.job_id in self._probing and one.first_lookup() > moment + _TICK:
                # its look-up is not due soon: let another job probe the bucket
                self._probing.discard(job.job_id)
                self._buckets.release_probe(bucket_location(job.region, job.bucket))
            elif one.first_lookup() <= one.until:
                self._polled[job.job_id] = one
                new.append(one)
        return new

    async def _due_jobs(self, connection: AsyncConnection, now: datetime) -> list[TrackedJob]:
        """Return due jobs of buckets that answer, and one for each failing bucket to be tried."""
        reserve = partial(reserve_due_jobs, connection, now=now)
        wanted = self._of_profile & self._buckets.readable()
        failing = self._buckets.failing_buckets()
        free = max(0, _MAX_POLLED - len(self._polled))
        due = await reserve(wanted & bucket_location_column().not_in(failing), limit=free)
        for bucket in filter(self._buckets.admit_probe, failing):
            probe = await reserve(wanted & (bucket_location_column() == bucket), limit=1)
            if not probe:
                self._buckets.release_probe(bucket)
            self._probing.update(job.job_id for job in probe)
            due += probe
        return due

    async def _schedules(
        self, connection: AsyncConnection, due: Sequence[TrackedJob], now: datetime
    ) -> list[PollSchedule]:
        at_capacity = await regions_at_capacity(connection, self._profile) if due else frozenset()
        schedules: list[PollSchedule] = []
        for job in due:
            one = PollSchedule()
            if self._interval is None and job.state is JobState.ACCEPTED:
                finished = await self._forecast.finished_exports(
                    connection, job.profile, job.region, now
                )
                one = schedule(finished, job.size_gib, at_capacity=job.region in at_capacity)
            schedules.append(one)
        return schedules

    async def _poll(self, one: _PolledJob) -> None:
        """Look up one job for as long as it is reserved for this process."""
        try:
            moment = max(one.first_lookup(), anyio.current_time())
            while moment <= one.until:
                await anyio.sleep_until(moment)
                if self._is_left_to_probe(one.job):
                    break
                async with self._lookups:
                    if await self._look_up(one):
                        break
                moment = one.lookup_after(anyio.current_time())
        finally:
            self._polled.pop(one.job.job_id, None)
            self._probing.discard(one.job.job_id)

    def _is_left_to_probe(self, job: TrackedJob) -> bool:
        """Return whether its bucket is failing and another job probes it."""
        is_failing = bucket_location(job.region, job.bucket) in self._buckets.failing_buckets()
        return is_failing and job.job_id not in self._probing

    async def _look_up(self, one: _PolledJob) -> bool:
        """Look up a job once; return whether it needs no further look-up for now."""
        job = one.job
        try:
            if (credential := await self._admission.credential()) is not None:
                lookup = partial(self._look_up_and_learn, one, credential)
                return await self._busy_retry.retry(lookup)
        except (httpx.HTTPError, CredentialError) as error:
            # missing credentials are no fault of the bucket; the admission reports them
            if not isinstance(error, CredentialError):
                location = bucket_location(job.region, job.bucket)
                self._buckets.record_failure(location, str(error) or type(error).__name__)
            await self._busy_retry.retry(partial(self._look_up_again_soon, job))
        return True

    async def _look_up_and_learn(self, one: _PolledJob, credential: Credential) -> bool:
        location = bucket_location(one.job.region, one.job.bucket)
        asked_at = anyio.current_time()
        try:
            has_changed = await self._state_after_lookup(one) is not one.job.state
        except CloudRefusal as refusal:
            await self._look_up_again_soon(one.job)
            if self._buckets.record_refusal(location, refusal):
                self._wakeup.notify()
            code = cos_code_for(refusal)
            if code.scope in WHOLE_ACCOUNT:
                await self._admission.record_outcome(
                    BUCKET_LOOKUP,
                    location,
                    Outcome(code, refusal.service_message, http_status=refusal.http_status),
                    scope_values={},
                    asked_at=asked_at,
                    credential=credential,
                )
            return True
        was_failing = self._buckets.record_success(location)
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
        result = await check_delivery(
            self._cos,
            job,
            timedelta(seconds=anyio.current_time() - one.began_at),
            self._forecast,
            unlisted_after=max(self._settings.resend_after, _UNLISTED_AFTER),
            wants_trace=bucket not in self._traced and job.needs_first_trace,
        )
        if result.trace_age is not None and job.needs_first_trace:
            self._traced.add(bucket)
        if result.finding is not None:
            return await self._findings.add(result.finding)
        if result.trace_age is not None and job.needs_first_trace:
            one.job = await self._save_first_trace(job, result.trace_age)
        return job.state

    async def _save_first_trace(self, job: TrackedJob, age: timedelta) -> TrackedJob:
        async with self._database.write() as connection:
            traced_at = job.first_trace(await self._database.now(connection), age)
            await save_first_trace(connection, job, traced_at)
        return replace(job, first_trace_at=traced_at)


def _age(job: TrackedJob, now: datetime) -> timedelta:
    # never negative: another clock may have recorded the start
    return max(timedelta(), now - (job.began_at or now))

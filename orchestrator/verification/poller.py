"""Poll the buckets for accepted and unknown jobs until each job is finished.

A process reserves a due job by setting the time when it is due again; until then no other process
takes it. Meanwhile this process polls the job as its schedule requires. A look-up of an accepted
job that finds nothing writes nothing.
"""

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
from orchestrator.errors import CloudRefusal, CredentialError
from orchestrator.export_durations import (
    FinishedExport,
    earliest_end,
    latest_finished_exports,
)
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.limits.concurrency_limit import regions_at_capacity
from orchestrator.model import bucket_location
from orchestrator.settings import Settings, VerifyMode
from orchestrator.store import BusyRetry, Database, GroupCommit
from orchestrator.store.tables import TRACKED, UtcDateTime, bucket_location_column, jobs
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.bucket_trust import calibrate
from orchestrator.verification.delivery_check import Finding, check_delivery, save_findings
from orchestrator.verification.tracked_jobs import TrackedJob, postpone, reserve_due_jobs
from orchestrator.verification.unknown_jobs import AbsenceTracker, look_up_unknown_job
from orchestrator.wakeup import Wakeup

_TICK = 0.4
"""Seconds between two checks of the store for jobs that are due."""

_CONCURRENT_LOOKUPS = 16
_MAX_POLLED = 512
"""Maximum number of jobs polled at the same time; the others wait in the store."""

_AFTER_FAILURE = timedelta(seconds=2)

_OFTEN = 0.02
"""Time between two polls, as a share of the age, where an end frees a needed slot."""
_MIN_OFTEN = timedelta(milliseconds=40)

_GUESSING = 0.05
"""The same where no export has finished yet whose duration says anything about this one."""
_MIN_GUESSING = timedelta(milliseconds=200)

_RARELY = 0.1
"""The same where no slot is needed: there an end that is seen late costs nothing."""
_MIN_RARELY = timedelta(seconds=1)
_MOST_ENDED = 0.5
"""There the first poll comes when this share of similar exports has ended."""

_LEAD = timedelta(milliseconds=500)
"""A job is reserved for polling this long before its first poll, so that the poll is not late."""

_MIN_RESERVATION, _MAX_RESERVATION = timedelta(seconds=1), timedelta(minutes=5)
"""A shorter reservation would write the store too often; after a longer one of a process that died,
an export would not be polled for too long."""


@dataclass(frozen=True, slots=True)
class PollSchedule:
    """The polls of one export; by default those of a job whose end frees no needed slot.

    Args:
        first: age at the first poll.
        share: time between two polls, as a share of the age.
        shortest: minimum time between two polls.
    """

    first: timedelta = timedelta()
    share: float = _RARELY
    shortest: timedelta = _MIN_RARELY

    def is_due(self, age: timedelta) -> bool:
        """Return whether polling begins now, or within half a second."""
        return self.first - age <= _LEAD

    def interval(self, age: timedelta) -> timedelta:
        """Return the time between a poll at this age and the next one."""
        return max(self.shortest, min(age * self.share, _MAX_RESERVATION))

    def reservation(self, age: timedelta) -> timedelta:
        """Return how long a process reserves an export of this age for itself."""
        wait = self.first - age
        if not self.is_due(age):
            return min(wait - _LEAD, _MAX_RESERVATION)
        return max(wait, timedelta()) + max(self.interval(age), _MIN_RESERVATION)


def schedule(
    finished: Sequence[FinishedExport], size_gib: int, *, at_capacity: bool
) -> PollSchedule:
    """Return the polls of an export of this size.

    Args:
        finished: the newest finished exports of its scope.
        at_capacity: the concurrency limit of its scope is reached: its end frees a slot.
    """
    if not at_capacity:
        return PollSchedule(earliest_end(finished, size_gib, share=_MOST_ENDED))
    first = earliest_end(finished, size_gib)
    if not first:
        return PollSchedule(first, _GUESSING, _MIN_GUESSING)
    return PollSchedule(first, _OFTEN, _MIN_OFTEN)


@dataclass(slots=True)
class _PolledJob:
    """A job that is reserved for this process; times are on the event loop's clock.

    Args:
        finished: the newest finished exports of its scope.
        began_at: when its export began.
        until: end of the reservation.
        is_probe: whether its look-up tests if a failing bucket answers again.
        again_in: time to the next look-up, if the last one was not a matter of the schedule.
    """

    job: TrackedJob
    finished: Sequence[FinishedExport]
    schedule: PollSchedule
    began_at: float
    until: float
    is_probe: bool
    again_in: timedelta | None = None

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
        actor: str,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
    ) -> None:
        self._database = database
        self._cos = cos
        self._buckets = buckets
        self._admission = admission
        self._settings = settings
        self._actor = actor
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._absence = AbsenceTracker(database.clock)
        self._findings = GroupCommit[Finding, JobState](partial(save_findings, database, actor))
        self._of_profile = jobs.c.profile == settings.profile
        is_due = jobs.c.due_at <= sa.bindparam("now", type_=UtcDateTime)
        self._first_due = (
            sa.select(jobs.c.id).where(sa.text(TRACKED), is_due, self._of_profile).limit(1)
        )
        self._traced: set[str] = set()
        """The buckets in which this run has found an accepted job under its tag."""
        self._polled: set[int] = set()
        """Jobs whose polling has not ended."""
        self._lookups = anyio.Semaphore(_CONCURRENT_LOOKUPS, fast_acquire=True)

    async def run(self) -> None:
        """Poll until cancelled."""
        if self._buckets.mode is VerifyMode.OFF:
            return
        async with anyio.create_task_group() as polls:
            while True:
                if await self._busy_retry.retry(self._is_anything_due):
                    for one in await self._busy_retry.retry(self._reserve):
                        self._polled.add(one.job.job_id)
                        polls.start_soon(self._poll, one)
                await anyio.sleep(_TICK)

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
            due = await self._due_jobs(connection, now)
            polled: list[_PolledJob] = []
            then: dict[int, datetime] = {}
            profile = self._settings.profile
            at_capacity = await regions_at_capacity(connection, profile)
            finished_in = {
                region: await latest_finished_exports(connection, profile, region, now)
                for region in {job.region for job, _ in due}
            }
            for job, is_probe in due:
                finished = finished_in[job.region]
                # never negative: another clock may have recorded the start
                age = max(timedelta(), now - (job.began_at or now))
                if self._settings.verify_interval is not None:
                    polls = PollSchedule(share=0.0, shortest=self._settings.verify_interval)
                elif job.state is JobState.UNKNOWN:
                    polls = PollSchedule()
                else:
                    is_full = job.region in at_capacity
                    polls = schedule(finished, job.size_gib, at_capacity=is_full)
                span = polls.reservation(age)
                then[job.job_id] = now + span
                began_at, until = moment - age.total_seconds(), moment + span.total_seconds()
                if polls.is_due(age) and job.job_id not in self._polled:
                    one = _PolledJob(job, finished, polls, began_at, until, is_probe)
                    polled.append(one)
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

    async def _poll(self, one: _PolledJob) -> None:
        """Look up one job for as long as it is reserved for this process."""
        moment = max(one.began_at + one.schedule.first.total_seconds(), anyio.current_time())
        try:
            while moment < one.until:
                await anyio.sleep_until(moment)
                async with self._lookups:
                    if await self._look_up(one):
                        break
                wait = one.again_in or one.schedule.interval(one.age)
                moment = anyio.current_time() + wait.total_seconds()
        finally:
            self._polled.discard(one.job.job_id)

    async def _look_up(self, one: _PolledJob) -> bool:
        """Look up a job once; return whether to stop polling it for now."""
        if not one.is_probe and one.bucket in self._buckets.failing_buckets():
            # another job probes the bucket
            await self._busy_retry.retry(partial(self._look_up_again_soon, one.job))
            return True
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
            await self._admission.record_refused_lookup(
                one.bucket, refusal, asked_at=asked_at, credential=credential
            )
            return True
        was_failing = False
        if one.job.is_locatable:  # else nothing was asked
            self._admission.record_lookup(one.bucket)
            was_failing = self._buckets.record_success(one.bucket)
        elif one.is_probe:
            self._buckets.release_probe(one.bucket)
        if has_changed or was_failing:
            self._wakeup.notify()
        return has_changed

    async def _look_up_again_soon(self, job: TrackedJob) -> None:
        """Make a job due soon: its next regular look-up could be minutes away."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            await postpone(connection, {job.job_id: now + _AFTER_FAILURE})

    async def _state_after_lookup(self, one: _PolledJob) -> JobState:
        job, database = one.job, self._database
        trust = self._buckets.trust[one.bucket]
        await calibrate(database, self._cos, trust, job)
        if job.state is JobState.UNKNOWN:
            state = await look_up_unknown_job(
                database, self._cos, trust, job, self._settings, self._absence, actor=self._actor
            )
            if state is JobState.ACCEPTED:
                await self._admission.record_reconciliation(job.job_id)
            return state
        finding = await check_delivery(
            self._cos,
            trust,
            job,
            one.age,
            one.finished,
            self._settings,
            wants_trace=one.bucket not in self._traced and job.needs_first_trace,
        )
        await trust.save(database, job)
        one.again_in = finding.again_in
        if finding.trace_age is None and not finding.is_final:
            return job.state
        state = await self._findings.add(finding)
        trust.forget(finding.evidence.found if finding.is_final else ())
        if finding.trace_age is not None:
            self._traced.add(one.bucket)
            # any time shows that it is known
            one.job = replace(job, first_trace_at=database.clock.now())
        return state

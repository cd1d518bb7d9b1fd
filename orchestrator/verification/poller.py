"""Keeps looking at accepted and unknown jobs until each has come to its end."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
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
from orchestrator.limits.admission import LOOK, Admission
from orchestrator.limits.circuit_breaker import CircuitBreaker
from orchestrator.limits.concurrency_limit import regions_at_capacity
from orchestrator.limits.halted_scopes import WHOLE_ACCOUNT, bucket_location, bucket_location_column
from orchestrator.model import Outcome, Reaction
from orchestrator.store import BusyRetry, Database, GroupCommit
from orchestrator.store.tables import WATCHED, UtcDateTime, jobs
from orchestrator.verification.accepted_jobs import Finding, examine, save_findings
from orchestrator.verification.bucket_permissions import BucketPermissions, VerifyMode
from orchestrator.verification.expected_objects import TrackedJob, due, postpone
from orchestrator.verification.poll_schedule import PollSchedule, schedule
from orchestrator.verification.resend_policy import ResolvePolicy, save_first_trace, traced_buckets
from orchestrator.verification.unknown_jobs import resolve
from orchestrator.wakeup import Wakeup

_TICK = 0.2
"""Seconds between looks at the store for jobs that are due."""

_AT_ONCE = 16
_FOLLOWED = 512
"""Jobs that are followed at once; the store keeps the others until some of these have ended."""

_LINGER = 0.5
"""Seconds that a job is followed beyond what the store was told, so that no end falls between."""

_AFTER_FAILURE = timedelta(seconds=2)

_UNLISTED_AFTER = timedelta(seconds=5)
"""A listing is given so much time at least to show what was just written."""

_TOLERATED_FAILURES = 9
"""Looks in a row that may fail; with one more, one at a time finds out when the bucket answers."""


@dataclass(slots=True)
class _PolledJob:
    """A job that this process looks for, with moments of the event loop's clock.

    Args:
        begun: when its export began.
        until: no longer, unless the store gives it to us again.
    """

    job: TrackedJob
    schedule: PollSchedule
    begun: float
    until: float

    def renew(self, other: "_PolledJob") -> None:
        """Goes on with what the store says of the job now."""
        self.job, self.schedule = other.job, other.schedule
        self.begun, self.until = other.begun, other.until

    def first_look(self) -> float:
        """The moment of the first look, which may be past."""
        return self.begun + self.schedule.first.total_seconds()

    def look_after(self, moment: float) -> float:
        """The moment of the look that follows one at this moment."""
        age = self.schedule.after(timedelta(seconds=moment - self.begun))
        return math.inf if age is None else self.begun + age.total_seconds()


class Poller:
    """Looks into the buckets, so many jobs at once, each when it is due.

    The store leaves a job for a while to the process that asks first; within that time it looks
    as often as the schedule says, and what finds nothing writes nothing.

    Args:
        profile: the account whose jobs are looked for, of every batch: an end that is seen frees a
            place for all.
        interval: time between looks at one job; ``None`` follows its age, and what others took.
        actor: this process's instance.
        tell: takes sentences for the user.
    """

    def __init__(
        self,
        database: Database,
        cos: CosClient,
        permissions: BucketPermissions,
        admission: Admission,
        policy: ResolvePolicy,
        *,
        profile: str,
        interval: timedelta | None,
        actor: str,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
        notify: Callable[[str], None],
    ) -> None:
        self._database = database
        self._cos = cos
        self._permissions = permissions
        self._admission = admission
        self._policy = policy
        self._profile = profile
        self._wanted = jobs.c.profile == profile
        self._traced: set[tuple[str, str]] = set()
        """Buckets, by region, in which an accepted job was found under its tag."""
        is_due = jobs.c.due_at <= sa.bindparam("now", type_=UtcDateTime)
        self._first_due = (
            sa.select(jobs.c.id).where(sa.text(WATCHED), is_due, self._wanted).limit(1)
        )
        self._interval = interval
        self._actor = actor
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._notify = notify
        self._forecast = Forecast(database, policy.export_deadline)
        self._findings = GroupCommit[Finding, JobState](partial(save_findings, database, actor))
        self._followed: dict[int, _PolledJob] = {}
        self._probers: set[int] = set()
        self._looking = anyio.Semaphore(_AT_ONCE, fast_acquire=True)
        self._breakers: defaultdict[str, CircuitBreaker] = defaultdict(CircuitBreaker)

    async def run(self) -> None:
        """Looks until cancelled."""
        if self._permissions.mode is VerifyMode.OFF:
            return
        self._traced = await self._busy_retry.retry(self._traced_buckets)
        async with anyio.create_task_group() as looks:
            while True:
                if await self._busy_retry.retry(self._anything_due):
                    for one in await self._busy_retry.retry(self._reserve):
                        looks.start_soon(self._follow, one)
                await anyio.sleep(_TICK)

    async def _traced_buckets(self) -> set[tuple[str, str]]:
        async with self._database.read() as connection:
            return await traced_buckets(connection, self._profile)

    async def _anything_due(self) -> bool:
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            return (await connection.execute(self._first_due, {"now": now})).first() is not None

    async def _reserve(self) -> list[_PolledJob]:
        """Takes what is due off the others, and returns what is not followed yet."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            found = await self._due(connection, now)
            planned = await self._planned(connection, found, now)
            spans = [self._span(one, plan, now) for one, plan in zip(found, planned, strict=True)]
            then = {one.job_id: now + span for one, span in zip(found, spans, strict=True)}
            await postpone(connection, then)
        moment = anyio.current_time()
        fresh: list[_PolledJob] = []
        for job, plan, span in zip(found, planned, spans, strict=True):
            begun = moment - _age(job, now).total_seconds()
            one = _PolledJob(job, plan, begun, moment + span.total_seconds() + _LINGER)
            if (known := self._followed.get(job.job_id)) is not None:
                known.renew(one)
            elif job.job_id in self._probers and one.first_look() > moment + _TICK:
                # it would find nothing out for a while: another may
                self._probers.discard(job.job_id)
                self._breakers[bucket_location(job.region, job.bucket)].release()
            elif one.first_look() <= one.until:
                self._followed[job.job_id] = one
                fresh.append(one)
        return fresh

    async def _due(self, connection: AsyncConnection, now: datetime) -> list[TrackedJob]:
        reserve = partial(due, connection, now=now)
        wanted = self._wanted & self._permissions.readable()
        failing = sorted(place for place in self._breakers if self._breakers[place].is_open)
        free = _FOLLOWED - len(self._followed)
        found = await reserve(wanted & bucket_location_column().not_in(failing), limit=max(0, free))
        for place in filter(lambda place: self._breakers[place].admit(), failing):
            prober = await reserve(wanted & (bucket_location_column() == place), limit=1)
            if not prober:
                self._breakers[place].release()
            self._probers.update(job.job_id for job in prober)
            found += prober
        return found

    async def _planned(
        self, connection: AsyncConnection, found: Sequence[TrackedJob], now: datetime
    ) -> list[PollSchedule]:
        plans: list[PollSchedule] = []
        at_capacity = {
            profile: await regions_at_capacity(connection, profile)
            for profile in {job.profile for job in found}
        }
        for job in found:
            plan = PollSchedule()
            if self._interval is None and job.state is JobState.ACCEPTED:
                here = (job.profile, job.region)
                finished = await self._forecast.finished_exports(connection, *here, now)
                is_at_capacity = job.region in at_capacity[job.profile]
                plan = schedule(finished, job.size_gib, at_capacity=is_at_capacity)
            plans.append(plan)
        return plans

    def _span(self, job: TrackedJob, plan: PollSchedule, now: datetime) -> timedelta:
        return self._interval or plan.due_again(_age(job, now))

    async def _follow(self, one: _PolledJob) -> None:
        """Looks at one job for as long as the store leaves it to us."""
        try:
            moment = max(one.first_look(), anyio.current_time())
            while moment <= one.until:
                await anyio.sleep_until(moment)
                if self._is_for_others(one.job):
                    break
                async with self._looking:
                    if await self._look_at(one):
                        break
                moment = one.look_after(anyio.current_time())
        finally:
            self._followed.pop(one.job.job_id, None)
            self._probers.discard(one.job.job_id)

    def _is_for_others(self, job: TrackedJob) -> bool:
        """Whether its bucket gives no answer, and another job finds out when it does again."""
        place = bucket_location(job.region, job.bucket)
        return self._breakers[place].is_open and job.job_id not in self._probers

    async def _look_at(self, one: _PolledJob) -> bool:
        """Looks once; true when there is nothing to follow any more."""
        job = one.job
        place = bucket_location(job.region, job.bucket)
        try:
            if (credential := await self._admission.credential()) is not None:
                looking = partial(self._look_and_learn, one, place, credential)
                return await self._busy_retry.retry(looking)
        except (httpx.HTTPError, CredentialError) as error:
            # keys that went away are no fault of the bucket's; the traffic asks for them, and tells
            if not isinstance(error, CredentialError):
                self._failed(place, str(error) or type(error).__name__)
            await self._busy_retry.retry(partial(self._look_again_soon, job))
        return True

    async def _look_and_learn(self, one: _PolledJob, place: str, credential: Credential) -> bool:
        asked_at = anyio.current_time()
        try:
            has_changed = await self._state_after_look(one) is not one.job.state
        except CloudRefusal as refusal:
            await self._refused(one.job, place, refusal, credential, asked_at)
            return True
        self._permissions.record_success(place)
        self._answered(place)
        if has_changed:
            self._wakeup.notify()
        return has_changed

    async def _refused(
        self,
        job: TrackedJob,
        place: str,
        refusal: CloudRefusal,
        credential: Credential,
        asked_at: float,
    ) -> None:
        await self._look_again_soon(job)
        if self._permissions.record_refusal(place, refusal):
            self._wakeup.notify()
        outcome = Outcome(cos_code_for(refusal), refusal.said, http_status=refusal.http_status)
        if outcome.code.reaction is Reaction.RETRY:
            self._failed(place, str(refusal))
        else:
            self._answered(place)
        if outcome.code.scope in WHOLE_ACCOUNT:
            await self._admission.record_outcome(
                LOOK, place, outcome, scope_values={}, asked_at=asked_at, credential=credential
            )

    def _failed(self, place: str, why: str) -> None:
        if self._breakers[place].record_failure(tolerated=_TOLERATED_FAILURES):
            self._notify(f"The bucket {place} gives no answer ({why}); one look at a time.")

    def _answered(self, place: str) -> None:
        if self._breakers[place].record_success():
            self._notify(f"The bucket {place} answers again.")
            self._wakeup.notify()

    async def _look_again_soon(self, job: TrackedJob) -> None:
        """A look that failed is none: an old export's next one would be minutes away."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            await postpone(connection, {job.job_id: now + _AFTER_FAILURE})

    async def _state_after_look(self, one: _PolledJob) -> JobState:
        job = one.job
        if job.state is JobState.UNKNOWN:
            return await resolve(self._database, self._cos, job, self._policy, self._actor)
        place = (job.region, job.bucket)
        seen = await examine(
            self._cos,
            job,
            timedelta(seconds=anyio.current_time() - one.begun),
            self._forecast,
            unlisted_after=max(self._policy.resend_after, _UNLISTED_AFTER),
            wants_trace=place not in self._traced and job.needs_first_trace,
        )
        if seen.trace_age is not None and job.needs_first_trace:
            self._traced.add(place)
        if seen.finding is not None:
            return await self._findings.add(seen.finding)
        if seen.trace_age is not None and job.needs_first_trace:
            one.job = await self._keep_first_trace(job, seen.trace_age)
        return job.state

    async def _keep_first_trace(self, job: TrackedJob, age: timedelta) -> TrackedJob:
        async with self._database.write() as connection:
            left_at = job.first_trace(await self._database.now(connection), age)
            await save_first_trace(connection, job, left_at)
        return replace(job, first_trace_at=left_at)


def _age(job: TrackedJob, now: datetime) -> timedelta:
    # another clock may have told when it began
    return max(timedelta(), now - (job.begun or now))

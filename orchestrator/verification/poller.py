"""Keeps looking at accepted and unknown jobs until each has come to its end."""

import math
from collections import Counter, defaultdict
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
from orchestrator.limits.admission import LOOK, Traffic
from orchestrator.limits.circuit_breaker import Outage
from orchestrator.limits.concurrency_limit import pressed_regions
from orchestrator.limits.halted_scopes import WHOLE_ACCOUNT, bucket_place, place_of
from orchestrator.model import JobState, Outcome, Reaction
from orchestrator.store import Database, Grouped, Patience
from orchestrator.store.tables import WATCHED, Moment, jobs
from orchestrator.verification.accepted_jobs import Finding, examine, keep_findings
from orchestrator.verification.bucket_permissions import Sight, VerifyMode
from orchestrator.verification.expected_objects import Watched, due, postpone
from orchestrator.verification.experience import Experience
from orchestrator.verification.export_deadline import Deadlines
from orchestrator.verification.poll_schedule import Schedule, schedule
from orchestrator.verification.resend_policy import ResolvePolicy, keep_first_trace, traced_buckets
from orchestrator.verification.unknown_jobs import resolve
from orchestrator.wakeup import News

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

_FAILURES = 10
"""Looks in a row that fail: then one at a time finds out when the bucket answers again."""


@dataclass(slots=True)
class _Followed:
    """A job that this process looks for, with moments of the event loop's clock.

    Args:
        begun: when its export began.
        until: no longer, unless the store gives it to us again.
    """

    job: Watched
    schedule: Schedule
    begun: float
    until: float

    def renew(self, other: "_Followed") -> None:
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


class Watcher:
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
        sight: Sight,
        traffic: Traffic,
        policy: ResolvePolicy,
        *,
        profile: str,
        interval: timedelta | None,
        actor: str,
        patience: Patience,
        news: News,
        tell: Callable[[str], None],
    ) -> None:
        self._database = database
        self._cos = cos
        self._sight = sight
        self._traffic = traffic
        self._policy = policy
        self._profile = profile
        self._wanted = jobs.c.profile == profile
        self._traced: set[tuple[str, str]] = set()
        """Buckets, by region, in which an accepted job was found under its tag."""
        is_due = jobs.c.due_at <= sa.bindparam("now", type_=Moment)
        self._first_due = (
            sa.select(jobs.c.id).where(sa.text(WATCHED), is_due, self._wanted).limit(1)
        )
        self._interval = interval
        self._actor = actor
        self._patience = patience
        self._news = news
        self._tell = tell
        self._experience = Experience()
        self._deadlines = Deadlines(database, self._experience, policy.export_deadline)
        self._findings = Grouped[Finding, JobState](partial(keep_findings, database, actor))
        self._followed: dict[int, _Followed] = {}
        self._probers: set[int] = set()
        self._looking = anyio.Semaphore(_AT_ONCE, fast_acquire=True)
        self._outages: defaultdict[str, Outage] = defaultdict(Outage)
        self._failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Looks until cancelled."""
        if self._sight.mode is VerifyMode.OFF:
            return
        self._traced = await self._patience.until_done(self._traced_buckets)
        async with anyio.create_task_group() as looks:
            while True:
                if await self._patience.until_done(self._anything_due):
                    for one in await self._patience.until_done(self._reserve):
                        looks.start_soon(self._follow, one)
                await anyio.sleep(_TICK)

    async def _traced_buckets(self) -> set[tuple[str, str]]:
        async with self._database.read() as connection:
            return await traced_buckets(connection, self._profile)

    async def _anything_due(self) -> bool:
        async with self._database.read() as connection:
            now = await self._database.now(connection)
            return (await connection.execute(self._first_due, {"now": now})).first() is not None

    async def _reserve(self) -> list[_Followed]:
        """Takes what is due off the others, and returns what is not followed yet."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            found = await self._due(connection, now)
            planned = await self._planned(connection, found, now)
            spans = [self._span(one, plan, now) for one, plan in zip(found, planned, strict=True)]
            then = {one.job_id: now + span for one, span in zip(found, spans, strict=True)}
            await postpone(connection, then)
        moment = anyio.current_time()
        fresh: list[_Followed] = []
        for job, plan, span in zip(found, planned, spans, strict=True):
            begun = moment - _age(job, now).total_seconds()
            one = _Followed(job, plan, begun, moment + span.total_seconds() + _LINGER)
            if (known := self._followed.get(job.job_id)) is not None:
                known.renew(one)
            elif job.job_id in self._probers and one.first_look() > moment + _TICK:
                # it would find nothing out for a while: another may
                self._probers.discard(job.job_id)
                self._outages[place_of(job.region, job.bucket)].unused()
            elif one.first_look() <= one.until:
                self._followed[job.job_id] = one
                fresh.append(one)
        return fresh

    async def _due(self, connection: AsyncConnection, now: datetime) -> list[Watched]:
        reserve = partial(due, connection, now=now)
        wanted = self._wanted & self._sight.visible()
        failing = sorted(place for place in self._outages if self._outages[place].present)
        free = _FOLLOWED - len(self._followed)
        found = await reserve(wanted & bucket_place().not_in(failing), limit=max(0, free))
        for place in filter(lambda place: self._outages[place].admits(), failing):
            prober = await reserve(wanted & (bucket_place() == place), limit=1)
            if not prober:
                self._outages[place].unused()
            self._probers.update(job.job_id for job in prober)
            found += prober
        return found

    async def _planned(
        self, connection: AsyncConnection, found: Sequence[Watched], now: datetime
    ) -> list[Schedule]:
        plans: list[Schedule] = []
        pressed = {
            profile: await pressed_regions(connection, profile)
            for profile in {job.profile for job in found}
        }
        for job in found:
            plan = Schedule()
            if self._interval is None and job.state is JobState.ACCEPTED:
                here = (job.profile, job.region)
                ended = await self._experience.ended(connection, *here, now)
                is_pressed = job.region in pressed[job.profile]
                plan = schedule(ended, job.size_gib, pressed=is_pressed)
            plans.append(plan)
        return plans

    def _span(self, job: Watched, plan: Schedule, now: datetime) -> timedelta:
        return self._interval or plan.due_again(_age(job, now))

    async def _follow(self, one: _Followed) -> None:
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

    def _is_for_others(self, job: Watched) -> bool:
        """Whether its bucket gives no answer, and another job finds out when it does again."""
        place = place_of(job.region, job.bucket)
        return self._outages[place].present and job.job_id not in self._probers

    async def _look_at(self, one: _Followed) -> bool:
        """Looks once; true when there is nothing to follow any more."""
        job = one.job
        place = place_of(job.region, job.bucket)
        try:
            if (credential := await self._traffic.credential()) is not None:
                looking = partial(self._look_and_learn, one, place, credential)
                return await self._patience.until_done(looking)
        except (httpx.HTTPError, CredentialError) as error:
            # keys that went away are no fault of the bucket's; the traffic asks for them, and tells
            if not isinstance(error, CredentialError):
                self._failed(place, str(error) or type(error).__name__)
            await self._patience.until_done(partial(self._look_again_soon, job))
        return True

    async def _look_and_learn(self, one: _Followed, place: str, credential: Credential) -> bool:
        asked_at = anyio.current_time()
        try:
            has_changed = await self._state_after_look(one) is not one.job.state
        except CloudRefusal as refusal:
            await self._refused(one.job, place, refusal, credential, asked_at)
            return True
        self._sight.saw(place)
        self._answered(place)
        if has_changed:
            self._news.spread()
        return has_changed

    async def _refused(
        self,
        job: Watched,
        place: str,
        refusal: CloudRefusal,
        credential: Credential,
        asked_at: float,
    ) -> None:
        await self._look_again_soon(job)
        if self._sight.refused(place, refusal):
            self._news.spread()
        outcome = Outcome(cos_code_for(refusal), refusal.said, http_status=refusal.http_status)
        if outcome.code.reaction is Reaction.RETRY:
            self._failed(place, str(refusal))
        else:
            self._answered(place)
        if outcome.code.scope in WHOLE_ACCOUNT:
            await self._traffic.heard(
                LOOK, place, outcome, places={}, asked_at=asked_at, credential=credential
            )

    def _failed(self, place: str, why: str) -> None:
        self._failures[place] += 1
        if self._failures[place] == _FAILURES:
            self._tell(f"The bucket {place} gives no answer ({why}); one look at a time.")
        if self._failures[place] >= _FAILURES:
            self._outages[place].lost()

    def _answered(self, place: str) -> None:
        self._failures.pop(place, None)
        if self._outages[place].present:
            self._outages[place].answered()
            self._tell(f"The bucket {place} answers again.")
            self._news.spread()

    async def _look_again_soon(self, job: Watched) -> None:
        """A look that failed is none: an old export's next one would be minutes away."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            await postpone(connection, {job.job_id: now + _AFTER_FAILURE})

    async def _state_after_look(self, one: _Followed) -> JobState:
        job = one.job
        if job.state is JobState.UNKNOWN:
            return await resolve(self._database, self._cos, job, self._policy, self._actor)
        place = (job.region, job.bucket)
        seen = await examine(
            self._cos,
            job,
            timedelta(seconds=anyio.current_time() - one.begun),
            self._deadlines,
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

    async def _keep_first_trace(self, job: Watched, age: timedelta) -> Watched:
        async with self._database.write() as connection:
            left_at = job.first_trace(await self._database.now(connection), age)
            await keep_first_trace(connection, job, left_at)
        return replace(job, first_trace_at=left_at)


def _age(job: Watched, now: datetime) -> timedelta:
    # another clock may have told when it began
    return max(timedelta(), now - (job.begun or now))

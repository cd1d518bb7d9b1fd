"""Keeps looking at accepted and unknown jobs until each has come to its end."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import anyio
import httpx
import sqlalchemy as sa
from aiolimiter import AsyncLimiter
from anyio.abc import TaskGroup

from orchestrator.cloud.codes import cos_code_for
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials import Credential
from orchestrator.db import Database, Patience
from orchestrator.errors import CloudRefusal, CredentialError
from orchestrator.model import JobState, Outcome
from orchestrator.pace.news import News
from orchestrator.pace.stops import WHOLE_ACCOUNT, place_of
from orchestrator.pace.traffic import LOOK, Traffic
from orchestrator.settle.look import reason
from orchestrator.settle.objects import Watched, postpone, reserve_due
from orchestrator.settle.resolve import ResolvePolicy, resolve
from orchestrator.settle.sight import Sight, VerifyMode
from orchestrator.settle.verify import verify

_AT_ONCE = 16
_LOOKS_PER_SECOND = 40
"""Jobs looked at in a second, however many are due: looks are billed, and the sender needs
the processor too."""

_LONGEST_IDLE = 1.0
_AFTER_FAILURE = timedelta(seconds=2)


class Watcher:
    """Looks into the buckets, so many jobs at once, each when it is due.

    Args:
        wanted: which jobs, as a condition on the table of jobs.
        interval: time between looks at one job; ``None`` follows its age.
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
        wanted: sa.ColumnElement[bool],
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
        self._wanted = wanted
        self._interval = interval
        self._actor = actor
        self._patience = patience
        self._news = news
        self._tell = tell
        self._looking: set[int] = set()
        self._budget = AsyncLimiter(1, 1 / _LOOKS_PER_SECOND)
        self._unreachable: set[str] = set()

    async def run(self) -> None:
        """Looks until cancelled."""
        if self._sight.mode is VerifyMode.OFF:
            return
        async with anyio.create_task_group() as looks:
            while True:
                await self._patience.until_done(partial(self._look_at_due, looks))
                idle = self._interval.total_seconds() if self._interval else _LONGEST_IDLE
                await self._news.wait(min(idle, _LONGEST_IDLE))

    async def _look_at_due(self, looks: TaskGroup) -> None:
        free = _AT_ONCE - len(self._looking)
        if free <= 0:
            return
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            conditions = self._wanted & self._sight.visible()
            due = await reserve_due(
                connection, conditions, now, next_look=self._interval, limit=free
            )
        for job in due:
            if job.job_id not in self._looking:
                self._looking.add(job.job_id)
                looks.start_soon(self._look_at, job)

    async def _look_at(self, job: Watched) -> None:
        place = place_of(job.region, job.bucket)
        try:
            await self._budget.acquire()
            credential = await self._traffic.credential()
            if credential is not None:
                looking = partial(self._look_and_learn, job, place, credential)
                await self._patience.until_done(looking)
        except (httpx.HTTPError, CredentialError) as error:
            await self._look_again_soon(job)
            if place not in self._unreachable:
                self._unreachable.add(place)
                self._tell(f"The bucket {place} cannot be reached ({error}); looking again.")
        finally:
            self._looking.discard(job.job_id)
            if len(self._looking) == _AT_ONCE - 1:
                self._news.spread()

    async def _look_and_learn(self, job: Watched, place: str, credential: Credential) -> None:
        began, asked_at = anyio.current_time(), self._database.clock.now()
        try:
            if await self._state_after_look(job) is not job.state:
                self._news.spread()
        except CloudRefusal as refusal:
            told = await reason(self._cos, job, refusal)
            await self._look_again_soon(job)
            if self._sight.refused(place, told, began):
                self._news.spread()
            outcome = Outcome(cos_code_for(told), told.said, http_status=told.http_status)
            if outcome.code.scope in WHOLE_ACCOUNT:
                await self._traffic.heard(
                    LOOK,
                    place,
                    outcome,
                    places={},
                    asked_at=asked_at,
                    now=self._database.clock.now(),
                    credential=credential,
                )
        else:
            self._sight.saw(place)
            self._unreachable.discard(place)

    async def _look_again_soon(self, job: Watched) -> None:
        """A look that failed is none: an old export's next one would be minutes away."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            await postpone(connection, job.job_id, now + _AFTER_FAILURE)

    async def _state_after_look(self, job: Watched) -> JobState:
        if job.state is JobState.UNKNOWN:
            return await resolve(self._database, self._cos, job, self._policy, self._actor)
        return await verify(self._database, self._cos, job, self._actor)

"""Keeps looking at accepted and unknown jobs until each has come to its end."""

from datetime import timedelta

import anyio
import httpx
import sqlalchemy as sa
from aiolimiter import AsyncLimiter
from anyio.abc import TaskGroup

from orchestrator.cloud.cos import CosClient
from orchestrator.db import Database
from orchestrator.errors import CloudRefusal, CredentialError
from orchestrator.model import JobState
from orchestrator.pace.news import News
from orchestrator.settle.objects import Watched, reserve_due
from orchestrator.settle.resolve import ResolvePolicy, resolve
from orchestrator.settle.sight import Sight, VerifyMode
from orchestrator.settle.verify import verify

_AT_ONCE = 16
_LOOKS_PER_SECOND = 40
"""Jobs looked at in a second, however many are due: looks are billed, and the sender needs
the processor too."""

_LONGEST_IDLE = 1.0


class Watcher:
    """Looks into the buckets, so many jobs at once, each when it is due.

    Args:
        wanted: which jobs, as a condition on the table of jobs.
        interval: time between looks at one job; ``None`` follows its age.
        actor: this process's instance.
    """

    def __init__(
        self,
        database: Database,
        cos: CosClient,
        sight: Sight,
        policy: ResolvePolicy,
        *,
        wanted: sa.ColumnElement[bool],
        interval: timedelta | None,
        actor: str,
        news: News,
    ) -> None:
        self._database = database
        self._cos = cos
        self._sight = sight
        self._policy = policy
        self._wanted = wanted
        self._interval = interval
        self._actor = actor
        self._news = news
        self._looking: set[int] = set()
        self._budget = AsyncLimiter(1, 1 / _LOOKS_PER_SECOND)

    async def run(self) -> None:
        """Looks until cancelled."""
        if self._sight.mode is VerifyMode.OFF:
            return
        async with anyio.create_task_group() as looks:
            while True:
                await self._look_at_due(looks)
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
        place = f"{job.region}/{job.bucket}"
        await self._budget.acquire()
        began = anyio.current_time()
        try:
            if await self._state_after_look(job) is not job.state:
                self._news.spread()
            self._sight.saw(place)
        except CloudRefusal as refusal:
            if self._sight.refused(place, refusal, began):
                self._news.spread()
        except (httpx.HTTPError, CredentialError):
            pass  # nothing was learned; the job is due again soon
        finally:
            self._looking.discard(job.job_id)
            if len(self._looking) == _AT_ONCE - 1:
                self._news.spread()

    async def _state_after_look(self, job: Watched) -> JobState:
        if job.state is JobState.UNKNOWN:
            return await resolve(self._database, self._cos, job, self._policy, self._actor)
        return await verify(self._database, self._cos, job, self._actor)

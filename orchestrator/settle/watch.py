"""Keeps looking at accepted and unknown jobs until each has come to its end."""

from collections import Counter, defaultdict
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
from orchestrator.model import JobState, Outcome, Reaction
from orchestrator.pace.news import News
from orchestrator.pace.outage import Outage
from orchestrator.pace.stops import WHOLE_ACCOUNT, bucket_place, place_of
from orchestrator.pace.traffic import LOOK, Traffic
from orchestrator.settle.deadline import Deadlines
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

_FAILURES = 10
"""Looks in a row that fail: then one at a time finds out when the bucket answers again."""


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
        self._deadlines = Deadlines(database, policy.export_deadline)
        self._looking: set[int] = set()
        self._budget = AsyncLimiter(1, 1 / _LOOKS_PER_SECOND)
        self._outages: defaultdict[str, Outage] = defaultdict(Outage)
        self._failures: Counter[str] = Counter()

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
            reserve = partial(reserve_due, connection, now=now, next_look=self._interval)
            wanted = self._wanted & self._sight.visible()
            failing = sorted(place for place in self._outages if self._outages[place].present)
            due = await reserve(wanted & bucket_place().not_in(failing), limit=free)
            for place in filter(lambda place: self._outages[place].admits(), failing):
                prober = await reserve(wanted & (bucket_place() == place), limit=1)
                if not prober:
                    self._outages[place].unused()
                due += prober
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
            # keys that went away are no fault of the bucket's; the traffic asks for them, and tells
            if not isinstance(error, CredentialError):
                self._failed(place, str(error) or type(error).__name__)
            await self._patience.until_done(partial(self._look_again_soon, job))
        finally:
            self._looking.discard(job.job_id)
            if len(self._looking) == _AT_ONCE - 1:
                self._news.spread()

    async def _look_and_learn(self, job: Watched, place: str, credential: Credential) -> None:
        asked_at = anyio.current_time()
        try:
            if await self._state_after_look(job) is not job.state:
                self._news.spread()
        except CloudRefusal as refusal:
            told = await reason(self._cos, job, refusal)
            await self._look_again_soon(job)
            if self._sight.refused(place, told):
                self._news.spread()
            outcome = Outcome(cos_code_for(told), told.said, http_status=told.http_status)
            if outcome.code.reaction is Reaction.RETRY:
                self._failed(place, str(told))
            else:
                self._answered(place)
            if outcome.code.scope in WHOLE_ACCOUNT:
                await self._traffic.heard(
                    LOOK,
                    place,
                    outcome,
                    places={},
                    asked_at=asked_at,
                    credential=credential,
                )
        else:
            self._sight.saw(place)
            self._answered(place)

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
            await postpone(connection, job.job_id, now + _AFTER_FAILURE)

    async def _state_after_look(self, job: Watched) -> JobState:
        if job.state is JobState.UNKNOWN:
            return await resolve(self._database, self._cos, job, self._policy, self._actor)
        return await verify(self._database, self._cos, job, self._deadlines, self._actor)

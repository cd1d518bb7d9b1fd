"""A store beside a cloud: what the tests of describing and settling work at."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import open_http_client
from orchestrator.forecast import Forecast
from orchestrator.job_states import JobState
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.model import ExportOrder, ImageFormat, Lease, Outcome
from orchestrator.simulator import (
    DEFAULT_KEY,
    BucketSettings,
    Duration,
    Settings,
    Simulator,
    SimulatorOptions,
)
from orchestrator.store import Database
from orchestrator.verification.accepted_jobs import examine, save_findings
from orchestrator.verification.bucket_permissions import BucketPermissions, VerifyMode
from orchestrator.verification.expected_objects import TrackedJob, save_baselines, watched
from orchestrator.verification.object_lookup import baselines
from orchestrator.worker.send import outcome_of_reply

from .cloud.scripted import HeldKeys
from .stores import BUCKET, DEADLINE, ME, REGION, job, now

KEYS = Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key)

_ENDED = 201.0
UNLISTED_AFTER = timedelta(seconds=120)


@dataclass(frozen=True)
class Bench:
    """A store and a cloud."""

    database: Database
    simulator: Simulator
    cvm: CvmClient
    cos: CosClient

    async def send(self, lease: Lease) -> Outcome:
        """Sends what a lease orders; nothing is recorded."""
        return await self.export(lease.order)

    async def export_unseen(self, job_id: int) -> None:
        """Exports what a job would, as a request whose answer was lost has done."""
        row = await job(self.database, job_id)
        await self.export(
            ExportOrder(
                row.region,
                tuple(row.image_ids),
                row.bucket,
                ImageFormat(row.format),
                row.object_prefix,
                row.only_root_disk,
                None,
            )
        )

    async def export(self, order: ExportOrder) -> Outcome:
        """The outcome of one ExportImages."""
        reply = await self.cvm.export_images(order, signed_at=self.cvm.clock.now(), credential=KEYS)
        return outcome_of_reply(reply)

    def end_exports(self) -> None:
        """Lets every export come to its end: the objects are there."""
        self.simulator.change(skew=self.simulator.settings.skew + _ENDED)

    async def watched(self, job_id: int) -> TrackedJob:
        """The job as a look sees it."""
        async with self.database.read() as connection:
            return await watched(connection, job_id)

    async def note_baseline(self, job_id: int) -> None:
        """Note what lies under a job's exact names, as is done before it is sent."""
        etags = await baselines(self.cos, await self.watched(job_id))
        async with self.database.write() as connection:
            await save_baselines(connection, job_id, etags)

    async def verify(self, seen: TrackedJob) -> JobState:
        """The state after a look at the objects of a job that was read before."""
        return await verified(self.database, self.cos, seen)

    def looks(self) -> list[str]:
        """The actions of all looks so far."""
        return [entry.action for entry in self.simulator.ledger if entry.service == "cos"]

    def deny(self, *actions: str) -> None:
        """Closes the bucket to some kinds of look; without any it is open again."""
        self.simulator.change(buckets={BUCKET: BucketSettings(deny=actions)})


@asynccontextmanager
async def bench_at(database: Database) -> AsyncIterator[Bench]:
    """A cloud beside this store, in which uploads begin at once and end after 200 s."""
    settings = Settings(duration=Duration(seconds=200), queue_delay=0, limits={}, cap=None)
    keys = HeldKeys(KEYS)
    async with (
        Simulator(SimulatorOptions(settings=settings)) as simulator,
        open_http_client("tests/1") as http,
    ):
        url = simulator.url
        cvm = CvmClient(http, endpoint=url, clock=ServerClock(SystemClock()), timeout=60.0)
        cos = CosClient(
            http,
            endpoint=url,
            credentials=keys,
            clock=ServerClock(SystemClock()),
            timeout=60.0,
        )
        yield Bench(database, simulator, cvm, cos)


def permissions(
    mode: VerifyMode = VerifyMode.AUTO, *, unreadable: bool = False
) -> BucketPermissions:
    """What may be looked at; blind, the bucket of the tests may not."""
    made = BucketPermissions(mode, HaltedScopes(), _notify)
    if unreadable:
        made.unreadable[f"{REGION}/{BUCKET}"] = math.inf
    return made


def _notify(_sentence: str) -> None: ...


async def verified(database: Database, cos: CosClient, job: TrackedJob) -> JobState:
    """The state of a job after a look at its objects."""
    forecast = Forecast(database, DEADLINE)
    age = await age_of(database, job)
    seen = await examine(cos, job, age, forecast, unlisted_after=UNLISTED_AFTER)
    if seen.finding is None:
        return job.state
    (state,) = await save_findings(database, ME, [seen.finding])
    return state


async def age_of(database: Database, job: TrackedJob) -> timedelta:
    """How long ago its export began."""
    assert job.begun is not None
    return await now(database) - job.begun


def evidence(event: Any, name: str) -> list[str]:
    """The keys that an event tells of."""
    return [entry if isinstance(entry, str) else entry["key"] for entry in event.details[name]]

"""A store and a simulated cloud, for the tests of verification and of the worker."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from orchestrator.clock import SystemClock
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.base import Credential, CredentialSource
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import open_http_client
from orchestrator.errors import CloudRefusal
from orchestrator.export_durations import latest_finished_exports
from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import YES, VendorFact
from orchestrator.limits.admission import Admission
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.model import ExportOrder, ImageFormat, Lease, Outcome
from orchestrator.run_warnings import RunWarnings
from orchestrator.settings import Settings as RunSettings
from orchestrator.settings import VerifyMode
from orchestrator.simulator import (
    DEFAULT_KEY,
    BucketSettings,
    Duration,
    Settings,
    Simulator,
    SimulatorOptions,
)
from orchestrator.store import Database
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.bucket_trust import BucketTrust
from orchestrator.verification.delivery_check import check_delivery, save_findings
from orchestrator.verification.object_lookup import baselines
from orchestrator.verification.tracked_jobs import TrackedJob, load_tracked_job, save_baselines
from orchestrator.verification.unknown_jobs import AbsenceTracker
from orchestrator.worker.send import outcome_of_reply
from tests.cloud.scripted_server import FixedCredentials

from .job_factory import BUCKET, PROFILE, REGION, SETTINGS, TESTER, now, read_job

CREDENTIAL = Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key)

_LONGER_THAN_EXPORT = 201.0


class MachineClock(SystemClock):
    """This machine's clock, which a test can advance."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = timedelta()

    def now(self) -> datetime:
        """Return the current time."""
        return super().now() + self.passed


@dataclass(frozen=True)
class StoreAndCloud:
    """A store and a simulated cloud."""

    database: Database
    simulator: Simulator
    cvm: CvmClient
    cos: CosClient
    trust: BucketTrust
    absence: AbsenceTracker
    machine_clock: MachineClock

    async def send(self, lease: Lease) -> Outcome:
        """Send the request of a lease; record nothing."""
        return await self.export(lease.order)

    async def export_without_answer(self, job_id: int) -> None:
        """Export a job's images and record nothing, as if the answer had been lost."""
        row = await read_job(self.database, job_id)
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
        """Send one ExportImages and return its outcome."""
        reply = await self.cvm.export_images(
            order, signed_at=self.cvm.clock.now(), credential=CREDENTIAL
        )
        return outcome_of_reply(reply)

    def pass_time(self, seconds: float) -> None:
        """Advance the cloud's clock and this machine's, but not that of the store."""
        self.simulator.change(skew=self.simulator.settings.skew + seconds)
        self.machine_clock.passed += timedelta(seconds=seconds)

    def finish_exports(self) -> None:
        """Let time pass until all exports have written their objects."""
        self.pass_time(_LONGER_THAN_EXPORT)

    async def tracked_job(self, job_id: int) -> TrackedJob:
        """Return a job as the poller reads it."""
        async with self.database.read() as connection:
            return await load_tracked_job(connection, job_id)

    async def save_baselines(self, job_id: int) -> None:
        """Save the ETags under a job's exact names, as is done before it is sent."""
        etags = await baselines(self.cos, self.trust, await self.tracked_job(job_id))
        async with self.database.write() as connection:
            await save_baselines(connection, job_id, etags)

    async def verify(self, seen: TrackedJob) -> JobState:
        """Look up the objects of a job that was read before, and return its new state."""
        return await verify_job(self.database, self.cos, self.trust, seen)

    def lookup_actions(self) -> list[str]:
        """Return the COS operations that have been called so far."""
        return [entry.action for entry in self.simulator.ledger if entry.service == "cos"]

    def deny(self, *actions: str) -> None:
        """Deny these COS operations on the bucket; without arguments allow all again."""
        self.simulator.change(buckets={BUCKET: BucketSettings(deny=actions)})


@asynccontextmanager
async def open_store_and_cloud(database: Database) -> AsyncIterator[StoreAndCloud]:
    """Start a cloud for this store; its exports upload at once and end after 200 s."""
    settings = Settings(duration=Duration(seconds=200), queue_delay=0, limits={}, cap=None)
    keys = FixedCredentials(CREDENTIAL)
    async with (
        Simulator(SimulatorOptions(settings=settings)) as simulator,
        open_http_client("tests/1") as http,
    ):
        url, machine_clock = simulator.url, MachineClock()
        cvm = CvmClient(http, endpoint=url, clock=ServerClock(machine_clock), timeout=60.0)
        cos = CosClient(
            http,
            endpoint=url,
            credentials=keys,
            clock=ServerClock(machine_clock),
            timeout=60.0,
        )
        absence = AbsenceTracker(database.clock)
        yield StoreAndCloud(database, simulator, cvm, cos, make_trust(), absence, machine_clock)


def _notify(_sentence: str) -> None: ...


async def ignore_refusal(_bucket: str, _refusal: CloudRefusal) -> None:
    """Do nothing about a look-up that COS refused."""


class UnstoredWarnings(RunWarnings):
    """Warnings that the user is notified of, and that are not stored."""

    async def warn(self, key: str, message: str, *, is_notified: bool = False) -> None:
        """Notify the user once."""
        if key not in self._stored_at and not is_notified:
            self._notify(f"Warning: {message}")
        self._stored_at[key] = 0.0

    async def clear(self, key: str) -> bool:
        """End a warning."""
        return self._stored_at.pop(key, None) is not None


def make_admission(
    database: Database,
    credentials: CredentialSource | None = None,
    notify: Callable[[str], None] = _notify,
    clock: ServerClock | None = None,
    warnings: RunWarnings | None = None,
) -> Admission:
    """Make an admission without a rate limit; by default its warnings are not stored."""
    return Admission(
        PROFILE,
        database,
        credentials or FixedCredentials(CREDENTIAL),
        notify,
        clock=clock or ServerClock(SystemClock()),
        warnings=warnings or UnstoredWarnings(database, PROFILE, notify),
        rate=0,
        quota_wait=60,
        request_timeout=30,
    )


def make_bucket_access(
    mode: VerifyMode = VerifyMode.AUTO, *, unreadable: bool = False
) -> BucketAccess:
    """Make the bucket access of a run.

    Args:
        unreadable: mark the bucket of the tests as not readable.
    """
    made = BucketAccess(RunSettings(verify=mode), HaltedScopes(), _notify)
    made.trust[f"{REGION}/{BUCKET}"] = make_trust()
    if unreadable:
        made.unreadable[f"{REGION}/{BUCKET}"] = math.inf
    return made


def make_trust(*, experienced: bool = True) -> BucketTrust:
    """Return the trust in a bucket that was calibrated.

    Args:
        experienced: open uploads were seen, and objects that were complete at once.
    """
    trust = BucketTrust()
    trust.is_calibrated = True
    if experienced:
        trust.learn(VendorFact.UPLOADS_VISIBLE, YES)
        trust.learn_completeness()
    return trust


async def verify_job(
    database: Database, cos: CosClient, trust: BucketTrust, job: TrackedJob
) -> JobState:
    """Look up the objects of an accepted job, and return its new state."""
    age = await export_age(database, job)
    async with database.read() as connection:
        finished = await latest_finished_exports(
            connection, job.profile, job.region, await database.now(connection)
        )
    finding = await check_delivery(cos, trust, job, age, finished, SETTINGS)
    if not finding.is_final:
        return job.state
    (state,) = await save_findings(database, TESTER, [finding])
    return state


async def export_age(database: Database, job: TrackedJob) -> timedelta:
    """Return the time since the export of a job began."""
    assert job.began_at is not None
    return await now(database) - job.began_at


def keys_in_event(event: Any, name: str) -> list[str]:
    """Return the object keys in the details of an event."""
    return [entry if isinstance(entry, str) else entry["key"] for entry in event.details[name]]

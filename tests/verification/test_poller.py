"""The poller: the traces it saves on the way, and the probes of a bucket that does not answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.cloud.credentials.base import Credential
from orchestrator.errors import CredentialError
from orchestrator.job_states import JobState
from orchestrator.model import NOT_RULED_OUT
from orchestrator.simulator import Fault
from orchestrator.store import BusyRetry
from orchestrator.store.tables import jobs
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.verification.poller import Poller
from orchestrator.wakeup import Wakeup
from tests.cloud.scripted_server import FixedCredentials
from tests.job_factory import (
    BUCKET,
    REGION,
    SETTINGS,
    TESTER,
    advance_time,
    claim_one,
    make_job,
    make_jobs,
    now,
    read_job,
    record_outcome,
)
from tests.store_and_cloud import (
    CREDENTIAL,
    StoreAndCloud,
    make_admission,
    make_bucket_access,
)

pytestmark = pytest.mark.anyio


class CountedCredentials(FixedCredentials):
    """A source that has none at first; it counts how often it is asked."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(CREDENTIAL)
        self.failures = failures
        self.asked = 0

    async def current(self) -> Credential:
        """Return the credential, or fail."""
        self.asked += 1
        if self.asked <= self.failures:
            raise CredentialError("No credentials.", "Set them.")
        return self.credential


@asynccontextmanager
async def polling(
    setup: StoreAndCloud, buckets: BucketAccess, credentials: CountedCredentials
) -> AsyncIterator[None]:
    """Run a poller until the block ends."""
    admission = make_admission(setup.database, credentials)
    poller = Poller(
        setup.database,
        setup.cos,
        buckets,
        admission,
        SETTINGS,
        actor=TESTER,
        busy_retry=BusyRetry(lambda _sentence: None),
        wakeup=Wakeup(),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(poller.run)
        yield
        tasks.cancel_scope.cancel()


async def running_export(setup: StoreAndCloud) -> int:
    """Make an accepted job whose export has an open upload; return its id."""
    (job_id,) = await make_jobs(setup.database)
    lease = await claim_one(setup.database)
    await record_outcome(setup.database, lease, await setup.send(lease))
    return job_id


async def test_the_first_trace_of_a_running_export_is_saved(setup: StoreAndCloud) -> None:
    """The open upload of a running export is saved as its first trace.

    It shows how soon exports become visible, long before the export ends.
    """
    job_id = await running_export(setup)
    async with polling(setup, make_bucket_access(), CountedCredentials()):
        with anyio.fail_after(60):
            while (row := await read_job(setup.database, job_id)).first_trace_at is None:
                await anyio.sleep(0.05)
    assert row.state == JobState.ACCEPTED


async def test_a_probe_without_credentials_is_given_back(setup: StoreAndCloud) -> None:
    """If a probe has no credentials, the next probe follows soon.

    A look-up that was not sent says nothing about the bucket.
    """
    await running_export(setup)
    buckets, credentials = make_bucket_access(), CountedCredentials(failures=1)
    for _ in range(10):
        buckets.record_failure(f"{REGION}/{BUCKET}", "no answer")
    assert buckets.failing_buckets()
    async with polling(setup, buckets, credentials):
        with anyio.fail_after(20):  # a lost probe is replaced after 35 s
            while buckets.failing_buckets():
                await advance_time(setup.database, seconds=1)
                await anyio.sleep(0.2)
    assert credentials.asked == 2


async def test_after_an_outage_no_export_waits_for_its_next_regular_look_up(
    setup: StoreAndCloud,
) -> None:
    """Exports whose look-up failed or was skipped in an outage are due again soon.

    Each export has run for an hour, so its next regular look-up would be minutes away.
    """
    moment = await now(setup.database)
    began_at = moment - timedelta(hours=1)
    times = {"accepted_at": began_at, "due_at": moment}
    for _ in range(40):  # more than are looked up at the same time
        await make_job(setup.database, JobState.ACCEPTED, attempt=1, **times)
    setup.simulator.set_faults(Fault("reset", action="cos"))
    buckets = make_bucket_access()

    async def all_are_due_soon() -> bool:
        query = sa.select(sa.func.min(jobs.c.due_at), sa.func.max(jobs.c.due_at))
        async with setup.database.read() as connection:
            first, last = (await connection.execute(query)).one()
        return bool(moment < first and last < await now(setup.database) + timedelta(seconds=5))

    async with polling(setup, buckets, CountedCredentials()):
        with anyio.fail_after(60):
            while not (buckets.failing_buckets() and await all_are_due_soon()):
                await anyio.sleep(0.05)


async def test_a_job_without_a_key_to_look_up_shows_nothing_of_its_bucket(
    setup: StoreAndCloud,
) -> None:
    """A job without known keys is not looked up and is left to an operator.

    It does not make the bucket count as readable.
    """
    since = await now(setup.database) - timedelta(hours=1)
    job_id = await make_job(
        setup.database, JobState.UNKNOWN, exact_names=True, absent_since=since, attempt=1
    )
    buckets = make_bucket_access()
    async with polling(setup, buckets, CountedCredentials()):
        with anyio.fail_after(20):
            while (row := await read_job(setup.database, job_id)).reason != NOT_RULED_OUT:
                await advance_time(setup.database, seconds=60)
                await anyio.sleep(0.1)
    assert "keys of its objects are not known" in row.message
    assert setup.lookup_actions() == []
    assert not buckets.is_proven_readable(REGION, BUCKET)

"""Which jobs a run may send, which it follows, and when no work is left."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import anyio
import pytest
import sqlalchemy as sa

from orchestrator.job_queue.eligibility import Eligibility
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.model import Halt, Scope
from orchestrator.store import Database
from orchestrator.verification.bucket_access import BucketAccess
from tests.cloud.scripted_server import FixedCredentials
from tests.job_factory import (
    BUCKET,
    PROFILE,
    REGION,
    SETTINGS,
    make_job,
    make_jobs,
    now,
    update_job,
)
from tests.store_and_cloud import CREDENTIAL

pytestmark = pytest.mark.anyio

HOST = "cvm.example"


@pytest.fixture
def admission(sqlite: Database) -> Admission:
    """Return an admission without halts."""
    return Admission(
        PROFILE,
        sqlite,
        FixedCredentials(CREDENTIAL),
        lambda _sentence: None,
        rate=0,
        quota_wait=60,
    )


@pytest.fixture
def permissions(admission: Admission) -> BucketAccess:
    """Return the access to buckets of which none is unreadable."""
    return BucketAccess(SETTINGS, admission.halts, lambda _sentence: None)


@pytest.fixture
def eligibility(sqlite: Database, admission: Admission, permissions: BucketAccess) -> Eligibility:
    """Return the eligibility of a run of one region."""
    return Eligibility(
        sqlite,
        admission,
        permissions,
        SETTINGS,
        batch=None,
        blocked_regions=lambda: [REGION] if admission.halts.blocks_endpoint(HOST) else [],
    )


def halt(admission: Admission, scope: Scope, value: str) -> None:
    admission.halts.add(Halt(scope, value, "Code", "said", "do this"))


def written(query: sa.Select[Any]) -> tuple[str, object]:
    """Return the text of a query, and the values of its parameters."""
    compiled = query.compile()
    return str(compiled), {name: str(value) for name, value in compiled.params.items()}


CHANGES: dict[str, Callable[[Admission, BucketAccess], object]] = {
    "a bucket is halted": lambda admission, _: halt(admission, Scope.BUCKET, f"{REGION}/b-1"),
    "an endpoint is halted": lambda admission, _: halt(admission, Scope.ENDPOINT, HOST),
    "no bucket can be read": lambda admission, _: setattr(admission, "may_read_buckets", False),
    "a bucket is unreadable": lambda _, permissions: permissions.unreadable.update(
        {f"{REGION}/b-1": anyio.current_time() + 60}
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_the_query_follows_a_change(
    eligibility: Eligibility,
    admission: Admission,
    permissions: BucketAccess,
    change: Callable[[Admission, BucketAccess], object],
) -> None:
    """A claim obeys the halts and the unreadable buckets of now."""
    before = written(eligibility.claim_query())
    change(admission, permissions)
    assert written(eligibility.claim_query()) != before


def eligibility_of(
    database: Database, *, sendable: bool = True, readable: bool = True
) -> Eligibility:
    """Return the eligibility of a run of one batch."""
    keys = FixedCredentials(CREDENTIAL)
    admission = Admission(PROFILE, database, keys, lambda _sentence: None, rate=0, quota_wait=60)
    permissions = BucketAccess(SETTINGS, admission.halts, lambda _sentence: None)
    if not sendable:
        halt(admission, Scope.BUCKET, f"{REGION}/{BUCKET}")
    admission.may_read_buckets = readable
    return Eligibility(
        database,
        admission,
        permissions,
        SETTINGS,
        batch="night",
        blocked_regions=list,
    )


@pytest.mark.parametrize(
    ("state", "plain", "halted", "unreadable"),
    [
        (JobState.QUEUED, True, False, True),
        (JobState.SENDING, True, True, True),
        (JobState.UNKNOWN, True, True, False),
        (JobState.ACCEPTED, True, True, False),
        (JobState.VERIFIED, False, False, False),
        (JobState.FAILED, False, False, False),
        (JobState.CANCELLED, False, False, False),
    ],
)
async def test_which_states_keep_a_run_alive(
    database: Database, state: JobState, plain: bool, halted: bool, unreadable: bool
) -> None:
    """A queued job needs an open scope, an accepted or unknown one a readable bucket."""
    await make_job(database, state)
    assert await eligibility_of(database).has_remaining_work() is plain
    assert await eligibility_of(database, sendable=False).has_remaining_work() is halted
    assert await eligibility_of(database, readable=False).has_remaining_work() is unreadable


async def test_jobs_of_another_batch_keep_no_run_alive(database: Database) -> None:
    """A run of one batch ends although another batch has work."""
    await make_jobs(database, batch="morning")
    assert not await eligibility_of(database).has_remaining_work()


async def test_jobs_due_after_the_time_limit_do_not_count(database: Database) -> None:
    """A run with a time limit does not wait for jobs that are due later than that."""
    job_id = await make_job(database)
    await update_job(database, job_id, due_at=await now(database) + timedelta(hours=1))
    eligibility = eligibility_of(database)
    assert await eligibility.has_remaining_work()
    assert await eligibility.has_remaining_work(within=3700)
    assert not await eligibility.has_remaining_work(within=3500)

"""Which jobs a run may send, which it follows, and when no work is left."""

from collections.abc import Callable
from datetime import timedelta

import anyio
import pytest

from orchestrator.job_queue.eligibility import Eligibility
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.model import Halt, Scope
from orchestrator.store import Database
from orchestrator.verification.bucket_access import BucketAccess
from tests.job_factory import (
    BUCKET,
    PROFILE,
    REGION,
    SETTINGS,
    make_job,
    make_jobs,
    make_request,
    make_traced_job,
    now,
    update_job,
)
from tests.store_and_cloud import make_admission

pytestmark = pytest.mark.anyio

HOST = "cvm.example"


@pytest.fixture
def admission(sqlite: Database) -> Admission:
    """Return an admission without halts."""
    return make_admission(sqlite)


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


CHANGES: dict[str, Callable[[Admission], object]] = {
    "a region is halted": lambda admission: halt(admission, Scope.REGION, REGION),
    "a bucket is halted": lambda admission: halt(admission, Scope.BUCKET, f"{REGION}/{BUCKET}"),
    "the default role is halted": lambda admission: halt(admission, Scope.ROLE, ""),
    "an endpoint is halted": lambda admission: halt(admission, Scope.ENDPOINT, HOST),
}


async def claimable(
    database: Database, eligibility: Eligibility, *, as_probe: bool = False
) -> list[int]:
    """Return the ids of the jobs that the next claim, or the next probe, may take."""
    here = {"profile": PROFILE, "region": REGION, "now": await now(database), "limit": 9}
    query = eligibility.probe_query if as_probe else eligibility.claim_query
    async with database.read() as connection:
        return [row.job_id for row in await connection.execute(query, here)]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
async def test_a_claim_obeys_the_halts_of_its_time(
    sqlite: Database,
    eligibility: Eligibility,
    admission: Admission,
    change: Callable[[Admission], object],
) -> None:
    """The query is built once, and each execution reflects the halts of then."""
    (job_id,) = await make_jobs(sqlite)
    assert await claimable(sqlite, eligibility) == [job_id]
    change(admission)
    assert await claimable(sqlite, eligibility) == []
    admission.halts.clear()
    assert await claimable(sqlite, eligibility) == [job_id]


async def wait_for_probe(admission: Admission) -> None:
    """Wait until a probe is due."""
    with anyio.fail_after(30):
        while not admission.suspected_scopes.is_probe_due:
            await anyio.sleep(0.01)


async def test_a_job_is_no_probe_while_another_one_is_awaited(
    sqlite: Database, eligibility: Eligibility, admission: Admission
) -> None:
    """A due probe in a scope without jobs permits no second probe in another scope."""
    await make_jobs(sqlite, [make_request(1, role_name="Writer")])
    scopes = admission.suspected_scopes
    scopes.suspect(Scope.BUCKET, f"{REGION}/without-jobs-1250000000")
    scopes.suspect(Scope.ROLE, "Writer")
    await wait_for_probe(admission)
    scopes.begin_probe({Scope.ROLE: "Writer"}, job_id=0)
    assert scopes.is_probe_due
    assert await claimable(sqlite, eligibility, as_probe=True) == []


@pytest.mark.parametrize(
    ("scope", "value", "concerns_all"),
    [
        (Scope.BUCKET, f"{REGION}/{BUCKET}", False),
        (Scope.ROLE, "Writer", False),
        (Scope.REGION, REGION, True),
        (Scope.CREDENTIAL, PROFILE, True),
    ],
)
async def test_jobs_of_a_suspected_scope_are_sent_as_probes(
    sqlite: Database,
    eligibility: Eligibility,
    admission: Admission,
    scope: Scope,
    value: str,
    *,
    concerns_all: bool,
) -> None:
    """The others are claimed as usual; a run with nothing else to do does not end."""
    here, elsewhere = await make_jobs(
        sqlite,
        [make_request(1, role_name="Writer"), make_request(2, bucket="other-1250000000")],
    )
    assert await claimable(sqlite, eligibility) == [here, elsewhere]
    assert await claimable(sqlite, eligibility, as_probe=True) == []
    admission.suspected_scopes.suspect(scope, value)
    await wait_for_probe(admission)
    suspected, usual = ([here, elsewhere], []) if concerns_all else ([here], [elsewhere])
    assert sorted(await claimable(sqlite, eligibility, as_probe=True)) == suspected
    assert await claimable(sqlite, eligibility) == usual
    await update_job(sqlite, elsewhere, state=JobState.CANCELLED)
    async with sqlite.read() as connection:
        assert await eligibility.has_remaining_work(connection, await now(sqlite))


FORGOTTEN: dict[str, Callable[[Admission, BucketAccess], object]] = {
    "no bucket can be read": lambda admission, _: setattr(admission, "may_read_buckets", False),
    "a bucket is unreadable": lambda _, permissions: permissions.unreadable.update(
        {f"{REGION}/{BUCKET}": anyio.current_time() + 60}
    ),
}


@pytest.mark.parametrize("change", FORGOTTEN.values(), ids=FORGOTTEN.keys())
async def test_a_claim_does_not_wait_for_an_end_that_nobody_sees(
    sqlite: Database,
    eligibility: Eligibility,
    admission: Admission,
    permissions: BucketAccess,
    change: Callable[[Admission, BucketAccess], object],
) -> None:
    """A job waits for an export of its image only while the bucket can be read."""
    running = await make_job(sqlite, JobState.ACCEPTED)
    (job_id,) = await make_jobs(sqlite, [make_request(prefix="again")])
    assert await claimable(sqlite, eligibility) == []
    change(admission, permissions)
    assert await claimable(sqlite, eligibility) == [job_id]
    assert running != job_id


async def has_work(
    database: Database, *, sendable: bool = True, readable: bool = True, within: float = 1e6
) -> bool:
    """Return whether a run of the batch "night" still has work.

    Args:
        sendable: if false, the bucket of the jobs is halted.
        readable: if false, the credentials may not read buckets.
        within: seconds; jobs that are due later do not count.
    """
    admission = make_admission(database)
    permissions = BucketAccess(SETTINGS, admission.halts, lambda _sentence: None)
    if not sendable:
        halt(admission, Scope.BUCKET, f"{REGION}/{BUCKET}")
    admission.may_read_buckets = readable
    eligibility = Eligibility(
        database, admission, permissions, SETTINGS, batch="night", blocked_regions=list
    )
    async with database.read() as connection:
        latest = await database.now(connection) + timedelta(seconds=within)
        return await eligibility.has_remaining_work(connection, latest)


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
    assert await has_work(database) is plain
    assert await has_work(database, sendable=False) is halted
    assert await has_work(database, readable=False) is unreadable


async def test_jobs_of_another_batch_keep_no_run_alive(database: Database) -> None:
    """A run of one batch ends although another batch has work."""
    await make_jobs(database, batch="morning")
    assert not await has_work(database)


async def test_jobs_due_after_the_time_limit_do_not_count(database: Database) -> None:
    """A run with a time limit does not wait for jobs that are due later than that."""
    job_id = await make_job(database)
    await update_job(database, job_id, due_at=await now(database) + timedelta(hours=1))
    assert await has_work(database)
    assert await has_work(database, within=3700)
    assert not await has_work(database, within=3500)


@pytest.mark.parametrize("column", ["absent_since", "sent_at"], ids=["by HEAD", "without keys"])
async def test_no_run_waits_for_a_lost_answer_where_listings_are_refused(
    sqlite: Database, eligibility: Eligibility, permissions: BucketAccess, column: str
) -> None:
    """Where listings are refused, a run leaves a lost answer to an operator.

    HEAD alone never proves absence, even in a proven bucket.
    """
    await make_traced_job(sqlite)
    moment = await now(sqlite)
    since, due = moment - timedelta(seconds=121), moment + timedelta(seconds=60)
    job_id = await make_job(sqlite, JobState.UNKNOWN, attempt=1)
    await update_job(sqlite, job_id, due_at=due, **{column: since})
    for is_refused in (False, True):
        permissions.trust[f"{REGION}/{BUCKET}"].is_listing_refused = is_refused
        async with sqlite.read() as connection:
            assert await eligibility.has_remaining_work(connection, moment) is not is_refused

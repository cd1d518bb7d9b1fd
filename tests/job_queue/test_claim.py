"""The claim: which job is sent next, and that no other process takes it."""

from collections.abc import Sequence
from datetime import timedelta

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from orchestrator.job_states import JobState
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.model import ExportOrder, Halt, ImageFormat, Lease, Scope
from orchestrator.store import Database
from orchestrator.store.tables import attempts, events, job_images
from tests.job_factory import (
    BUCKET,
    LEASE_DURATION,
    PROFILE,
    REGION,
    TESTER,
    advance_time,
    claim_all,
    claim_one,
    claim_query,
    claim_with_permits,
    make_job,
    make_jobs,
    make_request,
    make_requests,
    now,
    read_job,
    read_rows,
    try_claim,
    update_job,
    update_scope,
)

pytestmark = pytest.mark.anyio


async def claimed_ids(database: Database) -> list[int]:
    """Claim jobs one by one until none is left; return their ids."""
    ids = []
    while (lease := await try_claim(database)) is not None:
        ids.append(lease.job_id)
    return ids


async def test_the_order_is_priority_then_size_then_age(database: Database) -> None:
    """The higher priority goes first, then the larger size, then the older job."""
    plain, later, large, urgent = await make_jobs(
        database,
        [make_request(1), make_request(2), make_request(3), make_request(4, priority=9)],
        sizes=[50, 50, 400, 10],
    )
    assert await claimed_ids(database) == [urgent, large, plain, later]


async def test_a_claim_commits_the_intent_before_sending(database: Database) -> None:
    """Owner, attempt, expiry and signing time are stored before anything is sent."""
    moment = await now(database)
    asked = make_request(
        7, prefix="web", only_root_disk=True, role_name="Writer", format=ImageFormat.VHD
    )
    (job_id,) = await make_jobs(database, [asked])
    signed_at = moment + timedelta(minutes=3)
    ((lease, _),) = await claim_with_permits(database, signed_at=signed_at)
    kept = await read_job(database, job_id)
    assert lease.order == ExportOrder(
        REGION, asked.image_ids, BUCKET, ImageFormat.VHD, f"web-{kept.tag}", True, "Writer"
    )
    assert (kept.state, kept.owner, kept.attempt) == (JobState.SENDING, TESTER, lease.attempt)
    assert kept.expires_at == lease.expires_at == lease.claimed_at + LEASE_DURATION
    assert kept.sent_at == lease.claimed_at
    (attempt,) = await read_rows(database, attempts, job_id)
    assert (attempt.number, attempt.owner, attempt.signed_at) == (1, TESTER, signed_at)
    assert (attempt.answered_at, attempt.code, attempt.probe) == (None, None, False)
    event = (await read_rows(database, events, job_id))[-1]
    assert (event.kind, event.attempt, event.actor) == ("claimed", 1, TESTER)


async def test_a_lease_has_the_counters_of_its_job(database: Database) -> None:
    """`maybe_applied`, charged attempts and deferrals are those of the job."""
    job_id = await make_job(
        database, maybe_applied=True, attempt=4, attempts_charged=2, deferrals=3, exact_names=True
    )
    lease = await claim_one(database)
    assert (lease.job_id, lease.attempt, lease.attempts_charged, lease.deferrals) == (
        job_id,
        5,
        2,
        3,
    )
    assert lease.maybe_applied
    assert lease.exact_names


@pytest.mark.parametrize(("state", "broken"), [("CREATEFAILED", True), ("NORMAL", False)])
async def test_a_lease_marks_a_broken_image(database: Database, state: str, broken: bool) -> None:
    """The lease shows whether one of the images is broken, and not only busy."""
    (job_id,) = await make_jobs(
        database, [make_request(image_ids=("img-00000001", "img-00000002"))]
    )
    async with database.write() as connection:
        second = (job_images.c.job_id == job_id) & (job_images.c.position == 1)
        await connection.execute(job_images.update().where(second).values(state=state))
    assert (await claim_one(database)).image_broken is broken


async def test_a_job_waits_until_it_is_due(database: Database) -> None:
    """It is not claimed before its due time, and can be claimed from then on."""
    due = await now(database) + timedelta(minutes=10)
    await make_jobs(database, [make_request(not_before=due)])
    assert await try_claim(database) is None
    await advance_time(database, minutes=10)
    assert await try_claim(database) is not None


async def test_undescribed_job_is_not_claimed(database: Database) -> None:
    """A job is not claimed before ``described_at`` is set."""
    (job_id,) = await make_jobs(database, described=False)
    assert await try_claim(database) is None
    await update_job(database, job_id, described_at=await now(database))
    assert await try_claim(database) is not None


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.QUEUED}))
async def test_only_queued_jobs_are_claimed(database: Database, state: JobState) -> None:
    """A job in any other state is not claimed."""
    await make_job(database, state)
    assert await try_claim(database) is None


async def test_jobs_of_another_account_are_not_claimed(database: Database) -> None:
    """A job belongs to one account, and is sent only with its credentials."""
    await make_job(database, profile="somebody else")
    assert await try_claim(database) is None


@pytest.mark.parametrize(
    "state", [JobState.SENDING, JobState.UNKNOWN, JobState.ACCEPTED], ids=lambda state: state.value
)
async def test_an_image_is_exported_by_one_job_at_a_time(
    database: Database, state: JobState
) -> None:
    """A second format of an image waits for the first; other images do not wait."""
    raw, qcow = await make_jobs(
        database, [make_request(1), make_request(1, format=ImageFormat.QCOW2)]
    )
    (other,) = await make_jobs(database, [make_request(2)])
    held = {"owner": TESTER} if state is JobState.SENDING else {}
    await update_job(database, raw, state=state, **held)
    assert await claimed_ids(database) == [other]
    await update_job(database, raw, state=JobState.VERIFIED, owner=None)
    assert await claimed_ids(database) == [qcow]


async def test_one_shared_image_of_several_is_enough_to_wait(database: Database) -> None:
    """A request of several images waits for every one of them."""
    await make_jobs(database, [make_request(1)])
    await claim_one(database)
    await make_jobs(database, [make_request(image_ids=("img-00000002", "img-00000001"))])
    assert await try_claim(database) is None


async def test_the_same_image_id_in_another_region_is_another_image(database: Database) -> None:
    """A job waits only for exports of its image in the same region."""
    await make_jobs(database, [make_request(1), make_request(1, region="ap-tokyo")])
    assert len(await claimed_ids(database)) == 2


async def test_a_claim_takes_only_the_regions_of_its_endpoint(database: Database) -> None:
    """A claim for one region's endpoint takes no other region's job."""
    await make_jobs(database, [make_request(1, priority=1)])
    (tokyo,) = await make_jobs(database, [make_request(2, region="ap-tokyo")])
    lease = await try_claim(database, claim_query(), ("ap-tokyo", "ap-seoul"))
    assert lease is not None
    assert lease.job_id == tokyo
    assert await try_claim(database, claim_query(), ("ap-seoul",)) is None


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        (Scope.BUCKET, "ap-tokyo/other-1250000000"),
        (Scope.ROLE, "Writer"),
        (Scope.REGION, "ap-tokyo"),
    ],
)
async def test_halted_jobs_are_skipped(database: Database, scope: Scope, value: str) -> None:
    """Jobs of a halted scope wait, whatever their priority; other jobs are claimed."""
    special = {"region": "ap-tokyo", "bucket": "other-1250000000", "role_name": "Writer"}
    await make_jobs(database, [make_request(1, priority=9, **special)])
    (plain,) = await make_jobs(database, [make_request(2)])
    stops = HaltedScopes()
    stops.active.append(Halt(scope, value, "Code", "message", "remedy"))
    first = await try_claim(database, claim_query(stops.permitted_jobs()))
    assert first is not None
    assert first.job_id == plain
    assert await try_claim(database, claim_query(stops.permitted_jobs())) is None
    assert await try_claim(database) is not None


async def test_the_default_role_can_be_halted(database: Database) -> None:
    """A halt of the default role blocks only the jobs without a role name."""
    await make_jobs(database, [make_request(1)])
    (named,) = await make_jobs(database, [make_request(2, role_name="Writer")])
    stops = HaltedScopes()
    stops.active.append(Halt(Scope.ROLE, "", "Code", "message", "remedy"))
    first = await try_claim(database, claim_query(stops.permitted_jobs()))
    assert first is not None
    assert first.job_id == named
    assert await try_claim(database, claim_query(stops.permitted_jobs())) is None


async def test_a_new_attempt_starts_without_a_task_id(database: Database) -> None:
    """A new attempt starts without a TaskId, so that its own late answer can set it."""
    job_id = await make_job(database, task_id="7")
    lease = await claim_one(database)
    assert lease.job_id == job_id
    assert (await read_job(database, job_id)).task_id is None


async def test_one_claim_takes_several_jobs(database: Database) -> None:
    """It takes up to the limit, in the order of sending, each job once."""
    ids = await make_jobs(database, make_requests(5), sizes=[10, 20, 50, 40, 30])
    leases = await claim_all(database, limit=3)
    assert [lease.job_id for lease in leases] == [ids[2], ids[3], ids[4]]
    assert len({(lease.claimed_at, lease.expires_at) for lease in leases}) == 1
    for lease in leases:
        assert (await read_job(database, lease.job_id)).state == JobState.SENDING
        assert [row.number for row in await read_rows(database, attempts, lease.job_id)] == [1]
    assert await claimed_ids(database) == [ids[1], ids[0]]


async def test_one_claim_takes_an_image_once(database: Database) -> None:
    """One claim does not take two formats of an image, even if neither is in flight."""
    raw, _ = await make_jobs(database, [make_request(1), make_request(1, format=ImageFormat.QCOW2)])
    (other,) = await make_jobs(database, [make_request(2)])
    assert [lease.job_id for lease in await claim_all(database)] == [raw, other]


async def test_one_claim_does_not_exceed_the_concurrency_limit(database: Database) -> None:
    """A claim takes three jobs where the limit is three.

    It takes the rest from another scope.
    """
    await make_jobs(database, make_requests(5))
    await make_jobs(database, [make_request(9, region="ap-tokyo")])
    await update_scope(database, ceiling=3, probe_at=await now(database) + timedelta(hours=1))
    leases = await claim_all(database)
    assert [lease.order.region for lease in leases] == 3 * [REGION] + ["ap-tokyo"]
    assert not any(lease.probe for lease in leases)


async def test_the_order_is_random_in_a_suspected_region(database: Database) -> None:
    """Jobs that were refused do not keep a probe from one that may be accepted."""
    ids = await make_jobs(database, make_requests(30))
    claimed = await claim_with_permits(database, limit=30, suspected_regions={REGION})
    taken = [lease.job_id for lease, _ in claimed]
    assert sorted(taken) == ids
    assert taken != ids


async def test_every_job_is_tried_once_in_a_suspected_region(database: Database) -> None:
    """Of many wrong jobs none is tried again before the last one was tried."""
    ids = await make_jobs(database, make_requests(30))
    for job_id in ids[:15]:
        await update_job(database, job_id, deferrals=1)
    claimed = await claim_with_permits(database, limit=15, suspected_regions={REGION})
    assert sorted(lease.job_id for lease, _ in claimed) == ids[15:]


@pytest.mark.parametrize("states", [("NORMAL", "NORMAL"), ("NORMAL", None), (None, None)])
async def test_a_lease_knows_whether_its_images_were_shown(
    database: Database, states: tuple[str | None, str | None]
) -> None:
    """Only an image that DescribeImages has shown has a state."""
    (job_id,) = await make_jobs(
        database, [make_request(image_ids=("img-00000001", "img-00000002"))]
    )
    async with database.write() as connection:
        for position, state in enumerate(states):
            this = (job_images.c.job_id == job_id) & (job_images.c.position == position)
            await connection.execute(job_images.update().where(this).values(state=state))
    assert (await claim_one(database)).images_shown is all(states)


async def test_the_scope_whose_turn_it_is_comes_first(database: Database) -> None:
    """Neither priority nor size moves a scope ahead of the one whose turn it is."""
    await make_jobs(database, [make_request(1, priority=9)], sizes=[400])
    (tokyo,) = await make_jobs(database, [make_request(2, region="ap-tokyo")])
    lease = await try_claim(database, claim_query(), ("ap-tokyo", REGION))
    assert lease is not None
    assert lease.job_id == tokyo


async def test_concurrent_claims_take_different_jobs(databases: Sequence[Database]) -> None:
    """Four processes claim forty jobs at the same time, and each job is claimed once."""
    ids = await make_jobs(databases[0], make_requests(40))
    taken: list[Lease] = []

    async def take_all(database: Database, owner: str) -> None:
        while (lease := await try_claim(database, owner=owner)) is not None:
            taken.append(lease)

    async with anyio.create_task_group() as tasks:
        for number, store in enumerate(databases):
            tasks.start_soon(take_all, store, f"worker-{number}")
    assert sorted(lease.job_id for lease in taken) == ids
    for lease in taken:
        assert (await read_job(databases[0], lease.job_id)).owner == lease.owner


async def test_a_claim_reads_its_index_in_order(sqlite: Database) -> None:
    """The next job is read from the index in order, without a scan or a sort."""
    await make_jobs(sqlite, make_requests(3))
    async with sqlite.read() as connection:
        moment = await sqlite.now(connection)
        query = claim_query(HaltedScopes().permitted_jobs()).params(
            profile=PROFILE, region=REGION, now=moment, limit=16
        )
        text = str(query.compile(dialect=sqlite_dialect(), compile_kwargs={"literal_binds": True}))
        plan = (await connection.execute(sa.text(f"EXPLAIN QUERY PLAN {text}"))).all()
    steps = [step.detail for step in plan]
    assert "SEARCH jobs USING INDEX ix_jobs_claim (profile=? AND region=?)" in steps
    # an empty list of halts is a scan of a constant row
    tables = [step for step in steps if not step.startswith(("SCAN CONSTANT", "SCAN (subquery"))]
    assert not [step for step in tables if "SCAN" in step or "ORDER BY" in step]

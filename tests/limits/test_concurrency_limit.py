"""The gate: the learned cap of a scope, and the one who looks whether it has grown."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.limits.concurrency_limit import (
    ConcurrencyLimit,
    concurrency_limits,
    known_regions,
    open_scope,
    record_end,
)
from orchestrator.model import Lease
from orchestrator.store import Database
from tests.job_factory import (
    CAP_REACHED,
    DEADLINE,
    IMAGE_BUSY,
    LEASE_DURATION,
    PROFILE,
    REGION,
    advance_time,
    claim_one,
    make_acceptance,
    make_jobs,
    make_refusal,
    make_request,
    make_requests,
    make_verified_job,
    now,
    read_job,
    read_scope,
    record_outcome,
    try_claim,
    update_job,
    update_scope,
)

pytestmark = pytest.mark.anyio

LONGEST = 300.0
LONG_ENOUGH = 1.1 * LONGEST


async def concurrency_limit(database: Database) -> ConcurrencyLimit:
    async with database.read() as connection:
        (found,) = await concurrency_limits(connection, PROFILE, await database.now(connection))
        return found


async def fill(
    database: Database, running: int, *, waiting: int, is_end_visible: bool = False
) -> list[Lease]:
    """So many exports run, and the vendor has refused one more."""
    await make_jobs(database, make_requests(running + waiting, first=100))
    leases = [await claim_one(database) for _ in range(running + 1)]
    for task, lease in enumerate(leases[:-1], start=1):
        await record_outcome(database, lease, make_acceptance(task), is_end_visible=is_end_visible)
    await record_outcome(
        database, leases[-1], make_refusal(CAP_REACHED), is_end_visible=is_end_visible
    )
    return leases[:-1]


async def end(database: Database, lease: Lease) -> None:
    """The export of this lease is seen in the bucket."""
    await update_job(database, lease.job_id, state=JobState.VERIFIED)


async def probe(database: Database) -> Lease:
    """The next prober, when its time has come."""
    await advance_time(database, seconds=LONG_ENOUGH)
    lease = await claim_one(database)
    assert lease.probe
    return lease


async def assert_probe_after(
    database: Database, before: datetime, shortest: float, longest: float
) -> None:
    """Assert that the wait for the next probe lies within these bounds, in seconds.

    It began between ``before`` and now. PostgreSQL's clock goes on while a test runs.
    """
    after, due = await now(database), (await read_scope(database)).probe_at
    assert (due - before).total_seconds() >= shortest
    assert (due - after).total_seconds() <= longest


async def put_off_probing(database: Database) -> None:
    """Delay the next probe by an hour: PostgreSQL's clock goes on while a test runs."""
    await update_scope(database, probe_at=await now(database) + timedelta(hours=1))


async def test_before_a_refusal_there_is_no_ceiling(database: Database) -> None:
    """Everything may leave, until the vendor says that it is full."""
    await make_jobs(database, make_requests(5))
    leases = [await claim_one(database) for _ in range(5)]
    found = await concurrency_limit(database)
    assert (found.ceiling, found.running, found.has_room) == (None, 5, True)
    assert not any(lease.probe for lease in leases)


async def test_a_refusal_sets_the_ceiling_to_what_runs(database: Database) -> None:
    """What was refused waits without having spent an attempt, and so does the whole scope."""
    await fill(database, 3, waiting=2)
    found = await concurrency_limit(database)
    assert (found.ceiling, found.running, found.has_room) == (3, 3, False)
    assert found.full_since is not None
    assert (await read_scope(database)).probe_at > found.full_since
    await put_off_probing(database)
    assert await try_claim(database) is None


async def test_refusals_at_once_leave_the_true_ceiling(database: Database) -> None:
    """Of many in the air the last refusal counts right: those refused before it run no more."""
    await make_jobs(database, make_requests(8))
    leases = [await claim_one(database) for _ in range(8)]
    await record_outcome(database, leases[0], make_acceptance(1))
    await record_outcome(database, leases[1], make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 7
    for lease in leases[2:]:
        await record_outcome(database, lease, make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 1


async def test_refusals_of_several_processes_count_right(databases: Sequence[Database]) -> None:
    """Transactions that record refusals at the same moment do not count one another as running."""
    await make_jobs(databases[0], make_requests(8))
    leases = [await claim_one(databases[0]) for _ in range(8)]
    async with anyio.create_task_group() as tasks:
        for position, lease in enumerate(leases):
            tasks.start_soon(
                record_outcome, databases[position % 4], lease, make_refusal(CAP_REACHED)
            )
    assert (await concurrency_limit(databases[0])).ceiling == 0


async def test_a_seen_end_frees_a_place_at_once(database: Database) -> None:
    """One export less that runs is one more that may leave, without any probing."""
    leases = await fill(database, 3, waiting=3)
    await put_off_probing(database)
    await end(database, leases[0])
    lease = await claim_one(database)
    assert not lease.probe
    assert await try_claim(database) is None


async def test_a_refused_request_spends_nothing(database: Database) -> None:
    """Neither the first that meets the cap nor any prober has spent an attempt, or its patience."""
    await fill(database, 1, waiting=1)
    prober = await probe(database)
    await record_outcome(database, prober, make_refusal(CAP_REACHED))
    waiting = await read_job(database, prober.job_id)
    assert (waiting.state, waiting.reason, waiting.attempts_charged) == (
        JobState.QUEUED,
        "capacity",
        0,
    )
    assert (waiting.attempt, waiting.deferrals) == (2, 0)


async def test_there_is_one_prober(database: Database) -> None:
    """While one looks for a place, nobody else does."""
    await fill(database, 2, waiting=3)
    await probe(database)
    assert (await concurrency_limit(database)).probing
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() / 2)
    assert await try_claim(database) is None


async def test_a_dead_prober_is_replaced(database: Database) -> None:
    """The election ends with the prober's lease."""
    await fill(database, 2, waiting=3)
    first = await probe(database)
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() + 1)
    second = await claim_one(database)
    assert second.probe
    assert second.job_id != first.job_id


async def test_a_late_prober_does_not_end_anothers_election(database: Database) -> None:
    """The answer of a prober that counted as dead leaves its successor the only one."""
    await fill(database, 2, waiting=4)
    first = await probe(database)
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() + 1)
    second = await claim_one(database)
    for outcome in (make_refusal(IMAGE_BUSY), make_refusal(CAP_REACHED)):
        await record_outcome(database, first, outcome)
        assert (await read_scope(database)).probe_job == second.job_id
        assert (await concurrency_limit(database)).probing


async def test_where_no_end_is_seen_the_wait_between_probes_grows(database: Database) -> None:
    """Each refused probe adds a quarter to the wait, up to five minutes and no further."""
    await fill(database, 1, waiting=1)
    for misses in range(1, 30):
        prober = await probe(database)
        before = await now(database)
        await record_outcome(database, prober, make_refusal(CAP_REACHED))
        whole = min(LONGEST, 1.25**misses)
        await assert_probe_after(database, before, 0.88 * whole, 1.12 * whole)


async def test_where_no_end_is_seen_an_accepted_probe_shortens_the_wait(
    database: Database,
) -> None:
    """Probes and ends keep step, however long exports take: half a refused probe is forgiven."""
    await fill(database, 1, waiting=5)
    for _ in range(4):
        await record_outcome(database, await probe(database), make_refusal(CAP_REACHED))
    assert (await read_scope(database)).misses == 8
    await record_outcome(database, await probe(database), make_acceptance(2))
    found = await read_scope(database)
    assert (found.misses, found.probe_at <= await now(database)) == (7, True)


async def test_where_ends_are_seen_the_next_probe_waits_for_what_exports_take(
    database: Database,
) -> None:
    """Three quarters of the usual time, times the root of what runs."""
    for _ in range(4):
        await make_verified_job(database, took=600)
    await make_jobs(database, make_requests(9, first=20))
    leases = [await claim_one(database) for _ in range(5)]
    for task, lease in enumerate(leases[:-1], start=1):
        await record_outcome(database, lease, make_acceptance(task), is_end_visible=True)
    before = await now(database)
    await record_outcome(database, leases[-1], make_refusal(CAP_REACHED), is_end_visible=True)
    await assert_probe_after(database, before, 0.89 * 900, 1.12 * 900)


async def test_the_first_end_that_is_seen_brings_the_prober(database: Database) -> None:
    """Before it nobody knows how long exports take, and probing would tell nothing."""
    await fill(database, 4, waiting=2, is_end_visible=True)
    assert (await read_scope(database)).probe_at - await now(database) > timedelta(minutes=4)
    await make_verified_job(database, took=10)
    before = await now(database)
    async with database.write() as connection:
        await record_end(connection, PROFILE, REGION, await database.now(connection))
    await assert_probe_after(database, before, 14, 16)


async def test_an_end_puts_no_prober_off(database: Database) -> None:
    """One that is due sooner than exports take stays due."""
    await fill(database, 4, waiting=2)
    due = (await read_scope(database)).probe_at
    await make_verified_job(database, took=600)
    async with database.write() as connection:
        await record_end(connection, PROFILE, REGION, await database.now(connection))
    assert (await read_scope(database)).probe_at == due


async def test_an_accepted_probe_opens_the_gate_by_one(database: Database) -> None:
    """The place that it found counts, and the next prober may leave at once."""
    await fill(database, 2, waiting=3)
    await record_outcome(database, await probe(database), make_acceptance(3))
    found = await concurrency_limit(database)
    assert (found.ceiling, found.running, found.full_since, found.probing) == (3, 3, None, False)
    assert (await claim_one(database)).probe


async def test_successes_in_a_row_open_it_faster_and_faster(database: Database) -> None:
    """The n-th opens n - 1 places beyond the one that it found; a refusal ends the row."""
    await fill(database, 2, waiting=20)
    ceilings = []
    await advance_time(database, seconds=LONGEST)
    for task in range(10, 13):
        while not (lease := await claim_one(database)).probe:
            await record_outcome(database, lease, make_acceptance(task))
        await record_outcome(database, lease, make_acceptance(task))
        ceilings.append((await concurrency_limit(database)).ceiling)
    assert ceilings == [3, 5, 8]
    await record_outcome(database, await claim_one(database), make_refusal(CAP_REACHED))
    assert ((await read_scope(database)).streak, (await concurrency_limit(database)).ceiling) == (
        0,
        6,
    )


async def test_a_place_found_is_confirmed_before_more_are_sought(database: Database) -> None:
    """Where ends are seen, the next prober waits a twentieth of the time that exports take."""
    await make_verified_job(database, took=600)
    await fill(database, 4, waiting=3, is_end_visible=True)
    await advance_time(database, hours=1)
    lease = await claim_one(database)
    assert lease.probe
    await record_outcome(database, lease, make_acceptance(9), is_end_visible=True)
    assert await try_claim(database) is None
    await advance_time(database, seconds=31)
    assert (await claim_one(database)).probe


async def test_a_refusal_after_successes_closes_it_again(database: Database) -> None:
    """The ceiling is what runs at the refusal, not what was once possible."""
    leases = await fill(database, 3, waiting=3)
    await end(database, leases[0])
    await end(database, leases[1])
    await record_outcome(database, await claim_one(database), make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 1


async def test_a_prober_that_found_nothing_out_changes_nothing(database: Database) -> None:
    """An answer about the image says nothing about the cap: another probes at once."""
    await fill(database, 2, waiting=3)
    await record_outcome(database, await probe(database), make_refusal(IMAGE_BUSY))
    found = await concurrency_limit(database)
    assert (found.ceiling, found.probing) == (2, False)
    assert (await claim_one(database)).probe


async def test_a_full_scope_holds_up_no_other(database: Database) -> None:
    """The gate of one region is closed, that of another knows nothing of it."""
    await fill(database, 2, waiting=2)
    await put_off_probing(database)
    await make_jobs(database, [make_request(9, region="ap-tokyo")])
    lease = await claim_one(database)
    assert (lease.order.region, lease.probe) == ("ap-tokyo", False)
    assert await try_claim(database) is None


async def test_what_was_learned_outlives_the_process(databases: Sequence[Database]) -> None:
    """A new process finds the ceiling and the prober's time as they were."""
    await fill(databases[0], 2, waiting=2)
    known = await concurrency_limit(databases[0])
    await databases[0].close()
    assert await concurrency_limit(databases[1]) == known
    assert known.ceiling == 2


async def test_a_place_is_held_no_longer_than_its_deadline(database: Database) -> None:
    """An export whose end was never seen does not keep its place for ever."""
    await fill(database, 2, waiting=2)
    await advance_time(database, seconds=DEADLINE.total_seconds() - 60)
    assert (await concurrency_limit(database)).running == 2
    await advance_time(database, seconds=61)
    assert (await concurrency_limit(database)).running == 0
    assert not (await claim_one(database)).probe


async def test_a_request_in_the_air_holds_a_place(database: Database) -> None:
    """Sixteen workers together do not overshoot a ceiling: the rows are counted in the claim."""
    await make_jobs(database, make_requests(20))
    await update_scope(database, ceiling=7)
    await put_off_probing(database)
    taken: list[Lease] = []

    async def take() -> None:
        while (lease := await try_claim(database)) is not None:
            taken.append(lease)

    async with anyio.create_task_group() as tasks:
        for _ in range(16):
            tasks.start_soon(take)
    assert len(taken) == 7


async def test_the_regions_of_an_account_are_known(database: Database) -> None:
    """Every region that ever had a job, once, and none of another account."""
    for _ in range(2):
        await make_jobs(database, [make_request(1), make_request(2, region="ap-tokyo")], again=True)
    async with database.write() as connection:
        await open_scope(connection, "somebody else", "ap-seoul")
    async with database.read() as connection:
        assert await known_regions(connection, PROFILE) == [REGION, "ap-tokyo"]

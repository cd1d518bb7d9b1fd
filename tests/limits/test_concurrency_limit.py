"""The learned concurrency limit of a scope, and the probe that finds out whether it has grown."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.limits.concurrency_limit import (
    ConcurrencyLimit,
    concurrency_limits,
    exporting_regions,
    known_regions,
    open_scope,
)
from orchestrator.model import NOT_RULED_OUT, Lease, Reaction
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
    make_job,
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

MAX_BACKOFF = 300.0


async def concurrency_limit(database: Database) -> ConcurrencyLimit:
    async with database.read() as connection:
        (found,) = await concurrency_limits(connection, PROFILE, await database.now(connection))
        return found


async def fill(
    database: Database, running: int, *, waiting: int, is_end_visible: bool = False
) -> list[Lease]:
    """Start exports until one more is refused; return the leases of the exports.

    Args:
        running: number of exports to start.
        waiting: number of jobs that are queued afterwards, with the refused one.
        is_end_visible: whether the ends of exports can be seen in the bucket.
    """
    await make_jobs(database, make_requests(running + waiting, first=100))
    leases = [await claim_one(database) for _ in range(running + 1)]
    for task, lease in enumerate(leases[:-1], start=1):
        await record_outcome(database, lease, make_acceptance(task), is_end_visible=is_end_visible)
    await record_outcome(
        database, leases[-1], make_refusal(CAP_REACHED), is_end_visible=is_end_visible
    )
    return leases[:-1]


async def end(database: Database, lease: Lease) -> None:
    """Verify the export of this lease."""
    await update_job(database, lease.job_id, state=JobState.VERIFIED)


async def probe(database: Database) -> Lease:
    """Claim the next probe, after the longest back-off."""
    await advance_time(database, seconds=MAX_BACKOFF)
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
    """Everything may be sent until the vendor refuses an export for capacity."""
    await make_jobs(database, make_requests(5))
    leases = [await claim_one(database) for _ in range(5)]
    found = await concurrency_limit(database)
    assert (found.ceiling, found.running, found.has_free_slot) == (None, 5, True)
    assert not any(lease.probe for lease in leases)


async def test_a_refusal_sets_the_ceiling_to_what_runs(database: Database) -> None:
    """After it no job of the scope is sent until a slot is free or a probe is due."""
    await fill(database, 3, waiting=2)
    found = await concurrency_limit(database)
    assert (found.ceiling, found.running, found.has_free_slot) == (3, 3, False)
    assert found.full_since is not None
    assert (await read_scope(database)).probe_at > found.full_since
    await put_off_probing(database)
    assert await try_claim(database) is None


async def test_refusals_of_requests_in_flight_leave_the_true_ceiling(database: Database) -> None:
    """The last refusal sets the ceiling to the number of exports that really run.

    Jobs that were refused before it no longer count as running.
    """
    await make_jobs(database, make_requests(8))
    leases = [await claim_one(database) for _ in range(8)]
    await record_outcome(database, leases[0], make_acceptance(1))
    await record_outcome(database, leases[1], make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 7
    for lease in leases[2:]:
        await record_outcome(database, lease, make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 1


async def test_concurrent_refusals_do_not_count_as_running(databases: Sequence[Database]) -> None:
    """Eight refusals that are recorded at the same time set the ceiling to 0.

    No refused job counts as running.
    """
    await make_jobs(databases[0], make_requests(8))
    leases = [await claim_one(databases[0]) for _ in range(8)]
    async with anyio.create_task_group() as tasks:
        for position, lease in enumerate(leases):
            tasks.start_soon(
                record_outcome, databases[position % 4], lease, make_refusal(CAP_REACHED)
            )
    assert (await concurrency_limit(databases[0])).ceiling == 0


async def test_a_verified_export_frees_its_slot_at_once(database: Database) -> None:
    """One more job may be sent, without a probe."""
    leases = await fill(database, 3, waiting=3)
    await put_off_probing(database)
    await end(database, leases[0])
    lease = await claim_one(database)
    assert not lease.probe
    assert await try_claim(database) is None


async def test_a_refusal_for_capacity_charges_no_attempt(database: Database) -> None:
    """A refusal for capacity charges no attempt and counts as no deferral of its job.

    That holds for the first refused job and for a probe.
    """
    await fill(database, 1, waiting=1)
    refused = await probe(database)
    await record_outcome(database, refused, make_refusal(CAP_REACHED))
    waiting = await read_job(database, refused.job_id)
    assert (waiting.state, waiting.reason, waiting.attempts_charged) == (
        JobState.QUEUED,
        "capacity",
        0,
    )
    assert (waiting.attempt, waiting.deferrals) == (2, 0)


async def test_there_is_one_probe_at_a_time(database: Database) -> None:
    """While a probe is in flight, no other job of the scope is sent."""
    await fill(database, 2, waiting=3)
    await probe(database)
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() / 2)
    assert await try_claim(database) is None


async def test_a_probe_that_never_answers_is_replaced(database: Database) -> None:
    """The next probe may be sent once its lease has ended."""
    await fill(database, 2, waiting=3)
    first = await probe(database)
    await advance_time(database, seconds=LEASE_DURATION.total_seconds() + 1)
    second = await claim_one(database)
    assert second.probe
    assert second.job_id != first.job_id


async def test_where_no_end_is_visible_each_refused_probe_doubles_the_wait(
    database: Database,
) -> None:
    """Up to five minutes and no further."""
    await fill(database, 1, waiting=1)
    for misses in range(11):
        lease = await probe(database)
        before = await now(database)
        await record_outcome(database, lease, make_refusal(CAP_REACHED))
        whole = min(MAX_BACKOFF, 2.0**misses)
        await assert_probe_after(database, before, whole - 0.01, whole + 0.01)


async def test_where_no_end_is_visible_an_accepted_probe_halves_the_next_wait(
    database: Database,
) -> None:
    """Probes keep up with ends that are not visible, however long exports take."""
    await fill(database, 1, waiting=5)
    for _ in range(4):
        await record_outcome(database, await probe(database), make_refusal(CAP_REACHED))
    await record_outcome(database, await probe(database), make_acceptance(2))
    found = await read_scope(database)
    assert (found.misses, found.probe_at <= await now(database)) == (3, True)


async def test_where_ends_are_visible_the_wait_is_the_duration_times_the_root_of_the_ceiling(
    database: Database,
) -> None:
    """Ten minutes for each export, four of them running: twenty minutes."""
    for _ in range(4):
        await make_verified_job(database, took=600)
    await make_jobs(database, make_requests(9, first=20))
    leases = [await claim_one(database) for _ in range(5)]
    for task, lease in enumerate(leases[:-1], start=1):
        await record_outcome(database, lease, make_acceptance(task), is_end_visible=True)
    before = await now(database)
    await record_outcome(database, leases[-1], make_refusal(CAP_REACHED), is_end_visible=True)
    await assert_probe_after(database, before, 1199, 1201)


async def test_before_the_first_visible_end_the_time_since_the_first_refusal_counts(
    database: Database,
) -> None:
    """Exports take at least as long as the scope has been full."""
    await fill(database, 4, waiting=2, is_end_visible=True)
    lease = await probe(database)
    before, begun = await now(database), (await read_scope(database)).full_since
    await record_outcome(database, lease, make_refusal(CAP_REACHED), is_end_visible=True)
    after, due = await now(database), (await read_scope(database)).probe_at
    assert before + 2 * (before - begun) <= due <= after + 2 * (after - begun)


async def test_a_suspected_region_without_exports_is_probed_often(database: Database) -> None:
    """A suspected region without exports is probed again within ten seconds.

    Each probe may show that a refusal concerns its job alone.
    """
    await fill(database, 0, waiting=1)
    full = make_refusal(CAP_REACHED)
    suspect = replace(full, code=replace(full.code, reaction=Reaction.SUSPECT_REGION))
    for _ in range(8):
        await record_outcome(database, await probe(database), suspect)
    lease, before = await probe(database), await now(database)
    await record_outcome(database, lease, suspect)
    await assert_probe_after(database, before, 5, 10)


async def test_an_accepted_probe_raises_the_ceiling_by_one(database: Database) -> None:
    """The next probe may be sent at once, until one is refused."""
    await fill(database, 2, waiting=3)
    await record_outcome(database, await probe(database), make_acceptance(3))
    found = await concurrency_limit(database)
    assert (found.ceiling, found.running, found.full_since) == (3, 3, None)
    lease = await claim_one(database)
    assert lease.probe
    await record_outcome(database, lease, make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 3


async def test_a_refusal_lowers_the_ceiling_to_what_runs(database: Database) -> None:
    """An earlier, higher ceiling does not count."""
    leases = await fill(database, 3, waiting=3)
    await end(database, leases[0])
    await end(database, leases[1])
    await record_outcome(database, await claim_one(database), make_refusal(CAP_REACHED))
    assert (await concurrency_limit(database)).ceiling == 1


async def test_a_probe_refused_for_another_reason_changes_nothing(database: Database) -> None:
    """If a probe is refused because of its image, the ceiling stays as it is.

    The next probe may follow immediately.
    """
    await fill(database, 2, waiting=3)
    await record_outcome(database, await probe(database), make_refusal(IMAGE_BUSY))
    assert (await concurrency_limit(database)).ceiling == 2
    assert (await claim_one(database)).probe


async def test_a_scope_at_capacity_does_not_hold_up_another(database: Database) -> None:
    """Each region has its own limit."""
    await fill(database, 2, waiting=2)
    await put_off_probing(database)
    await make_jobs(database, [make_request(9, region="ap-tokyo")])
    lease = await claim_one(database)
    assert (lease.order.region, lease.probe) == ("ap-tokyo", False)
    assert await try_claim(database) is None


async def test_the_limit_outlives_the_process(databases: Sequence[Database]) -> None:
    """A new process finds the ceiling and the time of the next probe in the store."""
    await fill(databases[0], 2, waiting=2)
    known = await concurrency_limit(databases[0])
    await databases[0].close()
    assert await concurrency_limit(databases[1]) == known
    assert known.ceiling == 2


async def test_an_export_holds_its_slot_until_its_deadline_at_most(database: Database) -> None:
    """One whose end is never seen does not count as running for ever."""
    await fill(database, 2, waiting=2)
    await advance_time(database, seconds=DEADLINE.total_seconds() - 60)
    assert (await concurrency_limit(database)).running == 2
    await advance_time(database, seconds=61)
    assert (await concurrency_limit(database)).running == 0
    assert not (await claim_one(database)).probe


async def test_a_request_in_flight_holds_a_slot(database: Database) -> None:
    """Claims count the job rows, so sixteen workers together do not exceed a ceiling."""
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
        await open_scope(connection, "another account", "ap-seoul")
    async with database.read() as connection:
        assert await known_regions(connection, PROFILE) == [REGION, "ap-tokyo"]


async def test_only_exports_that_may_run_count_as_exporting(database: Database) -> None:
    """Accepted and unknown jobs count as exporting, unless an operator must decide.

    As far as is known, a job that is left to an operator occupies no capacity.
    """
    for state, reason, exporting in (
        (JobState.SENDING, "sending", False),
        (JobState.VERIFIED, "delivered", False),
        (JobState.UNKNOWN, NOT_RULED_OUT, False),
        (JobState.UNKNOWN, "answer lost", True),
        (JobState.ACCEPTED, "exporting", True),
    ):
        await make_job(database, state, reason=reason)
        async with database.read() as connection:
            regions = await exporting_regions(connection, PROFILE)
        assert regions == ({REGION} if exporting else frozenset())

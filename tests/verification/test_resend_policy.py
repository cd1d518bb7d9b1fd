"""When an empty bucket proves that an export never began, and when it proves nothing."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import NO, VendorFact, record_fact
from orchestrator.model import NOT_RULED_OUT, bucket_location
from orchestrator.settings import ResendMode, Settings
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from orchestrator.verification.tracked_jobs import load_tracked_job
from orchestrator.verification.unknown_jobs import (
    left_to_operator,
    look_up_unknown_job,
    required_absence,
)
from tests.job_factory import (
    BUCKET,
    PROFILE,
    REGION,
    SETTINGS,
    TESTER,
    add_expected_objects,
    advance_time,
    make_job,
    make_traced_job,
    now,
    read_event_kinds,
    read_job,
    update_job,
)
from tests.store_and_cloud import StoreAndCloud

pytestmark = pytest.mark.anyio


async def unknown(database: Database, **columns: object) -> int:
    """Make an unknown job; return its id."""
    return await make_job(
        database, JobState.UNKNOWN, attempt=1, attempts_charged=1, maybe_applied=True, **columns
    )


async def absent(database: Database) -> int:
    """Make an unknown job that was not found for long enough; return its id."""
    moment = await now(database)
    since, due = moment - timedelta(seconds=121), moment + timedelta(seconds=60)
    return await unknown(database, absent_since=since, due_at=due, reason=NOT_RULED_OUT)


async def required(database: Database, job_id: int, **changes: object) -> timedelta | None:
    """Return for how long look-ups must find nothing before a resend.

    Returns:
        The time; ``None`` if the job is never resent.
    """
    async with database.read() as connection:
        one = await load_tracked_job(connection, job_id)
        found = await required_absence(connection, one, SETTINGS.model_copy(update=changes))
        return None if isinstance(found, str) else found


async def test_a_bucket_in_which_nothing_was_found_proves_nothing(database: Database) -> None:
    """Nothing is resent until an accepted job was found in the bucket under its tag."""
    assert await required(database, await unknown(database)) is None


async def test_a_trace_in_the_same_bucket_makes_absence_a_proof(database: Database) -> None:
    """Absence must last for `resend_after` or twice the time to a first trace.

    The longer of the two counts.
    """
    await make_traced_job(database, took=10)
    job_id = await unknown(database)
    assert await required(database, job_id) == SETTINGS.resend_after
    await make_traced_job(database, took=600)
    assert await required(database, job_id) == timedelta(seconds=1200)


async def test_only_the_last_fifty_traces_count(database: Database) -> None:
    """Slow exports of long ago do not delay the jobs of today."""
    await make_traced_job(database, took=900)
    for _ in range(50):
        await make_traced_job(database, took=5)
    assert await required(database, await unknown(database)) == SETTINGS.resend_after


@pytest.mark.parametrize(
    "other", [{"bucket": "other-1250000000"}, {"region": "ap-tokyo"}, {"profile": "other"}]
)
async def test_a_trace_in_another_bucket_proves_nothing(
    database: Database, other: dict[str, Any]
) -> None:
    """A trace in another bucket, region or profile proves nothing.

    Each bucket has its own permissions and its own region, and each profile its own account.
    """
    await make_traced_job(database, **other)
    job_id = await absent(database)
    assert await required(database, job_id) is None
    assert await left(database) == [job_id]


@pytest.mark.parametrize("fact", [VendorFact.PREFIX_HONOURED, VendorFact.LISTING_TRUSTED])
async def test_an_empty_listing_proves_nothing_where_listings_are_useless(
    database: Database, fact: VendorFact
) -> None:
    """Empty listings prove nothing if exports lack the tag or listings are wrong."""
    await make_traced_job(database)
    job_id = await absent(database)
    assert await left(database) == []
    async with database.write() as connection:
        location, moment = f"{REGION}/{BUCKET}", await database.now(connection)
        await record_fact(connection, PROFILE, location, fact, NO, moment)
    for mode in (ResendMode.PROVEN, ResendMode.ALWAYS):
        assert await required(database, job_id, resend=mode) is None
        assert await left(database, SETTINGS.model_copy(update={"resend": mode})) == [job_id]


async def test_wrong_listings_are_remembered_before_absence_is_decided(
    setup: StoreAndCloud,
) -> None:
    """The look-up that shows other keys is the one that proves nothing, and says so."""
    await make_traced_job(setup.database)
    setup.simulator.change(listings_ignore_prefix=True)
    other = await make_job(setup.database, JobState.UNKNOWN, attempt=1)
    await setup.export_without_answer(other)
    job_id = await unknown(setup.database)
    for _ in range(3):
        one = await setup.tracked_job(job_id)
        state = await look_up_unknown_job(
            setup.database,
            setup.cos,
            setup.trust,
            one,
            SETTINGS,
            setup.absence,
            actor=TESTER,
        )
        assert state is JobState.UNKNOWN
        await advance_time(setup.database, seconds=130)
    kept = await read_job(setup.database, job_id)
    assert kept.reason == NOT_RULED_OUT
    assert "listings" in kept.message


async def test_a_trace_before_its_request_is_ignored(database: Database) -> None:
    """Such a time was recorded by a clock that was set meanwhile."""
    await make_traced_job(database, took=-5)
    job_id = await absent(database)
    assert await required(database, job_id) is None
    assert await left(database) == [job_id]


async def test_the_settings_decide(database: Database) -> None:
    """``always`` needs no proof, ``never`` accepts none; exact names never have one."""
    job_id = await unknown(database)
    assert await required(database, job_id, resend=ResendMode.ALWAYS) == SETTINGS.resend_after
    await make_traced_job(database)
    assert await required(database, job_id, resend=ResendMode.NEVER) is None
    exact = await unknown(database, exact_names=True)
    assert await required(database, exact, resend=ResendMode.ALWAYS) is None


async def left(
    database: Database, settings: Settings = SETTINGS, unlisted: Sequence[str] = ()
) -> list[int]:
    """Return the jobs that are left to an operator.

    Args:
        unlisted: buckets whose listings are refused.
    """
    is_left = left_to_operator(settings, database.now_in_query, lambda: unlisted)
    async with database.read() as connection:
        query = sa.select(jobs.c.id).where(is_left)
        return list((await connection.execute(query)).scalars())


async def test_no_run_waits_for_jobs_left_to_an_operator(database: Database) -> None:
    """A job is left to an operator after enough empty look-ups in an unproven bucket."""
    job_id = await absent(database)
    assert await left(database) == [job_id]
    assert await left(database, SETTINGS.model_copy(update={"resend": ResendMode.ALWAYS})) == []
    await make_traced_job(database)
    assert await left(database) == []
    never = SETTINGS.model_copy(update={"resend": ResendMode.NEVER})
    assert await left(database, never) == [job_id]
    await update_job(database, job_id, reason="answer lost")
    assert await left(database, never) == []  # a look-up has to record first why it is not resent


@pytest.mark.parametrize(
    ("key", "columns", "is_answered"),
    [
        ("{prefix}img-00000001_system.raw", {}, True),
        (None, {"exact_names": True}, True),  # of which nothing is asked
        ("img-00000001_system.raw", {}, False),
        (None, {}, False),
    ],
)
async def test_where_listings_are_refused_the_reason_is_stored_first(
    database: Database, key: str | None, columns: dict[str, object], is_answered: bool
) -> None:
    """A job of which no look-up is answered there is left without it."""
    await make_traced_job(database)
    moment = await now(database)
    long_ago, soon = moment - timedelta(seconds=121), moment + timedelta(seconds=60)
    unlisted = [bucket_location(REGION, BUCKET)]
    for since in (None, long_ago):
        job_id = await unknown(database, absent_since=since, due_at=soon, reason="lost", **columns)
        await update_job(database, job_id, sent_at=long_ago)
        if key is not None:
            prefix = (await read_job(database, job_id)).object_prefix
            await add_expected_objects(database, job_id, key.format(prefix=prefix))
        assert (job_id in await left(database, unlisted=unlisted)) is not is_answered
        assert job_id not in await left(database)
        await update_job(database, job_id, reason=NOT_RULED_OUT)
        is_left = job_id in await left(database, unlisted=unlisted)
        assert is_left is (since is not None or not is_answered)


async def test_the_job_says_once_why_it_is_not_sent_again(setup: StoreAndCloud) -> None:
    """Reason, message and remedy are stored with the job, and one event is written."""
    job_id = await unknown(setup.database)
    for _ in range(3):
        one = await setup.tracked_job(job_id)
        assert (
            await look_up_unknown_job(
                setup.database, setup.cos, setup.trust, one, SETTINGS, setup.absence, actor=TESTER
            )
            is JobState.UNKNOWN
        )
        await advance_time(setup.database, seconds=130)
    kept = await read_job(setup.database, job_id)
    assert (kept.state, kept.reason) == (JobState.UNKNOWN, NOT_RULED_OUT)
    assert "does not prove" in kept.message
    assert f"resolve {job_id}" in kept.remedy
    assert await read_event_kinds(setup.database, job_id) == ["enqueued", "not resent"]


async def test_a_slow_bucket_is_given_twice_its_time(setup: StoreAndCloud) -> None:
    """If exports take 10 min to appear, a lost one is queued again after 20 min."""
    await make_traced_job(setup.database, took=600)
    job_id = await unknown(setup.database)
    states: list[JobState] = []
    for _ in range(3):
        one = await setup.tracked_job(job_id)
        states.append(
            await look_up_unknown_job(
                setup.database, setup.cos, setup.trust, one, SETTINGS, setup.absence, actor=TESTER
            )
        )
        await advance_time(setup.database, seconds=605)
    assert states == [JobState.UNKNOWN, JobState.UNKNOWN, JobState.QUEUED]

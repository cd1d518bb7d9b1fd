"""How long an accepted export may take, after what the others took."""

from datetime import timedelta

import pytest

from orchestrator.forecast import Experience, FinishedExport
from orchestrator.job_states import JobState
from orchestrator.store import Database
from orchestrator.store.tables import events
from orchestrator.verification.expected_objects import TrackedJob, load_tracked_job
from orchestrator.verification.export_deadline import ExportDeadlines, time_allowed
from tests.job_factory import TESTER, advance_time, make_job, make_verified_job, now
from tests.store_and_cloud import export_age

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


def ended(*seconds: float, size_gib: int = 0) -> list[FinishedExport]:
    return [FinishedExport(timedelta(seconds=one), size_gib) for one in seconds]


async def exporting(database: Database, *, size_gib: int = 50) -> TrackedJob:
    """A job accepted just now."""
    moment = await now(database)
    job_id = await make_job(
        database, JobState.ACCEPTED, accepted_at=moment, size_gib=size_gib, task_id="1"
    )
    async with database.read() as connection:
        return await load_tracked_job(connection, job_id)


def test_without_an_example_nothing_is_too_long() -> None:
    """Where no export has ended, or none whose size compares, nobody knows."""
    assert time_allowed([], 50) is None
    assert time_allowed(ended(100, size_gib=0), 50) is None
    assert time_allowed(ended(100, size_gib=50), 0) is None


def test_the_slowest_counts_and_many_examples_allow_less() -> None:
    """Ten times the slowest and a little; with a single example far more than that."""
    alone, many = time_allowed(ended(100), 0), time_allowed(ended(*[10] * 99, 100), 0)
    assert (alone, many) == (timedelta(seconds=11_000), timedelta(seconds=1_100))


def test_a_larger_image_may_take_longer_and_a_smaller_one_no_less() -> None:
    """Size scales the time up alone: the vendor's queue is as long for a small image."""
    seen = ended(*[100] * 10, size_gib=50)
    small, same, large = (time_allowed(seen, size) for size in (5, 50, 500))
    assert small == same == timedelta(seconds=2_000)
    assert large == timedelta(seconds=20_000)


def test_quick_exports_do_not_make_it_hasty() -> None:
    """However fast the others were, a minute is always allowed."""
    assert time_allowed(ended(*[0.01] * 200), 0) == timedelta(minutes=1)


@pytest.mark.parametrize("seconds", [0, 3_500])
async def test_before_anything_is_known_the_setting_holds(
    database: Database, seconds: float
) -> None:
    """Until the first export has ended, an export may take as long as the setting says."""
    job = await exporting(database)
    await advance_time(database, seconds=seconds)
    assert not await passed(database, job, timedelta(hours=1))


async def test_what_others_took_is_learned_from_the_store(database: Database) -> None:
    """Verified exports of the same region set the time, from the next look on."""
    for _ in range(10):
        await make_verified_job(database, took=100)
    job = await exporting(database)
    await advance_time(database, seconds=1_900)
    assert not await passed(database, job, DAY)
    await advance_time(database, seconds=110)
    assert await passed(database, job, DAY)


async def test_an_open_upload_doubles_the_time_but_not_the_setting(database: Database) -> None:
    """What is being written gets twice as long as learned, and never more than the setting."""
    for _ in range(10):
        await make_verified_job(database, took=100)
    job = await exporting(database)
    await advance_time(database, seconds=2_010)
    assert not await passed(database, job, DAY, being_written=True)
    assert await passed(database, job, timedelta(seconds=1_500), being_written=True)


@pytest.mark.parametrize("columns", [{"region": "ap-jakarta"}, {"profile": "b"}])
async def test_examples_of_another_place_are_left_out(
    database: Database, columns: dict[str, str]
) -> None:
    """Another region or account has its own pace."""
    await make_verified_job(database, took=1, **columns)
    job = await exporting(database)
    await advance_time(database, hours=20)
    assert not await passed(database, job, DAY)


async def test_an_adopted_example_is_left_out_though_its_task_came_to_be_known(
    database: Database,
) -> None:
    """It was accepted nobody knows when; a late answer tells the task, not the time."""
    job_id = await make_verified_job(database, took=1)
    async with database.write() as connection:
        at = await database.now(connection)
        adopted = {"job_id": job_id, "at": at, "kind": "adopted", "actor": TESTER, "details": {}}
        await connection.execute(events.insert().values(adopted))
    job = await exporting(database)
    await advance_time(database, hours=20)
    assert not await passed(database, job, DAY)


async def passed(
    database: Database, job: TrackedJob, longest: timedelta, *, being_written: bool = False
) -> bool:
    """Whether the job's deadline is over, by what the store has of it now."""
    async with database.read() as connection:
        job = await load_tracked_job(connection, job.job_id)
    deadlines = ExportDeadlines(database, Experience(), longest)
    age = await export_age(database, job)
    return await deadlines.has_passed(job, age, being_written=being_written)

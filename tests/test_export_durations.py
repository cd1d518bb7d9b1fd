"""How long exports take, as learned from finished ones; deadlines."""

from datetime import timedelta

import pytest

from orchestrator.export_durations import (
    FinishedExport,
    deadline,
    earliest_end,
    latest_finished_exports,
    long_duration,
    typical_duration,
)
from orchestrator.store import Database
from tests.job_factory import (
    PROFILE,
    REGION,
    add_expected_objects,
    make_verified_job,
    now,
    read_job,
    update_job,
)

pytestmark = pytest.mark.anyio

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def finished(*seconds: float, size_gib: int = 0) -> list[FinishedExport]:
    return [FinishedExport(one * SECOND, size_gib) for one in seconds]


async def known(database: Database) -> list[FinishedExport]:
    async with database.read() as connection:
        moment = await database.now(connection)
        return await latest_finished_exports(connection, PROFILE, REGION, moment)


async def test_finished_exports_are_ordered_by_their_end(database: Database) -> None:
    """The newest end comes first, whatever the job ids."""
    for took in (60, 120, 180):
        job_id = await make_verified_job(database, took=took)
        ended = await now(database) - took * MINUTE
        begun = ended - timedelta(seconds=took)
        await update_job(database, job_id, finished_at=ended, accepted_at=begun, sent_at=begun)
    assert [one.seen_after for one in await known(database)] == [MINUTE, 2 * MINUTE, 3 * MINUTE]


async def test_the_time_of_writing_is_known_too(database: Database) -> None:
    """Polling may have paused for long; of several objects the last one counts."""
    job_id = await make_verified_job(database, took=3600)
    begun = (await read_job(database, job_id)).accepted_at
    await add_expected_objects(database, job_id, "early", last_modified=begun + MINUTE)
    await add_expected_objects(database, job_id, "late", last_modified=begun + 10 * MINUTE)
    (one,) = await known(database)
    assert one.seen_after == HOUR
    assert one.shortest == pytest.approx(10 * MINUTE, abs=2 * SECOND)


async def test_an_unknown_time_of_acceptance_is_no_example(database: Database) -> None:
    """Its answer was recorded late, or the clock was changed."""
    job_id = await make_verified_job(database, took=60)
    await update_job(database, job_id, sent_at=await now(database) - 2 * MINUTE)
    assert await known(database) == []


async def test_answers_that_were_recorded_late_shorten_no_deadline(database: Database) -> None:
    """After ten minutes without the store, exports seem to have taken a second."""
    for _ in range(32):
        job_id = await make_verified_job(database, took=1)
        await update_job(database, job_id, sent_at=await now(database) - 10 * MINUTE)
    assert deadline(await known(database), 50, longest=DAY) == DAY


async def test_an_export_that_was_found_in_the_bucket_is_no_example(database: Database) -> None:
    """An export that was found in the bucket does not count as an example.

    It was accepted only when it was found, so its duration would seem too short.
    """
    job_id = await make_verified_job(database, took=1)
    await update_job(database, job_id, task_id=None)
    assert await known(database) == []


async def test_an_end_in_the_future_is_no_example(database: Database) -> None:
    """It was recorded by another clock, and must not stay the newest one for hours."""
    job_id = await make_verified_job(database, took=60)
    await update_job(database, job_id, finished_at=await now(database) + HOUR)
    assert await known(database) == []


def test_the_typical_duration_ignores_an_outlier() -> None:
    """It is the median, unknown before any export has finished."""
    assert typical_duration(finished(400, 1, 4, 2, 3)) == 3 * SECOND
    assert typical_duration([]) is None


def test_three_of_four_exports_take_no_longer_than_the_long_duration() -> None:
    """One that takes for ever does not count; unknown before any export has finished."""
    assert long_duration(finished(4000, 10, 40, 20, 30)) == 40 * SECOND
    assert long_duration([]) is None


def test_the_earliest_end_is_a_little_before_the_shortest_duration() -> None:
    """Otherwise a shorter duration would never be learned; 0 without an example."""
    assert 29 * SECOND < earliest_end(finished(40, 30, 50, size_gib=50), 50) < 30 * SECOND
    assert earliest_end([], 50) == timedelta()


def test_the_earliest_end_is_scaled_down_for_a_smaller_image_only() -> None:
    """The earliest end is scaled down for smaller images, but not up for larger ones.

    A larger image may take no longer: much of the time may not be copying.
    """
    small, same, large = (earliest_end(finished(30, size_gib=50), size) for size in (5, 50, 500))
    assert 10 * small == same == large


def test_an_unknown_size_is_compared_with_unknown_sizes_only() -> None:
    """An export of unknown size is no example for one of known size, or the reverse."""
    assert earliest_end(finished(30, size_gib=0), 50) == timedelta()
    assert earliest_end(finished(30, size_gib=50), 0) == timedelta()
    assert earliest_end(finished(30), 0) > 29 * SECOND


def test_images_of_a_similar_size_are_the_best_examples() -> None:
    """Once one of them has finished, larger ones are not taken into account."""
    examples = finished(30, size_gib=50) + finished(30, size_gib=500)
    assert 29 * SECOND < earliest_end(examples, 50) < 30 * SECOND


def test_the_earliest_end_ignores_a_single_outlier() -> None:
    """One short export among twenty does not make polling of the others start early."""
    assert earliest_end(finished(1, *[600] * 40), 0) > 500 * SECOND


def test_an_end_seen_hours_late_does_not_delay_polling() -> None:
    """The shorter of the two times counts: when it was seen, and when it was written."""
    late = FinishedExport(8 * HOUR, 50, written_after=30 * MINUTE)
    assert earliest_end([late], 50) < 30 * MINUTE
    clock_ahead = FinishedExport(30 * MINUTE, 50, written_after=8 * HOUR)
    assert earliest_end([clock_ahead], 50) < 30 * MINUTE


def test_without_an_example_the_longest_deadline_applies() -> None:
    """No export has finished, or none whose size can be compared."""
    assert deadline([], 50, longest=DAY) == DAY
    assert deadline(finished(100, size_gib=0), 50, longest=DAY) == DAY
    assert deadline(finished(100, size_gib=50), 0, longest=DAY) == DAY


def test_the_deadline_follows_the_slowest_and_is_longer_with_few_examples() -> None:
    """Eleven times the slowest of a hundred, a hundred and ten times a single one."""
    alone, many = (
        deadline(finished(*durations), 0, longest=DAY) for durations in ([100], [10] * 99 + [100])
    )
    assert (alone, many) == (11_000 * SECOND, 1_100 * SECOND)


def test_the_deadline_is_scaled_up_for_a_larger_image_only() -> None:
    """The vendor's queue is as long for a small image."""
    examples = finished(*[100] * 10, size_gib=50)
    small, same, large = (deadline(examples, size, longest=DAY) for size in (5, 50, 500))
    assert small == same == 2_000 * SECOND
    assert large == 20_000 * SECOND


def test_the_deadline_is_never_under_a_minute() -> None:
    """However fast other exports were, unless the user set a shorter one."""
    assert deadline(finished(*[0.01] * 200), 0, longest=DAY) == MINUTE
    assert deadline(finished(*[0.01] * 200), 0, longest=SECOND) == SECOND


def test_an_open_upload_doubles_the_learned_deadline_only() -> None:
    """The setting stays the longest deadline."""
    examples = finished(*[100] * 10)
    assert deadline(examples, 0, longest=DAY, being_written=True) == 4_000 * SECOND
    assert deadline(examples, 0, longest=HOUR, being_written=True) == HOUR


@pytest.mark.parametrize("columns", [{"region": "ap-jakarta"}, {"profile": "b"}])
async def test_exports_of_another_scope_are_no_examples(
    database: Database, columns: dict[str, str]
) -> None:
    """Another region or account has its own speed."""
    await make_verified_job(database, took=1, **columns)
    assert await known(database) == []

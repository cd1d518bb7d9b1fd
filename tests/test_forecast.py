"""What exports took, as far as anybody can tell."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from orchestrator.forecast import FinishedExport, latest_finished_exports, typical_duration
from orchestrator.store import Database
from orchestrator.store.tables import events
from tests.job_factory import (
    PROFILE,
    REGION,
    TESTER,
    add_expected_objects,
    make_verified_job,
    now,
    read_job,
    update_job,
)

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


async def known(database: Database, *, limit: int = 10) -> list[FinishedExport]:
    async with database.read() as connection:
        moment = await database.now(connection)
        return await latest_finished_exports(connection, PROFILE, REGION, moment, limit=limit)


async def test_the_newest_come_first_and_no_more_than_are_wanted(database: Database) -> None:
    """By when they ended, whatever their numbers."""
    for took in (60, 120, 180):
        job_id = await make_verified_job(database, took=took)
        ended = await now(database) - took * MINUTE
        begun = ended - timedelta(seconds=took)
        await update_job(database, job_id, finished_at=ended, accepted_at=begun, sent_at=begun)
    found = await known(database, limit=2)
    assert [one.took for one in found] == [MINUTE, 2 * MINUTE]


async def test_when_the_objects_were_written_is_known_too(database: Database) -> None:
    """Nobody may have looked for long; the last of several objects counts."""
    job_id = await make_verified_job(database, took=3600)
    begun = (await read_job(database, job_id)).accepted_at
    await add_expected_objects(database, job_id, "early", last_modified=begun + MINUTE)
    await add_expected_objects(database, job_id, "late", last_modified=begun + 10 * MINUTE)
    (one,) = await known(database)
    assert one.took == timedelta(hours=1)
    assert one.shortest == pytest.approx(10 * MINUTE, abs=timedelta(seconds=2))


@pytest.mark.parametrize("kind", ["adopted", "settled", "late answer"])
async def test_what_was_accepted_nobody_knows_when_is_no_example(
    database: Database, kind: str
) -> None:
    """Found in the bucket, told by a person, or answered after somebody else took it over."""
    job_id = await make_verified_job(database, took=60)
    async with database.write() as connection:
        at = await database.now(connection)
        told = {"job_id": job_id, "at": at, "kind": kind, "actor": TESTER, "details": {}}
        await connection.execute(sa.insert(events).values(told))
    assert await known(database) == []


async def test_what_was_dated_anew_is_no_example(database: Database) -> None:
    """After a clock was set an export under way begins anew, hours after it was sent."""
    job_id = await make_verified_job(database, took=60)
    await update_job(database, job_id, sent_at=await now(database) - timedelta(hours=3))
    assert await known(database) == []


async def test_what_ended_by_another_clock_is_no_example(database: Database) -> None:
    """An end in the future says nothing, and must not stay the newest for hours."""
    job_id = await make_verified_job(database, took=60)
    await update_job(database, job_id, finished_at=await now(database) + timedelta(hours=1))
    assert await known(database) == []


def test_the_usual_time_is_what_three_of_four_take_at_most() -> None:
    """One that takes for ever does not make all the others late."""
    assert (
        typical_duration([FinishedExport(n * MINUTE, 0) for n in (400, 1, 4, 2, 3)]) == 4 * MINUTE
    )
    assert typical_duration([]) is None

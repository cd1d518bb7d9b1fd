"""What the store has learned of the vendor."""

from datetime import timedelta

import pytest

from orchestrator.learned_vendor_facts import (
    LearnedFact,
    VendorFact,
    all_facts,
    facts_about,
    record_fact,
)
from orchestrator.store import Database
from orchestrator.store.tables import vendor_facts
from tests.job_factory import BUCKET as JOBS_BUCKET
from tests.job_factory import NOON, PROFILE, REGION, make_traced_job, read_job

pytestmark = pytest.mark.anyio

BUCKET = "ap-tokyo/backup-1250000000"


async def test_a_fact_has_its_last_value_and_time(database: Database) -> None:
    """A newer observation replaces the older one of its subject and profile only."""
    later = NOON + timedelta(hours=1)
    async with database.write() as connection:
        for value, at in (("yes", NOON), ("no", later)):
            await record_fact(connection, PROFILE, BUCKET, VendorFact.PREFIX_HONOURED, value, at)
        await record_fact(connection, PROFILE, "cvm.example", VendorFact.CLOCK_OFFSET, "7", NOON)
        await record_fact(connection, "other", BUCKET, VendorFact.UPLOADS_VISIBLE, "yes", NOON)
    async with database.read() as connection:
        assert await facts_about(connection, PROFILE, BUCKET) == {VendorFact.PREFIX_HONOURED: "no"}
        assert await all_facts(connection) == (
            LearnedFact(PROFILE, BUCKET, VendorFact.PREFIX_HONOURED, "no", later),
            LearnedFact(PROFILE, "cvm.example", VendorFact.CLOCK_OFFSET, "7", NOON),
            LearnedFact("other", BUCKET, VendorFact.UPLOADS_VISIBLE, "yes", NOON),
        )


async def test_the_time_to_the_first_trace_is_that_of_the_newest_jobs(database: Database) -> None:
    """The time to the first trace is the longest one of the jobs in its bucket.

    It is read from the jobs, together with the time at which that trace was found.
    """
    bucket = f"{REGION}/{JOBS_BUCKET}"
    async with database.write() as connection:
        for subject in (bucket, BUCKET):
            await record_fact(connection, PROFILE, subject, VendorFact.HEAD_TRUSTED, "yes", NOON)
    longest = await make_traced_job(database, took=3.2)
    await make_traced_job(database, took=1.0)
    at = (await read_job(database, longest)).first_trace_at
    async with database.read() as connection:
        (found,) = [
            one for one in await all_facts(connection) if one.fact is VendorFact.FIRST_TRACE
        ]
    assert found == LearnedFact(PROFILE, bucket, VendorFact.FIRST_TRACE, "4", at)


async def test_no_is_not_replaced_by_yes_for_a_day(database: Database) -> None:
    """Another process may see one success and not know what has failed."""
    fact = VendorFact.PREFIX_HONOURED
    for value, hours, expected in (("no", 0, "no"), ("yes", 23, "no"), ("yes", 25, "yes")):
        async with database.write() as connection:
            at = NOON + timedelta(hours=hours)
            await record_fact(connection, PROFILE, BUCKET, fact, value, at)
            assert await facts_about(connection, PROFILE, BUCKET) == {fact: expected}


async def test_a_fact_of_a_later_version_is_skipped(database: Database) -> None:
    """A store that a later version has used can still be read."""
    async with database.write() as connection:
        await record_fact(connection, PROFILE, BUCKET, VendorFact.HEAD_TRUSTED, "yes", NOON)
        row = {"profile": PROFILE, "subject": BUCKET, "fact": "news", "value": "", "seen_at": NOON}
        await connection.execute(vendor_facts.insert().values(row))
    async with database.read() as connection:
        assert await facts_about(connection, PROFILE, BUCKET) == {VendorFact.HEAD_TRUSTED: "yes"}
        assert [one.fact for one in await all_facts(connection)] == [VendorFact.HEAD_TRUSTED]

"""The model of the property tests knows when an operator's retry permits another export."""

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.job_states import JobState
from orchestrator.store import Database
from tests.job_factory import FakeClock, make_request, read_job

from .fake_vendor import Export, FakeCosClient, FakeVendor
from .system_under_test import SystemUnderTest

pytestmark = pytest.mark.anyio

JOB = 1
LONG = timedelta(hours=7)
"""Longer than the deadline of an export, so a job without its objects fails."""


@pytest.fixture
async def system(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[SystemUnderTest]:
    """A job that failed although its export still runs."""
    clock = FakeClock()
    path = shutil.copy(sqlite_template, tmp_path / "store.db")
    vendor = FakeVendor(clock.now)
    made = SystemUnderTest(
        Database(f"sqlite+aiosqlite:///{path}", clock), clock, vendor, FakeCosClient(vendor)
    )
    await made.start(0)
    await made.enqueue(make_request(1), described=True)
    await send(made)
    await made.pass_time(LONG)
    await made.look(JOB)
    assert await state_of(made) is JobState.FAILED
    yield made
    for _, stack in made.processes.values():
        await stack.aclose()
    await made.database.close()


async def send(system: SystemUnderTest) -> Export:
    """Send the next job; return the export that begins."""
    attempt = await system.claim(0)
    assert attempt is not None
    if not attempt.can_send:
        await system.clear(attempt)
    system.arrive(attempt, invisible_for=timedelta(), answered=True)
    await system.record(attempt)
    return system.vendor.exports[-1]


async def state_of(system: SystemUnderTest) -> JobState:
    """Return the state of the job."""
    return JobState((await read_job(system.database, JOB)).state)


async def until_resent(system: SystemUnderTest) -> None:
    """Look for the export until the job is queued again."""
    for _ in range(3):
        await system.look(JOB)
        if await state_of(system) is JobState.QUEUED:
            return
        await system.pass_time(LONG * 3)
    raise AssertionError(await state_of(system))


async def test_a_retry_permits_another_export_after_one_that_ends_unseen(
    system: SystemUnderTest,
) -> None:
    """The first export runs at the retry, and ends before the bucket can be read."""
    (first,) = system.vendor.exports
    system.looks.denied = True
    await system.retry()
    await system.look(JOB)
    first.given_up = True
    system.looks.denied = False
    await until_resent(system)
    assert await send(system) is not first


async def test_a_retry_permits_no_other_export_after_one_that_is_found(
    system: SystemUnderTest,
) -> None:
    """The first export is found again, so its end needs another retry."""
    (first,) = system.vendor.exports
    await system.retry()
    assert system.retried == {first}
    await system.look(JOB)
    assert await state_of(system) is JobState.ACCEPTED
    assert system.retried == set()

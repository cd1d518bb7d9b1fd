"""What a run records besides its jobs."""

from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.job_queue.worker_registry import lock_path, register_worker
from orchestrator.learned_vendor_facts import VendorFact, facts_about
from orchestrator.run_warnings import RunWarnings, stored_warnings
from orchestrator.store import BusyRetry, Database
from orchestrator.worker.maintenance import ClockOffsets, prepare_store
from tests.cloud.scripted_server import NOON, FixedClock, http_date
from tests.job_factory import PROFILE, FakeClock

pytestmark = pytest.mark.anyio

HOST = "cvm.example"


def clock_ahead_by(seconds: float) -> ServerClock:
    """Return a clock whose server has sent one Date header."""
    clock = ServerClock(FixedClock())
    clock.learn(http_date(NOON, timedelta(seconds=seconds)), HOST)
    return clock


async def stored_offset(database: Database) -> str | None:
    """Return the offset of the host in the store."""
    async with database.read() as connection:
        return (await facts_about(connection, PROFILE, HOST)).get(VendorFact.CLOCK_OFFSET)


def count_transactions(database: Database, patch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets an entry for each transaction from now on."""
    begun: list[str] = []
    read, write = database.read, database.write

    def begin_read() -> AbstractAsyncContextManager[AsyncConnection]:
        begun.append("read")
        return read()

    def begin_write() -> AbstractAsyncContextManager[AsyncConnection]:
        begun.append("write")
        return write()

    patch.setattr(database, "read", begin_read)
    patch.setattr(database, "write", begin_write)
    return begun


async def test_the_store_is_used_only_when_an_offset_has_grown(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same or a smaller offset costs no transaction; a larger one is written."""
    clock = clock_ahead_by(-7)
    offsets = ClockOffsets(database, PROFILE, [clock])
    with monkeypatch.context() as patch:
        begun = count_transactions(database, patch)
        for seconds in (-7, 5, -7):
            clock.learn(http_date(NOON, timedelta(seconds=seconds)), HOST)
            await offsets.record()
        assert begun == ["write"]
    assert await stored_offset(database) == "-7"
    clock.learn(http_date(NOON, timedelta(seconds=20)), HOST)
    await offsets.record()
    assert await stored_offset(database) == "20"


async def test_a_smaller_offset_than_in_the_store_is_not_written(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier run, or another process meanwhile, has seen a larger one."""
    clock = clock_ahead_by(3)
    offsets = ClockOffsets(database, PROFILE, [clock])
    await offsets.record()
    await ClockOffsets(database, PROFILE, [clock_ahead_by(-60)]).record()
    clock.learn(http_date(NOON, timedelta(seconds=30)), HOST)
    await offsets.record()
    assert await stored_offset(database) == "-60"
    begun = count_transactions(database, monkeypatch)
    await offsets.record()
    assert begun == []


async def test_the_larger_offset_of_two_clocks_is_written(database: Database) -> None:
    """Two services may be behind one host, such as a simulated one."""
    clocks = [clock_ahead_by(-9), clock_ahead_by(4)]
    await ClockOffsets(database, PROFILE, clocks).record()
    assert await stored_offset(database) == "-9"


@pytest.mark.parametrize("kept", [["No answer."], []], ids=["another run", "a copy of the store"])
async def test_warnings_of_earlier_runs_are_removed_unless_another_run_is_active(
    sqlite: Database, clock: FakeClock, kept: list[str]
) -> None:
    """Warnings of earlier runs are removed unless another run is active.

    A run without its lock file is not active: its row comes from a copied store.
    """
    async with register_worker(sqlite) as other:
        await RunWarnings(sqlite, PROFILE, lambda _sentence: None).warn("old", "No answer.")
        clock.advance(timedelta(seconds=1))
        path = lock_path(sqlite, other.name)
        assert path is not None
        if not kept:
            path.unlink()
        async with register_worker(sqlite) as me:
            warnings = RunWarnings(sqlite, PROFILE, lambda _sentence: None)
            await prepare_store(sqlite, me, BusyRetry(lambda _sentence: None), warnings)
    async with sqlite.read() as connection:
        assert [one.message for one in await stored_warnings(connection)] == kept

"""A run that is asked to end waits only a few seconds for a locked store."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from orchestrator.clock import SystemClock
from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.reporting.run_summary import RunResult
from orchestrator.simulator import Duration, Fault, Simulator
from orchestrator.store import Database
from tests.end_to_end.harness import (
    OpenStore,
    count_exports,
    count_states,
    make_image_ids,
    make_requests_for,
    wait_until,
    wait_until_stored,
)

pytestmark = pytest.mark.anyio

COUNT = 100
FEW_SECONDS = 25.0
"""Longer than the longest wait, with time for a busy machine; a lock is else waited for 60 s."""

Lock = AbstractAsyncContextManager[None]


@asynccontextmanager
async def lock_sqlite(url: str) -> AsyncIterator[None]:
    """Another program writes to the file and does not end its transaction."""
    other = sqlite3.connect(sa.make_url(url).database or "", isolation_level=None, timeout=0)
    with anyio.fail_after(20):
        while not other.in_transaction:
            with suppress(sqlite3.OperationalError):
                other.execute("BEGIN IMMEDIATE")
            await anyio.sleep(0.001)
    yield
    other.close()


@asynccontextmanager
async def lock_table(url: str, table: str) -> AsyncIterator[None]:
    """Another session locks a table even against reading."""
    other = Database(url, SystemClock())
    async with other.write() as connection:
        await connection.execute(sa.text(f"LOCK TABLE {table}"))
        yield
    await other.close()


def lock_store(url: str, table: str) -> Lock:
    """Lock the store; on a server, one table of it."""
    return lock_sqlite(url) if url.startswith("sqlite") else lock_table(url, table)


class RunDuringLock:
    """A run that is asked to end while the store is locked.

    Args:
        orchestrator: with jobs in its queue.
    """

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self._stop, self._ended = anyio.Event(), anyio.Event()
        self.result: RunResult | None = None

    async def work(self) -> None:
        """Run until asked to end, and ignore errors of the store.

        The store may still be locked at the end.
        """
        with suppress(OperationalError):
            try:
                self.result = await self._orchestrator.run(stop=self._stop)
            except ExceptionGroup as group:
                _, others = group.split(OperationalError)
                if others is not None:
                    raise
        self._ended.set()

    async def ends_soon(self) -> bool:
        """Return whether the run ends soon after its shutdown was requested."""
        self._stop.set()
        with anyio.move_on_after(FEW_SECONDS):
            await self._ended.wait()
        return self._ended.is_set()


async def ends_soon(orchestrator: Orchestrator, is_time: Callable[[], bool], lock: Lock) -> bool:
    """Return whether a run ends soon if shutdown is requested on a locked store.

    The shutdown is requested one second after the store is locked.

    Args:
        is_time: returns whether the store is to be locked now.
        lock: locks the store.
    """
    await orchestrator.enqueue(make_requests_for(make_image_ids(COUNT)))
    run, is_soon = RunDuringLock(orchestrator), False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.work)
        await wait_until(is_time)
        async with lock:
            await anyio.sleep(1)
            is_soon = await run.ends_soon()
    return is_soon


async def test_unrecorded_answers_delay_shutdown_a_few_seconds(
    database_url: str, cloud: Simulator, open_store: OpenStore
) -> None:
    """Answers that cannot be recorded are given up together, not one after another."""
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=1.0))
    async with open_store(database_url=database_url) as orchestrator:
        lock = lock_store(database_url, "jobs")
        assert await ends_soon(orchestrator, lambda: len(count_exports(cloud)) > COUNT // 2, lock)


async def test_lookups_delay_shutdown_a_few_seconds(
    database_url: str, cloud: Simulator, open_store: OpenStore
) -> None:
    """Objects are looked up while the store is locked."""
    cloud.change(duration=Duration(seconds=100))
    async with open_store(database_url=database_url, verify_interval=1) as orchestrator:
        lock = lock_store(database_url, "jobs")
        assert await ends_soon(orchestrator, lambda: len(count_exports(cloud)) == COUNT, lock)


async def test_worker_entry_does_not_delay_shutdown(
    database_url: str, cloud: Simulator, open_store: OpenStore
) -> None:
    """Only the end of the process is left to record, and its free lock shows it."""
    cloud.change(duration=Duration(seconds=100))
    async with open_store(database_url=database_url, verify_interval=600) as orchestrator:
        await orchestrator.enqueue(make_requests_for(make_image_ids(8)))
        run = RunDuringLock(orchestrator)

        async def are_accepted() -> bool:
            return (await count_states(orchestrator))[JobState.ACCEPTED] == 8

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.work)
            await wait_until_stored(are_accepted)
            async with lock_store(database_url, "instances"):
                assert await run.ends_soon()
    assert run.result is not None
    assert run.result.counts[JobState.ACCEPTED] == 8

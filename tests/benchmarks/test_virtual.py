"""Virtual time: a sleep takes no real time, and real work takes no virtual time."""

import time
from pathlib import Path

import anyio
import sqlalchemy as sa
from anyio import to_thread

from benchmarks.virtual import VirtualClock, in_virtual_time
from orchestrator.store import Database

_REALLY = 0.2


def test_a_sleep_costs_no_real_time() -> None:
    """A sleep of one hour takes almost no real time.

    The hour passes on the loop's clock and in the time of day.
    """

    async def work() -> tuple[float, float]:
        before, begun = VirtualClock().now(), anyio.current_time()
        await anyio.sleep(3600)
        return (VirtualClock().now() - before).total_seconds(), anyio.current_time() - begun

    really = time.monotonic()
    passed = in_virtual_time(work)
    assert [round(seconds) for seconds in passed] == [3600, 3600]
    assert time.monotonic() - really < 60


def test_a_database_call_is_waited_for(tmp_path: Path) -> None:
    """While SQLite works, virtual time stops, and no timer of another task fires."""

    async def work() -> list[str]:
        told: list[str] = []
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/store.db", VirtualClock())
        async with anyio.create_task_group() as others:
            others.start_soon(_tell_later, told)
            async with database.write() as connection:
                await connection.run_sync(_slow_function)
                before = anyio.current_time()
                told += (await connection.execute(sa.text("SELECT slow()"))).scalars()
                assert anyio.current_time() - before < 0.001
        await database.close()
        return told

    assert in_virtual_time(work) == ["slow", "later"]


def test_a_threads_work_is_waited_for() -> None:
    """The same holds for work that runs in a thread."""

    async def work() -> float:
        before = anyio.current_time()
        await to_thread.run_sync(time.sleep, _REALLY)
        return anyio.current_time() - before

    assert in_virtual_time(work) < 0.001


def test_the_caller_gets_the_error_of_its_call(tmp_path: Path) -> None:
    """The caller of a failed statement gets the error and can use the database again."""

    async def work() -> int:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/store.db", VirtualClock())
        failed = 0
        for _ in range(2):
            try:
                async with database.read() as connection:
                    await connection.execute(sa.text("SELECT nothing FROM nowhere"))
            except sa.exc.OperationalError:
                failed += 1
        await database.close()
        return failed

    assert in_virtual_time(work) == 2


async def _tell_later(told: list[str]) -> None:
    await anyio.sleep(0.1)
    told.append("later")


def _slow_function(connection: sa.Connection) -> None:
    def slow() -> str:
        time.sleep(_REALLY)
        return "slow"

    raw = connection.connection.dbapi_connection
    assert raw is not None
    raw.create_function("slow", 0, slow)

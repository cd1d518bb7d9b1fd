"""A system clock that is set during a run or between two runs: no waiting time is cut short."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.clock import ShiftedClock, SystemClock
from orchestrator.job_queue.clock_jump_recovery import reset_waits_after_clock_jump
from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Fault, Simulator
from orchestrator.store import Database
from orchestrator.store.tables import jobs
from tests.end_to_end.harness import (
    count_exports,
    count_states,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    once_each,
    read_ledger,
    run_and_stop_when,
    run_to_end,
)
from tests.job_factory import NOON, make_jobs, make_requests, read_job, read_scope, update_scope

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class AdjustableClock:
    """A system clock that a test can set."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """Return the time of this clock."""
        return datetime.now(UTC) + self.ahead


def make_orchestrator_at(
    cloud: Simulator, folder: Path, ahead: timedelta, said: list[str]
) -> Orchestrator:
    """Make an orchestrator on a machine whose clock is ahead by this much."""
    # after a clock was set no time to a first trace is known, so absence could not be proven
    made = make_orchestrator(
        cloud.url, folder, notify=said.append, resend_after=2.5, resend="always"
    )
    made._clock = ShiftedClock(SystemClock(), ahead)
    return made


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_process_clock_ignores_jumps(jump: timedelta) -> None:
    """The machine's clock is set during a run; the time of the process continues evenly."""
    wall = AdjustableClock()
    clock = SystemClock(wall.now)
    before = clock.now()
    wall.ahead = jump
    assert timedelta() <= clock.now() - before < timedelta(minutes=1)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_clock_set_between_two_runs(
    cloud: Simulator, tmp_path: Path, jump: timedelta
) -> None:
    """An unknown job waits its whole time, nothing stalls, and signatures are correct."""
    lost = Fault("reset", action="ExportImages", images=("img-00000000",), after=True, times=1)
    never = Fault("reset", action="ExportImages", images=("img-00000001",), times=1)
    cloud.set_faults(lost, never)
    cloud.change(queue_delay=1.5)  # the bucket shows the lost export late
    said: list[str] = []
    async with make_orchestrator_at(cloud, tmp_path, timedelta(), said) as before:
        await before.enqueue(make_requests_for(make_image_ids(4)))
        result = await run_and_stop_when(before, lambda: len(read_ledger(cloud)) >= 4)
        assert result.counts[JobState.UNKNOWN] > 0
    cloud.set_faults()
    async with make_orchestrator_at(cloud, tmp_path, jump, said) as after:
        await run_to_end(after)
        assert await count_states(after) == {JobState.VERIFIED: 4}
    assert count_exports(cloud) == once_each(make_image_ids(4))
    # the lost one was found; only the one that never arrived was sent again
    assert len([entry for entry in read_ledger(cloud) if entry.image_ids == ("img-00000000",)]) == 1
    assert any("clock was put back" in sentence for sentence in said) is (jump < timedelta())


async def test_processes_share_the_time_of_the_running_process(sqlite_url: str) -> None:
    """A process that opens the store after the clock was set uses the time of those that run."""

    async def nothing() -> None: ...

    first = Database(sqlite_url, SystemClock())
    async with first.worked_on(nothing):
        second = Database(sqlite_url, ShiftedClock(SystemClock(), HOUR))
        assert abs(second.clock.now() - first.clock.now()) < timedelta(seconds=5)
        async with second.worked_on(nothing):
            assert abs(second.clock.now() - first.clock.now()) < timedelta(seconds=5)
    third = Database(sqlite_url, ShiftedClock(SystemClock(), HOUR))
    assert third.clock.now() - first.clock.now() > timedelta(minutes=50)
    for opened in (first, second, third):
        await opened.close()


async def test_waits_are_reset_once(sqlite_url: str) -> None:
    """Only the run that finds a clock jump resets the waits; the next run keeps them."""
    begun: list[str] = []
    for name, ahead in (("new", 0), ("same", 0), ("set", 1), ("same", 1), ("set back", 0)):

        async def note(name: str = name) -> None:
            begun.append(name)

        opened = Database(sqlite_url, ShiftedClock(SystemClock(), ahead * HOUR))
        async with opened.worked_on(note):
            pass
        await opened.close()
    assert begun == ["new", "set", "set back"]


async def test_waits_that_are_reset(sqlite: Database) -> None:
    """Waits end and resend delays begin again; a `not_before` stays as it is."""
    later = NOON + HOUR
    by_user, tried, maybe_applied = await make_jobs(sqlite, make_requests(3, not_before=later))
    async with sqlite.write() as connection:
        await connection.execute(jobs.update().where(jobs.c.id != by_user).values(attempt=1))
        values = {"state": JobState.UNKNOWN, "absent_since": NOON, "no_resend_before": later}
        await connection.execute(jobs.update().where(jobs.c.id == maybe_applied).values(values))
    await update_scope(sqlite, probe_at=later, probe_until=later, probe_job=tried)
    said: list[str] = []
    await reset_waits_after_clock_jump(sqlite, said.append)
    assert (await read_job(sqlite, by_user)).due_at == later
    assert (await read_job(sqlite, tried)).due_at == NOON
    row = await read_job(sqlite, maybe_applied)
    assert (row.due_at, row.absent_since, row.no_resend_before) == (NOON, None, None)
    gate = await read_scope(sqlite)
    assert (gate.probe_at, gate.probe_until, gate.probe_job) == (NOON, None, None)
    assert said == []

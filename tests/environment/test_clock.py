"""A clock that somebody sets, while a run goes on and between two: no grace is cut short."""

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
from tests.end_to_end.scene import (
    accepted,
    images,
    once_each,
    orchestrator_at,
    orders,
    ran,
    requests,
    run_and_stop_when,
    states_of,
)
from tests.stores import NOON, job, make_jobs, numbered, scope, set_scope

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class Wall:
    """A clock on the wall that anybody may set."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """What it shows."""
        return datetime.now(UTC) + self.ahead


def at(cloud: Simulator, folder: Path, ahead: timedelta, said: list[str]) -> Orchestrator:
    """A store on a machine whose clock is so much ahead."""
    # after a clock was set no time to a first trace is known, so absence could not be proven
    made = orchestrator_at(cloud.url, folder, notify=said.append, resend_after=2.5, resend="always")
    made._clock = ShiftedClock(SystemClock(), ahead)
    return made


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_process_goes_by_its_own_time(jump: timedelta) -> None:
    """The machine's clock is set under a run, whose time goes on as if nothing had happened."""
    wall = Wall()
    clock = SystemClock(wall.now)
    before = clock.now()
    wall.ahead = jump
    assert timedelta() <= clock.now() - before < timedelta(minutes=1)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_set_between_two_runs(cloud: Simulator, tmp_path: Path, jump: timedelta) -> None:
    """A doubted job keeps its whole time of grace, nothing stalls, and signatures are right."""
    lost = Fault("reset", action="ExportImages", images=("img-00000000",), after=True, times=1)
    never = Fault("reset", action="ExportImages", images=("img-00000001",), times=1)
    cloud.set_faults(lost, never)
    cloud.change(queue_delay=1.5)  # the bucket shows the lost export late
    said: list[str] = []
    async with at(cloud, tmp_path, timedelta(), said) as before:
        await before.enqueue(orders(images(4)))
        result = await run_and_stop_when(before, lambda: len(requests(cloud)) >= 4)
        assert result.counts[JobState.UNKNOWN] > 0
    cloud.set_faults()
    async with at(cloud, tmp_path, jump, said) as after:
        await ran(after)
        assert await states_of(after) == {JobState.VERIFIED: 4}
    assert accepted(cloud) == once_each(images(4))
    # the lost one was found; only the one that never arrived was sent again
    assert len([entry for entry in requests(cloud) if entry.image_ids == ("img-00000000",)]) == 1
    assert any("clock was put back" in sentence for sentence in said) is (jump < timedelta())


async def test_all_go_by_the_time_of_the_run_at_work(sqlite_url: str) -> None:
    """Whoever opens the store after the clock was set goes by the time of those at work on it."""

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


async def test_the_waits_begin_anew_once(sqlite_url: str) -> None:
    """Only the run that finds the clock set begins them anew; the next one trusts the store."""
    begun: list[str] = []
    for name, ahead in (("new", 0), ("same", 0), ("set", 1), ("same", 1), ("set back", 0)):

        async def note(name: str = name) -> None:
            begun.append(name)

        opened = Database(sqlite_url, ShiftedClock(SystemClock(), ahead * HOUR))
        async with opened.worked_on(note):
            pass
        await opened.close()
    assert begun == ["new", "set", "set back"]


async def test_what_begins_anew(sqlite: Database) -> None:
    """Waits end and times of grace begin anew; what a user wants later stays later."""
    later = NOON + HOUR
    by_user, tried, maybe_applied = await make_jobs(sqlite, numbered(3, not_before=later))
    async with sqlite.write() as connection:
        await connection.execute(jobs.update().where(jobs.c.id != by_user).values(attempt=1))
        values = {"state": JobState.UNKNOWN, "absent_since": NOON, "no_resend_before": later}
        await connection.execute(jobs.update().where(jobs.c.id == maybe_applied).values(values))
    await set_scope(sqlite, probe_at=later)
    said: list[str] = []
    await reset_waits_after_clock_jump(sqlite, said.append)
    assert (await job(sqlite, by_user)).due_at == later
    assert (await job(sqlite, tried)).due_at == NOON
    row = await job(sqlite, maybe_applied)
    assert (row.due_at, row.absent_since, row.no_resend_before) == (NOON, None, None)
    assert (await scope(sqlite)).probe_at == NOON
    assert said == []

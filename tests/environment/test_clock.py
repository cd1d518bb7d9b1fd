"""A clock that is set during a run, or between two runs: no waiting time becomes shorter."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.clock import SystemClock
from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Fault, Simulator
from orchestrator.store import Database
from orchestrator.verification.tracked_jobs import load_tracked_job
from orchestrator.verification.unknown_jobs import AbsenceTracker
from orchestrator.worker.maintenance import discard_impossible_waits
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
from tests.job_factory import (
    advance_time,
    make_job,
    make_jobs,
    make_request,
    now,
    read_job,
    read_scope,
    update_job,
    update_scope,
)

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class Wall:
    """A machine clock that the test can set."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """Return the time that the clock shows."""
        return datetime.now(UTC) + self.ahead


def at(cloud: Simulator, folder: Path, ahead: timedelta, said: list[str]) -> Orchestrator:
    """Return an orchestrator on a machine whose clock is ahead by this time."""
    # no time to a first trace is known, so `proven` would resend nothing
    made = make_orchestrator(
        cloud.url, folder, notify=said.append, resend_after=2.5, resend="always"
    )
    made._clock = SystemClock(lambda: datetime.now(UTC) + ahead)
    return made


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_jump_does_not_change_the_time_of_a_process(jump: timedelta) -> None:
    """The time of a process continues unchanged when the machine's clock is set."""
    wall = Wall()
    clock = SystemClock(wall.now)
    before = clock.now()
    wall.ahead = jump
    assert timedelta() <= clock.now() - before < timedelta(minutes=1)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_clock_set_between_runs(cloud: Simulator, tmp_path: Path, jump: timedelta) -> None:
    """An unknown job waits its full time, nothing stalls, and signatures are valid."""
    lost = Fault("reset", action="ExportImages", images=("img-00000000",), after=True, times=1)
    never = Fault("reset", action="ExportImages", images=("img-00000001",), times=1)
    cloud.set_faults(lost, never)
    cloud.change(queue_delay=1.5)  # the bucket shows the lost export late
    said: list[str] = []
    async with at(cloud, tmp_path, timedelta(), said) as before:
        await before.enqueue(make_requests_for(make_image_ids(4)))
        result = await run_and_stop_when(before, lambda: len(read_ledger(cloud)) >= 4)
        assert result.counts[JobState.UNKNOWN] > 0
    cloud.set_faults()
    async with at(cloud, tmp_path, jump, said) as after:
        await run_to_end(after)
        assert await count_states(after) == {JobState.VERIFIED: 4}
    assert count_exports(cloud) == once_each(make_image_ids(4))
    # the lost one was found; only the one that never arrived was sent again
    assert len([entry for entry in read_ledger(cloud) if entry.image_ids == ("img-00000000",)]) == 1


async def test_waits_that_no_back_off_explains_are_discarded(database: Database) -> None:
    """A job that is due in hours, by a clock that was ahead, becomes due at once."""
    moment = await now(database)
    tried = await make_job(database, attempt=1, due_at=moment + 3 * HOUR)
    soon = await make_job(database, attempt=1, due_at=moment + timedelta(minutes=1))
    await update_scope(database, probe_at=moment + 48 * HOUR)
    await discard_impossible_waits(database)
    assert (await read_job(database, tried)).due_at <= await now(database)
    assert (await read_job(database, soon)).due_at > moment
    kept = await read_scope(database)
    assert kept.probe_at <= await now(database)


async def test_not_before_is_not_discarded(database: Database) -> None:
    """A job enqueued for later is not sent earlier."""
    wanted = await now(database) + 3 * HOUR
    (job_id,) = await make_jobs(database, [make_request(not_before=wanted)])
    await discard_impossible_waits(database)
    assert (await read_job(database, job_id)).due_at == wanted


async def test_each_run_counts_absence_from_zero(database: Database) -> None:
    """Look-ups of another process, or from before a clock was set, do not count."""
    job_id = await make_job(database, JobState.UNKNOWN, attempt=1)
    await update_job(database, job_id, absent_since=await now(database) - 24 * HOUR)
    async with database.read() as connection:
        seen = await load_tracked_job(connection, job_id)
    tracker = AbsenceTracker(database.clock)
    assert tracker.absent_for(seen) == timedelta()
    await advance_time(database, seconds=90)
    assert tracker.absent_for(seen) == timedelta(seconds=90)
    assert AbsenceTracker(database.clock).absent_for(seen) == timedelta()

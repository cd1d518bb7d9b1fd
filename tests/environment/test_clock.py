"""A clock that somebody sets, while a run goes on and between two: no grace is cut short."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.clock import SystemClock
from orchestrator.job_queue.orphan_recovery import discard_impossible_waits
from orchestrator.job_states import JobState
from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Fault, Simulator
from orchestrator.store import Database
from orchestrator.verification.tracked_jobs import load_tracked_job
from orchestrator.verification.unknown_jobs import AbsenceTracker
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
    """A clock on the wall that anybody may set."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        """What it shows."""
        return datetime.now(UTC) + self.ahead


def at(cloud: Simulator, folder: Path, ahead: timedelta, said: list[str]) -> Orchestrator:
    """A store on a machine whose clock is so much ahead."""
    # across two runs no time to a first object is known, so absence could not be proven
    made = make_orchestrator(
        cloud.url, folder, notify=said.append, resend_after=2.5, resend="always"
    )
    made._clock = SystemClock(lambda: datetime.now(UTC) + ahead)
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
    """A job that should be tried again in hours, by a clock that was ahead, is due at once."""
    moment = await now(database)
    tried = await make_job(database, attempt=1, due_at=moment + 3 * HOUR)
    soon = await make_job(database, attempt=1, due_at=moment + timedelta(minutes=1))
    await update_scope(database, probe_at=moment + 3 * HOUR)
    await discard_impossible_waits(database)
    assert (await read_job(database, tried)).due_at <= await now(database)
    assert (await read_job(database, soon)).due_at > moment
    kept = await read_scope(database)
    assert kept.probe_at <= await now(database)


async def test_a_time_that_a_user_wants_stays(database: Database) -> None:
    """A job enqueued for later is not sent earlier."""
    wanted = await now(database) + 3 * HOUR
    (job_id,) = await make_jobs(database, [make_request(not_before=wanted)])
    await discard_impossible_waits(database)
    assert (await read_job(database, job_id)).due_at == wanted


async def test_absence_is_counted_anew_by_each_run(database: Database) -> None:
    """What another process, or a clock that was set, says of earlier look-ups proves nothing."""
    job_id = await make_job(database, JobState.UNKNOWN, attempt=1)
    await update_job(database, job_id, absent_since=await now(database) - 24 * HOUR)
    async with database.read() as connection:
        seen = await load_tracked_job(connection, job_id)
    tracker = AbsenceTracker(database.clock)
    assert tracker.absent_for(seen) == timedelta()
    await advance_time(database, seconds=90)
    assert tracker.absent_for(seen) == timedelta(seconds=90)
    assert AbsenceTracker(database.clock).absent_for(seen) == timedelta()

"""One attempt: when it is sent, and the order in which its outcome is recorded."""

from dataclasses import dataclass, field

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.limits import answer_warnings
from orchestrator.limits.admission import Admission
from orchestrator.limits.rate_limiter import Permit
from orchestrator.run_warnings import RunWarnings
from orchestrator.settings import VerifyMode
from orchestrator.store import BusyRetry
from orchestrator.verification.bucket_access import BucketAccess
from orchestrator.worker.attempt import Attempt, AttemptRunner
from orchestrator.worker.run_context import RunContext
from tests.job_factory import (
    BUCKET,
    PROFILE,
    REGION,
    SETTINGS,
    claim_with_permits,
    export_rate_limiter,
    make_job,
    read_job,
    read_last_attempt,
)
from tests.store_and_cloud import CREDENTIAL, StoreAndCloud, make_admission, make_bucket_access

pytestmark = pytest.mark.anyio

HOST, OTHER = "cvm.example", "other-1250000000"


class _CrashError(Exception):
    """The end of the process at this point."""


class _CrashingWarnings(RunWarnings):
    """Warnings of a process that ends when it begins or ends one."""

    async def warn(self, key: str, message: str, *, is_notified: bool = False) -> None:
        """Crash."""
        raise _CrashError

    async def clear(self, key: str) -> bool:
        """Crash."""
        raise _CrashError


@dataclass(frozen=True, slots=True)
class _HeldPermit(Permit):
    """A permit whose time comes when a test says so."""

    is_awaited: anyio.Event = field(default_factory=anyio.Event)
    has_come: anyio.Event = field(default_factory=anyio.Event)

    async def wait(self) -> None:
        """Wait until the test lets the request be sent."""
        self.is_awaited.set()
        await self.has_come.wait()


async def run_next(
    setup: StoreAndCloud, admission: Admission, buckets: BucketAccess, held: Permit | None = None
) -> None:
    """Claim the next job and run its attempt.

    Args:
        held: permit to use instead of the one of the claim.
    """
    database = setup.database
    ((lease, permit),) = await claim_with_permits(database, signed_at=setup.cvm.clock.now())
    warnings = RunWarnings(database, PROFILE, print)
    context = RunContext(SETTINGS, database, setup.cvm, setup.cos, admission, warnings)
    runner = AttemptRunner(context, buckets, BusyRetry(print), lambda: False)
    await runner.run(
        Attempt(
            HOST,
            lease,
            CREDENTIAL,
            held or permit,
            export_rate_limiter(database),
            anyio.current_time(),
        )
    )


async def test_nothing_is_sent_before_the_permit(setup: StoreAndCloud) -> None:
    """The request waits for the time of its permit, and is sent then."""
    await make_job(setup.database)
    admission, held = make_admission(setup.database), _HeldPermit(None, at=0.0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run_next, setup, admission, make_bucket_access(), held)
        with anyio.fail_after(30):
            await held.is_awaited.wait()
        await anyio.wait_all_tasks_blocked()
        assert not [entry for entry in setup.simulator.ledger if entry.service == "cvm"]
        held.has_come.set()
    assert [entry.accepted for entry in setup.simulator.ledger if entry.service == "cvm"] == [True]


async def test_a_crash_while_warnings_are_written_loses_no_task_id(setup: StoreAndCloud) -> None:
    """The answer is stored before any warning that follows from it begins or ends."""
    database = setup.database
    job_id = await make_job(database)
    admission = make_admission(database, warnings=_CrashingWarnings(database, PROFILE, print))
    with pytest.raises(_CrashError):
        await run_next(setup, admission, make_bucket_access())
    (entry,) = [entry for entry in setup.simulator.ledger if entry.accepted]
    job = await read_job(database, job_id)
    assert (job.state, job.task_id) == (JobState.ACCEPTED, str(entry.task_id))
    assert (await read_last_attempt(database, job_id)).task_id == str(entry.task_id)


@pytest.mark.parametrize("exporting_to", [BUCKET, OTHER])
@pytest.mark.parametrize("mode", [VerifyMode.OFF, VerifyMode.AUTO])
async def test_a_full_region_is_warned_of_where_no_bucket_shows_an_end(
    setup: StoreAndCloud, monkeypatch: pytest.MonkeyPatch, mode: VerifyMode, exporting_to: str
) -> None:
    """The buckets of the running exports count, not that of the refused job."""
    monkeypatch.setattr(answer_warnings, "_LONG", 0.0)
    setup.simulator.change(cap=0)
    said: list[str] = []
    admission = make_admission(setup.database, notify=said.append)
    admission.record_exporting([REGION])
    await make_job(setup.database, JobState.ACCEPTED, bucket=exporting_to, task_id="9")
    await make_job(setup.database)
    await run_next(setup, admission, make_bucket_access(mode, unreadable=True))
    assert len(said) == (mode is VerifyMode.OFF or exporting_to == BUCKET)

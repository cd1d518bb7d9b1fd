"""One attempt: the order in which its outcome is recorded."""

import anyio
import pytest

from orchestrator.job_states import JobState
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import BusyRetry
from orchestrator.worker.attempt import Attempt, AttemptRunner
from orchestrator.worker.run_context import RunContext
from tests.job_factory import (
    PROFILE,
    SETTINGS,
    claim_with_permits,
    export_rate_limiter,
    make_job,
    read_job,
    read_last_attempt,
)
from tests.store_and_cloud import CREDENTIAL, StoreAndCloud, make_admission, make_bucket_access

pytestmark = pytest.mark.anyio

HOST = "cvm.example"


class _CrashError(Exception):
    """The end of the process at this point."""


class _CrashingWarnings(RunWarnings):
    """Warnings of a process that ends when it begins or ends one."""

    async def warn(self, key: str, message: str, *, is_told: bool = False) -> None:
        """Crash."""
        raise _CrashError

    async def clear(self, key: str) -> None:
        """Crash."""
        raise _CrashError


async def test_a_crash_while_warnings_are_written_loses_no_task_id(setup: StoreAndCloud) -> None:
    """The answer is in the store before any warning that follows from it begins or ends."""
    database = setup.database
    job_id = await make_job(database)
    ((lease, permit),) = await claim_with_permits(database, signed_at=setup.cvm.clock.now())
    warnings = _CrashingWarnings(database, PROFILE, print)
    admission = make_admission(database, warnings=warnings)
    context = RunContext(SETTINGS, database, setup.cvm, setup.cos, admission, warnings)
    runner = AttemptRunner(context, make_bucket_access(), BusyRetry(print), lambda: False)
    rate_limiter = export_rate_limiter(database)
    with pytest.raises(_CrashError):
        await runner.run(
            Attempt(HOST, lease, CREDENTIAL, permit, rate_limiter, anyio.current_time())
        )
    (entry,) = [entry for entry in setup.simulator.ledger if entry.accepted]
    job = await read_job(database, job_id)
    assert (job.state, job.task_id) == (JobState.ACCEPTED, str(entry.task_id))
    assert (await read_last_attempt(database, job_id)).task_id == str(entry.task_id)

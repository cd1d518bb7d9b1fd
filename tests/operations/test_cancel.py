"""Cancelling queued jobs."""

import pytest

from orchestrator.job_states import JobState
from orchestrator.operations import CancelResult, cancel
from orchestrator.store import Database
from orchestrator.store.tables import events, jobs
from tests.job_factory import make_job, read_job, read_rows

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("dry_run", [False, True])
async def test_only_queued_jobs_are_cancelled(database: Database, *, dry_run: bool) -> None:
    """Jobs in other states stay unchanged and count as skipped.

    In a dry run all jobs stay unchanged.
    """
    by_state = {state: await make_job(database, state) for state in JobState}
    result = await cancel(database, jobs.c.id > 0, actor="operator", dry_run=dry_run)
    assert result == CancelResult(changed=1, skipped=len(JobState) - 1)
    for state, job_id in by_state.items():
        is_cancelled = state is JobState.QUEUED and not dry_run
        kept = await read_job(database, job_id)
        assert kept.state == (JobState.CANCELLED if is_cancelled else state)
        if is_cancelled:
            event = (await read_rows(database, events, job_id))[-1]
            assert (event.kind, event.actor, kept.reason) == ("cancelled", "operator", "given up")
            assert kept.finished_at is not None
